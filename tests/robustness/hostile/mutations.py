"""Good responses with something wrong in a place that chance chooses."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

INFINITY = float("inf")  # which JSON can say, as 1e999
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**400, 0.5, -0.0, INFINITY,
    "", " ", "text", "None", "0", "1", "-1", "1.5", "..", "../../x?y=1#z", "\x00", "\ud800", "\u202e", "x" * 10_000,
    "0000-00-00T00:00:00Z", "10000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
    "2026-01-01T00:00:00", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00[Mars]", "now", "P1Y", "PT1H/PT2H",
    "1e999", "NaN", '"text"', "[[[[", '{"a": 1}', "[" * 400 + "]" * 400, "<html>", "https://elsewhere.example.com/x",
    [], [None], [[]], [{}], ["text"], [1, True, None], {}, {"id": None}, {"id": {}}, {"id": "1"}, {"name": 1},
    {"data": []}, {"next": "c"}, {"": ""},
]  # fmt: skip
CHANGES = ("replace", "delete", "insert", "again")


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of everything in parsed JSON, the whole first."""
    yield place
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*place, key))


@st.composite
def mutated(draw: st.DrawFn, good: Any) -> Any:
    """Draw a good response with one to three things replaced, left out, put in or repeated."""
    bad = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(places(bad))))
        change = draw(st.sampled_from(CHANGES))
        value = copy.deepcopy(draw(st.sampled_from(VALUES)))
        if not place:
            bad = value if change == "replace" else [bad] if change == "insert" else bad
            continue
        container = bad
        for key in place[:-1]:
            container = container[key]
        _change(container, place[-1], change, value)
    return bad


def _change(container: Any, key: Any, change: str, value: Any) -> None:
    if change == "replace":
        container[key] = value
    elif change == "delete":
        del container[key]
    elif isinstance(container, list):
        container.insert(key, container[key] if change == "again" else value)
    else:
        container[f"{key}2" if change == "again" else "x_new"] = container[key] if change == "again" else value


def as_body(value: Any) -> bytes:
    return json.dumps(value).replace("Infinity", "1e999").encode()
