"""Parse the JSON of servers into values that Airflow's database and processes can hold."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

import simplejson

# Every escape, so that an escaped backslash starts none. The group is one that PostgreSQL or UTF-8 rejects:
# NUL, or half of a surrogate pair.
ESCAPE = re.compile(
    r"\\(?:[^u]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})|u)"
)
REJECTED = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
LONG_NUMBER = re.compile(r"\d{19}")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MAX_DIGITS = 18  # of an int that every format between Airflow's processes can hold


def parse(text: str, *, exact: bool = False) -> Any:
    """
    Return the parsed JSON; characters that cannot be stored are U+FFFD.

    :param exact: Read numbers with a fraction as ``Decimal``, and whole numbers of any size as ``int``; otherwise
        a number that is too large is its text.
    :raises ValueError: the text is not JSON.
    :raises RecursionError: it is nested too deeply.
    """
    return decoder(text, exact=exact).decode(storable(text))


def decoder(text: str, *, exact: bool = False) -> Any:
    """Return the decoder of a text, for :func:`parse` and for decoding a list one by one."""
    if exact:
        return simplejson.JSONDecoder(parse_float=Decimal)
    return simplejson.JSONDecoder(parse_float=_finite, parse_int=_whole if LONG_NUMBER.search(text) else None)


def storable(text: str) -> str:
    """Return a JSON text in which U+FFFD stands for each character that cannot be stored."""
    if REJECTED.search(text) is None:
        return text
    return ESCAPE.sub(lambda escape: escape[0] if escape[1] is None else r"\ufffd", text)


def _finite(number: str) -> float | str:
    """Return a number with a fraction or exponent, or its text if it is too large: JSON has no infinity."""
    value = float(number)
    return value if math.isfinite(value) else number


def _whole(number: str) -> int | str:
    return int(number) if len(number) <= MAX_DIGITS else number
