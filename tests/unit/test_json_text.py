from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
import simplejson
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_workflows import json_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'"ok \ud83d"', "ok \ufffd"),
        (r'"\ude00\ud83d\ude00"', "\ufffd\N{GRINNING FACE}"),
        (r'{"\uD83Da": "\u0000b"}', {"\ufffda": "\ufffdb"}),
        (r'"\\ud83d \\\u0000"', "\\ud83d \\\ufffd"),
        (r'"\ud83d\ud83d\ude00"', "\ufffd\N{GRINNING FACE}"),
        ("[1, 18446744073709551616, -123456789012345678901]", [1, "18446744073709551616", "-123456789012345678901"]),
        ("[1.5, 1e999]", [1.5, "1e999"]),
    ],
)
def test_what_cannot_be_stored_is_replaced(text, expected):
    assert json_text.parse(text) == expected


def test_exact_numbers_keep_their_type():
    assert json_text.parse("[1.10, 18446744073709551616]", exact=True) == [Decimal("1.10"), 2**64]


TEXT = st.text(st.characters(categories=["L", "Cs", "Cc"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@given(JSON, st.booleans())
def test_every_json_can_be_sent_between_processes(value, ascii_only):
    text = simplejson.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "replace").decode()

    parsed = json_text.parse(text)

    assert r"\x00" not in repr(parsed)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(parsed)) == parsed
