"""
How one value of a Workflowsoft field is read, written and compared.

Reading is tolerant: nobody documents in which forms a server writes its values, so every form counts that leaves no
other reading. Writing is strict, and sends the form that the vendor shows.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

import pendulum

from airflow_provider_workflows.rules.datetimes import parse_time

INTEGERS = {"int16": 16, "int32": 32, "int64": 64}
FRACTIONS = ("decimal", "double", "single")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# Numbers with a comma that have one reading only: "1,640" is not among them.
DECIMAL_COMMA = re.compile(r"[+-]?(0|[0-9]{4,}),[0-9]+|[+-]?[0-9]+,([0-9]{1,2}|[0-9]{4,})")
GROUPED_BY_COMMA = re.compile(r"[+-]?[0-9]{1,3}((,[0-9]{3}){2,}|(,[0-9]{3})+\.[0-9]+)")
GROUPED_BY_DOT = re.compile(r"[+-]?[0-9]{1,3}((\.[0-9]{3}){2,}|(\.[0-9]{3})+,[0-9]+)")
DAY = re.compile(r"\d{4}-\d\d-\d\d")
TIME_WITH_ZONE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*(Z|[+-]\d\d:?\d\d)")
SLASH_DATE = re.compile(r"/Date\((-?[0-9]{1,15})([+-][0-9]{4})?\)/")  # milliseconds; the zone is only for showing it
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# A bare number is a time only where one of seconds and milliseconds is in these years and the other is not.
FIRST_EPOCH = datetime(1990, 1, 1, tzinfo=timezone.utc).timestamp()
LAST_EPOCH = datetime(2100, 1, 1, tzinfo=timezone.utc).timestamp()
UNREADABLE = (ValueError, TypeError, AttributeError, ArithmeticError, LookupError, RecursionError)


def read_value(kind: str, given: Any) -> Any:
    """
    Read a field's ``valueJson``.

    :param kind: The type in lower case, without question mark.
    :param given: Documented as JSON text; a value that is JSON already is read, too.
    :return: None when it is empty.
    :raises ValueError: and others of ``UNREADABLE``: it does not fit the type, or has several readings.
    """
    if given is None or given == "":
        return None
    value = _parsed(kind, given) if isinstance(given, str) else given
    if value is None or (value == "" and kind in CODECS and kind != "string"):
        return None
    return CODECS[kind][1](value) if kind in CODECS else as_it_is(value)


def _parsed(kind: str, text: str) -> Any:
    import simplejson  # here, for a DAG file that is only parsed reads no value

    try:
        return simplejson.loads(text, use_decimal=True)
    except (ValueError, RecursionError):
        # What begins as JSON does is JSON that was cut off.
        if kind not in CODECS or text.lstrip()[:1] in ('"', "{", "["):
            raise
        return text  # not the JSON of a text but the text itself


def equal_when_normalized(kind: str, sent: Any, shown: Any) -> bool:
    """
    Tell whether a server shows what was sent after it has normalized it.

    Texts: blanks at both ends and line ends do not count. Times: to the minute. Numbers: to the precision shown.

    :param kind: The type in lower case, without question mark.
    :param sent: The JSON value that was sent.
    :param shown: The value that is shown, in the form in which it would be sent.
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
        except InvalidOperation:  # more digits than a Decimal is computed with
            return False
    return False


def _normal_text(text: str | None) -> str:
    return (text or "").replace("\r\n", "\n").replace("\r", "\n").strip()


def as_it_is(value: Any) -> Any:
    """Return parsed JSON with floats for the numbers that a float holds exactly, and Decimals for the others."""
    if isinstance(value, Mapping):
        return {name: as_it_is(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_it_is(item) for item in value]
    if not isinstance(value, Decimal):
        return value
    return float(value) if Decimal(repr(float(value))) == value else value


def time_text(moment: datetime) -> str:
    """Write a time in whole seconds and with a Z, as in the vendor's only sample."""
    # Not by strftime, which writes the year 999 with three digits.
    return moment.astimezone(timezone.utc).replace(microsecond=0).isoformat().replace("+00:00", "Z")


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
    """Return the number that a text can only mean; what is no text is returned as it is."""
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
        # First, for the digits of 1E+999999999 fill the memory.
        if not -limit <= value < limit or value != int(value):
            raise ValueError
        return int(value)

    return convert


def _decimal(value: Any) -> Decimal:
    # A float has lost digits that a Decimal would have kept, so it is rejected and not quietly rounded.
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
    if isinstance(value, str) and DAY.match(value):
        return date.fromisoformat(value[:10])
    moment = _read_time(value)
    if (moment.hour, moment.minute, moment.second) != (0, 0, 0):
        raise ValueError  # the day depends on the zone, which nobody says
    return moment.date()


def _write_date(value: Any) -> str:
    if isinstance(value, str):
        value = date.fromisoformat(value.strip())
    if isinstance(value, datetime) or not isinstance(value, date):
        raise TypeError
    return value.isoformat()


def _after(number: Callable[[Any], Any], convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: convert(number(value))


# Base type -> (what a value of it is, how it is read, how it is written). The vendor shows the first four;
# the others follow from the names being those of .NET.
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
