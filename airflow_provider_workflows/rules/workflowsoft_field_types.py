"""
Read, write and compare single values of Workflowsoft's typed fields.

Reading is tolerant: the formats of a server's values are not documented, so every unambiguous format is accepted.
Writing is strict, and uses the formats in the vendor's samples.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

import pendulum

from airflow_provider_workflows.rules.datetimes import parse_time, time_text

INTEGERS = {"int16": 16, "int32": 32, "int64": 64}
FRACTIONS = ("decimal", "double", "single")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# Unambiguous numbers with a comma; "1,640" is ambiguous.
DECIMAL_COMMA = re.compile(r"[+-]?(0|[0-9]{4,}),[0-9]+|[+-]?[0-9]+,([0-9]{1,2}|[0-9]{4,})")
GROUPED_BY_COMMA = re.compile(r"[+-]?[0-9]{1,3}((,[0-9]{3}){2,}|(,[0-9]{3})+\.[0-9]+)")
GROUPED_BY_DOT = re.compile(r"[+-]?[0-9]{1,3}((\.[0-9]{3}){2,}|(\.[0-9]{3})+,[0-9]+)")
DAY = re.compile(r"\d{4}-\d\d-\d\d")
DAY_AT_MIDNIGHT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})([T ]00:00(:00(\.0+)?)? ?(Z|[+-][0-9]{2}:?[0-9]{2})?)?")
TIME_WITH_ZONE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*(Z|[+-]\d\d:?\d\d)")
SLASH_DATE = re.compile(
    r"/Date\((-?[0-9]{1,15})([+-][0-9]{4})?\)/"
)  # milliseconds in UTC; the zone is for display only
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# A bare number is a time only if exactly one of seconds and milliseconds is in these years.
FIRST_EPOCH = datetime(1990, 1, 1, tzinfo=timezone.utc).timestamp()
LAST_EPOCH = datetime(2100, 1, 1, tzinfo=timezone.utc).timestamp()
UNREADABLE = (ValueError, TypeError, AttributeError, ArithmeticError, LookupError, RecursionError)


def read_value(kind: str, raw: Any) -> Any:
    """
    Read a field's ``valueJson``.

    :param kind: The type in lower case, without its question mark.
    :param raw: Documented as JSON text; a value that is already parsed is accepted, too.
    :return: The value, or None if it is empty.
    :raises ValueError: or another of ``UNREADABLE``: the value does not match the type, or is ambiguous.
    """
    if raw is None or raw == "":
        return None
    value = _parsed(kind, raw) if isinstance(raw, str) else raw
    if value is None or (value == "" and kind in CODECS and kind != "string"):
        return None
    return CODECS[kind][1](value) if kind in CODECS else as_it_is(value)


def _parsed(kind: str, text: str) -> Any:
    from airflow_provider_workflows import json_text  # imported here, because parsing a DAG file does not need it

    try:
        return json_text.parse(text, exact=True)
    except (ValueError, RecursionError):
        # Text that starts like JSON is truncated JSON.
        if kind not in CODECS or text.lstrip()[:1] in ('"', "{", "["):
            raise
        return text  # plain text instead of a JSON string


def equal_when_normalized(kind: str, sent: Any, shown: Any) -> bool:
    """
    Return whether a shown value equals the sent value after a normalization by the server.

    Text is compared without surrounding blanks and kinds of line ends, times to the minute, numbers to the shown
    precision.

    :param kind: The type in lower case, without its question mark.
    :param sent: The JSON value that was sent.
    :param shown: The shown value, in the format in which it would be sent.
    """
    if kind == "string":
        return _normal_text(sent) == _normal_text(shown)
    if sent is None or shown is None:
        return False
    if kind == "datetime":
        sent_at, shown_at = _read_time(sent), _read_time(shown)
        return shown_at.second == 0 and abs(sent_at - shown_at) < timedelta(minutes=1)
    if kind in FRACTIONS:
        exact, rough = (Decimal(str(value)) for value in (sent, shown))
        precision = Decimal((0, (1,), min(0, int(rough.as_tuple().exponent))))
        try:
            return any(exact.quantize(precision, way) == rough for way in (ROUND_HALF_UP, ROUND_HALF_EVEN, ROUND_DOWN))
        except InvalidOperation:  # more digits than the precision of the Decimal context
            return False
    return False


def _normal_text(text: str | None) -> str:
    return (text or "").replace("\r\n", "\n").replace("\r", "\n").strip()


def as_it_is(value: Any) -> Any:
    """Return parsed JSON with floats for numbers that a float represents exactly, and Decimals for all others."""
    if isinstance(value, Mapping):
        return {name: as_it_is(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_it_is(item) for item in value]
    if not isinstance(value, Decimal):
        return value
    return float(value) if Decimal(repr(float(value))) == value else value


def alike(current: Any, desired: Any) -> bool:
    """Return whether two JSON values are equal; unlike Python, JSON distinguishes 1 and true."""
    if isinstance(current, Mapping) and isinstance(desired, Mapping):
        return current.keys() == desired.keys() and all(alike(current[name], desired[name]) for name in current)
    if isinstance(current, list) and isinstance(desired, list):
        return len(current) == len(desired) and all(map(alike, current, desired))
    return bool(current == desired) and isinstance(current, bool) == isinstance(desired, bool)


def restored(current: Any, desired: Any) -> Any:
    """Return JSON with unchanged numbers restored, because XCom stores exact numbers as text."""
    if isinstance(current, Mapping) and isinstance(desired, Mapping):
        return {name: restored(current.get(name), item) for name, item in desired.items()}
    if isinstance(current, list) and isinstance(desired, list) and len(current) == len(desired):
        return [restored(*pair) for pair in zip(current, desired, strict=True)]
    return current if isinstance(current, Decimal) and desired == str(current) else desired


# --- by type ---


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _read_boolean(value: Any) -> bool:
    if isinstance(value, str):
        return {"true": True, "false": False, "1": True, "0": False}[value.strip().lower()]
    if type(value) is int and value in (0, 1):
        return value == 1
    return _write_boolean(value)


def _write_boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _number(value: Any) -> Any:
    """Return the number in a text if it is unambiguous; any other value is returned unchanged."""
    if not isinstance(value, str):
        return value
    text = value.strip().replace("\N{NO-BREAK SPACE}", "").replace("\N{NARROW NO-BREAK SPACE}", "")
    if DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    elif GROUPED_BY_COMMA.fullmatch(text):
        text = text.replace(",", "")
    elif GROUPED_BY_DOT.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    return _decimal(text)


def _integer(kind: str) -> Callable[[Any], int]:
    limit = 2 ** (INTEGERS[kind] - 1)

    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
            raise TypeError
        # Compare first, because int(1E+999999999) would exhaust the memory.
        if not -limit <= value < limit or value != int(value):
            raise ValueError
        return int(value)

    return convert


def _decimal(value: Any) -> Decimal:
    # A float is rejected, because it may already have lost digits.
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        raise TypeError
    if isinstance(value, str) and not NUMBER.fullmatch(value.strip()):
        raise ValueError
    try:
        number = Decimal(value.strip() if isinstance(value, str) else value)
    except InvalidOperation:
        raise ValueError from None
    if not number.is_finite():
        raise ValueError
    return number


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _guid(value: Any) -> str:
    return str(uuid.UUID(str(value)))


def _read_time(value: Any) -> datetime:
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return _epoch(value)
    if found := SLASH_DATE.fullmatch(_text(value).strip()):
        return _utc(timedelta(milliseconds=int(found[1])))
    moment = parse_time(value) if DAY.match(value) else None
    if moment is None:
        raise ValueError
    return moment


def _epoch(number: int | Decimal) -> datetime:
    in_seconds = FIRST_EPOCH <= number < LAST_EPOCH
    in_milliseconds = 1000 * FIRST_EPOCH <= number < 1000 * LAST_EPOCH
    if in_seconds == in_milliseconds:
        raise ValueError
    return _utc(timedelta(microseconds=int(number * (1_000_000 if in_seconds else 1000))))


def _utc(since_epoch: timedelta) -> datetime:
    return pendulum.instance(EPOCH + since_epoch, tz="UTC")


def _write_time(value: Any) -> str:
    if isinstance(value, str) and TIME_WITH_ZONE.fullmatch(value.strip()):
        value = _read_time(value.strip())
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise TypeError
    return time_text(value)


def _read_date(value: Any) -> date:
    if isinstance(value, str) and (found := DAY_AT_MIDNIGHT.fullmatch(value.strip())):
        return date.fromisoformat(found[1])
    if isinstance(value, str) and DAY.match(value.strip()):
        raise ValueError  # the day of another time depends on the zone, which is unknown
    moment = _read_time(value)
    if moment.time() != time.min:
        raise ValueError  # likewise
    return moment.date()


def _write_date(value: Any) -> str:
    if isinstance(value, str):
        value = date.fromisoformat(value.strip())
    if isinstance(value, datetime) or not isinstance(value, date):
        raise TypeError
    return value.isoformat()


def _after(number: Callable[[Any], Any], convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: convert(number(value))


# Base type -> (description of its values, reader, writer). The vendor's samples have the first four types; the others
# are the other .NET types.
CODECS: dict[str, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "string": ("text", _text, _text),
    "boolean": ("True or False", _read_boolean, _write_boolean),
    "datetime": ("a datetime with a time zone, or its ISO-8601 text with a zone", _read_time, _write_time),
    "decimal": (
        "a finite Decimal, int or number as text (a float is not exact)",
        _after(_number, _decimal),
        _decimal,
    ),
    "double": ("a finite number", _after(_number, _float), _float),
    "single": ("a finite number", _after(_number, _float), _float),
    "guid": ("a UUID", _guid, _guid),
    "date": ("a date, or its text as YYYY-MM-DD", _read_date, _write_date),
    **{
        kind: (f"an int of {bits} bits", _after(_number, _integer(kind)), _integer(kind))
        for kind, bits in INTEGERS.items()
    },
}
