"""The typed fields of Workflowsoft's integration instances: read them, compare them, and plan what to write."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from dataclasses import field as attribute
from datetime import date, datetime, timezone
from decimal import Decimal
from reprlib import repr as short
from typing import Any, NamedTuple

from airflow_provider_workflows.exceptions import ConfigurationError, UnexpectedResponse
from airflow_provider_workflows.rules.datetimes import time_text
from airflow_provider_workflows.rules.workflowsoft import member, rows_with_id
from airflow_provider_workflows.rules.workflowsoft_field_types import (
    CODECS,
    UNREADABLE,
    alike,
    as_it_is,
    equal_when_normalized,
    read_value,
    restored,
)

# Members that name an option of a field, for the API and on the page; the API's names come first.
OPTION_NAMES = ("Id", "Value", "Title", "Name", "Label", "Text")


@dataclass(frozen=True)
class Field:
    """
    Hold one field of an integration instance.

    :param label: Label on the page, without blanks at its ends unless only they distinguish it from another label.
    :param key: Key of the field.
    :param type: Workflowsoft's type, such as ``Decimal?``; with the question mark, the field may be empty.
    :param value: None if empty; str, bool, int, float, ``Decimal``, a UTC ``pendulum.DateTime``, a ``datetime.date``,
        or parsed JSON for a type that this package does not know.
    :param options: The field's options as returned by the server; their format is not documented.
    :param is_readonly: Whether Workflowsoft rejects writing the field.
    :param is_required: Whether the field must have a value to complete the instance.
    :param unreadable: Why the value does not match the type; ``value`` is None then.
    :param raw: The value as returned by the server.
    """

    label: str
    key: str
    type: str
    value: Any
    options: Any
    is_readonly: bool
    is_required: bool
    unreadable: str = ""
    raw: Any = attribute(default=None, repr=False, compare=False)

    @property
    def kind(self) -> str:
        """The type in lower case, without its question mark."""
        return _type_name(self.type).rstrip("?")

    @property
    def is_known(self) -> bool:
        return self.kind in CODECS

    @property
    def is_empty(self) -> bool:
        """Whether there is no value; an unreadable value counts as a value."""
        return not self.unreadable and self.value in (None, "")

    def __str__(self) -> str:
        return f"{self.label!r} ({self.type})"


class FieldValues(dict[str, Any]):
    """
    Map labels to values, and raise an error only when an unreadable value is used.

    A lookup also finds a label that differs from its argument only by blanks at the ends.

    :param values: The readable values by label.
    :param unreadable: Why other values are unreadable, by label.
    """

    def __init__(self, values: Mapping[str, Any], unreadable: Mapping[str, str]):
        super().__init__(values)
        self.unreadable = dict(unreadable)

    def __missing__(self, label: str) -> Any:
        if label in self.unreadable:
            raise UnexpectedResponse(self.unreadable[label])
        if isinstance(label, str) and (stripped := label.strip()) != label:
            return self[stripped]
        raise KeyError(label)

    def __contains__(self, label: object) -> bool:
        return super().__contains__(label) or (isinstance(label, str) and super().__contains__(label.strip()))

    def get(self, label: str, default: Any = None) -> Any:
        try:
            return self[label]
        except KeyError:
            return default


class Update(NamedTuple):
    """
    Hold the plan of a write.

    :param values: JSON values to send, by field key; only those that differ from the current values.
    :param written: Labels of these fields.
    :param unchanged: Labels of the fields that already have the desired value.
    """

    values: dict[str, Any]
    written: list[str]
    unchanged: list[str]


class WriteComparison(NamedTuple):
    """
    Hold the differences that fields show after a write.

    :param wrong: Written fields with another value, described with both values.
    :param normalized: Written fields with a value that the server has normalized, described with both values.
    :param emptied: Fields that were not written but are empty or missing now, described with both values.
    :param changed: Fields that were not written but have another value, described with both values: a server may
        compute it, and another user or task may have written it.
    :param is_untouched: Whether all written fields have their values from before the write.
    """

    wrong: list[str]
    normalized: list[str]
    emptied: list[str]
    changed: list[str]
    is_untouched: bool


def read_fields(body: Any) -> list[Field]:
    """
    Read the fields of an integration instance with their typed values.

    A value that does not match its type makes only its own field unreadable; the message does not repeat the value.
    Rows without a key are left out, because nothing can be written to them.

    :raises UnexpectedResponse: the response is not a list of fields.
    """
    fields = [_read_field(row) for row in rows_with_id(body, "key", "a list of fields with a key")]
    stripped = Counter(field.label.strip() for field in fields)
    return [
        replace(field, label=label) if (label := field.label.strip()) and stripped[label] == 1 else field
        for field in fields
    ]


def _read_field(row: Mapping[str, Any]) -> Field:
    label, key, kind = (str(member(row, name) or "") for name in ("label", "key", "type"))
    raw, value, unreadable = member(row, "valueJson"), None, ""
    try:
        value = read_value(_type_name(kind).rstrip("?"), raw)
    except UNREADABLE:
        unreadable = f"The value of field {label or key!r} ({kind}), key {key}, does not match its type"
    return Field(
        label=label or key,
        key=key,
        type=kind,
        value=value,
        options=member(row, "options"),
        is_readonly=_is_set(member(row, "isReadonly")),
        is_required=_is_set(member(row, "isRequired")),
        unreadable=unreadable,
        raw=raw,
    )


def _is_set(flag: Any) -> bool:
    return str(flag).lower() in ("true", "1")


def by_label(fields: Iterable[Field]) -> FieldValues:
    """
    Return ``{label: value}``; a label that several fields share is replaced with their keys.

    Unreadable fields are left out.
    """
    fields = list(fields)
    labels = [field.label for field in fields]
    named = {field.label if labels.count(field.label) == 1 else field.key: field for field in fields}
    return FieldValues(
        {name: field.value for name, field in named.items() if not field.unreadable},
        {name: field.unreadable for name, field in named.items() if field.unreadable},
    )


def check_expected(fields: Iterable[Field], expected: Mapping[str, str], instance_id: str) -> None:
    """
    Require fields to have the types that a DAG expects.

    :param expected: Workflowsoft's types by label or key, such as ``Decimal?``, in any case.
    :param instance_id: Id of the instance, for the error text.
    :raises ConfigurationError: a field is missing, ambiguous, unreadable, or of another type; the message lists all.
    """
    if not isinstance(expected, Mapping):
        raise ConfigurationError('expected_fields must be a mapping of labels to types, such as {"Venue": "String"}.')
    fields, drift = list(fields), []
    for name, kind in expected.items():
        matching = _matching(fields, name, "expected_fields")
        if len(matching) != 1:
            drift.append(f"{name!r} is {'missing' if not matching else f'the label of {len(matching)} fields'}")
        elif _type_name(matching[0].type) != _type_name(str(kind)):
            drift.append(f"{name!r} is {matching[0].type}, expected {kind}")
        elif matching[0].unreadable:
            drift.append(matching[0].unreadable)
    if drift:
        listed = ", ".join(map(str, fields)) or "none"
        raise ConfigurationError(
            f"expected_fields: the fields of instance {instance_id} differ: {'; '.join(drift)}. It has: {listed}. "
            "Either the diagram has changed, or this is an instance of another step."
        )


def xcom_value(value: Any) -> Any:
    """Return a field's value as JSON primitives."""
    if isinstance(value, Mapping):
        return {name: xcom_value(item) for name, item in value.items()}
    if isinstance(value, list):
        return [xcom_value(item) for item in value]
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value


def find_field(fields: Iterable[Field], name: str) -> Field:
    """
    Return the field with a key or label.

    :raises ConfigurationError: no field has it, or several fields have the label; the message lists the candidates.
    """
    fields = list(fields)
    matching = _matching(fields, name, "fields")
    if len(matching) == 1:
        return matching[0]
    if not matching:
        listed = ", ".join(repr(field.label) for field in fields) or "none"
        raise ConfigurationError(f"fields: there is no field {name!r}. Candidates: {listed}.")
    keys = ", ".join(field.key for field in matching)
    raise ConfigurationError(f"fields: {len(matching)} fields have the label {name!r}. Use one of their keys: {keys}.")


def _matching(fields: list[Field], name: str, parameter: str) -> list[Field]:
    """Return the fields with a key, else with the exact label, else with the label ignoring blanks around it."""
    if not isinstance(name, str):
        raise ConfigurationError(
            f"{parameter}: a field is named by its label or key as text; got {type(name).__name__} {short(name)}."
        )
    return (
        [f for f in fields if f.key == name]
        or [f for f in fields if f.label == name]
        or [f for f in fields if f.label.strip() == name.strip()]
    )


def _type_name(text: str) -> str:
    return text.strip().lower().removeprefix("system.")


def missing_required(fields: Iterable[Field]) -> list[str]:
    """Return the labels of required fields that are empty; false and 0 are not empty."""
    return left_empty(fields, {})


def left_empty(fields: Iterable[Field], values: Mapping[str, Any]) -> list[str]:
    """Return the labels of required fields that would be empty after a write of values, by key."""
    return [
        field.label
        for field in fields
        if field.is_required and (values[field.key] in (None, "") if field.key in values else field.is_empty)
    ]


def filled(fields: Iterable[Field], values: Mapping[str, Any]) -> list[str]:
    """Return the keys of fields that have a value and are not part of a write of values, by key."""
    return [field.key for field in fields if field.key not in values and not field.is_empty]


def has_closed(fields: Iterable[Field]) -> bool:
    """Return whether all fields are read-only; meaningful only if a field was writable before."""
    fields = list(fields)
    return bool(fields) and all(field.is_readonly for field in fields)


# --- compare and plan ---


def plan_update(fields: Iterable[Field], desired: Mapping[str, Any], *, allow_unknown_types: bool = False) -> Update:
    """
    Compare desired values with the current ones, and reject values that Workflowsoft would reject.

    :param fields: The current fields.
    :param desired: Values by label or key; a read-only field may be given with its current value.
    :param allow_unknown_types: Send values of types that this package does not know unchanged.
    :raises ConfigurationError: an unknown field, an invalid value, a read-only field, or a value that is not an option.
    """
    fields = list(fields)
    update = Update({}, [], [])
    readonly, seen = [], set()
    for name, value in desired.items():
        field = find_field(fields, name)
        if field.key in seen:
            raise ConfigurationError(f"fields: field {field} is given twice, by label and by key. Give it once.")
        seen.add(field.key)
        encoded = _encoded_choice(field, value)
        if _same(field, encoded):
            update.unchanged.append(field.label)
            continue
        if field.is_readonly:
            readonly.append(str(field))
            continue
        if not field.is_known and not allow_unknown_types:
            raise ConfigurationError(
                f"fields: field {field} has an unknown type. Set allow_unknown_types=True to send the value unchanged."
            )
        _check_option(field, encoded)
        update.values[field.key] = encoded
        update.written.append(field.label)
    if readonly:
        raise ConfigurationError(
            f"fields: read-only in Workflowsoft: {', '.join(readonly)}. Remove them from fields. Nothing was sent."
        )
    return update


def _same(field: Field, encoded: Any) -> bool:
    if field.unreadable:
        return False
    current = None if field.value is None else encode(field, field.value)
    if field.kind == "single" and current is not None and encoded is not None:
        return f"{current:.7g}" == f"{encoded:.7g}"  # the server does not store more digits
    if field.kind == "string" and (current or None) == (encoded or None):  # "" and None both mean empty
        return True
    return alike(current, encoded) or _is_same_option(field, current, encoded)


def _is_same_option(field: Field, current: Any, encoded: Any) -> bool:
    """
    Return whether both values mean the same option, which the server may show by another of its names.

    Lists mean the same options in any order.
    """
    if current is None or encoded is None:
        return False
    if isinstance(current, list) and isinstance(encoded, list) and _options(field) is not None:
        return _sorted_choices(field, current) == _sorted_choices(field, encoded)
    places = _choices(field, encoded)
    return len(places) == 1 and places == _choices(field, current)


def _check_option(field: Field, encoded: Any) -> None:
    allowed = option_values(field)
    if encoded is None or allowed is None or field.kind == "boolean":  # the page may show Yes and No for True and False
        return
    chosen = encoded if isinstance(encoded, list) else [encoded]  # of a type with several choices
    if not all(_choices(field, choice) for choice in chosen):
        listed = ", ".join(repr(value) for value in allowed)
        raise ConfigurationError(f"fields: field {field} must be one of {listed}; got {short(encoded)}.")


def compare_write(
    before: Iterable[Field], after: Iterable[Field], values: Mapping[str, Any], *, normalized: bool = False
) -> WriteComparison:
    """
    Compare all fields with their expected values after a write.

    :param before: The fields before the write.
    :param after: The current fields.
    :param values: The written JSON values by key.
    :param normalized: Accept values that the server has normalized.
    """
    was, current = ({field.key: field for field in fields} for fields in (before, after))
    wrong: list[str] = []
    accepted: list[str] = []
    emptied: list[str] = []
    changed: list[str] = []
    for key, value in values.items():
        field = current.get(key)
        if field is None or not _same(field, value):
            is_normal = field is not None and normalized and _is_normalized(field, value)
            (accepted if is_normal else wrong).append(_instead(field, key, f"sent {short(value)}"))
    for key, field in was.items():
        now = current.get(key)
        if key in values or (now is not None and _unchanged(field, now)):
            continue
        shown = _instead(now, str(field), f"before {_shown(field)}")
        (emptied if now is None or now.is_empty else changed).append(shown)
    is_untouched = all(key in current and key in was and _unchanged(was[key], current[key]) for key in values)
    return WriteComparison(wrong, accepted, emptied, changed, is_untouched)


def _instead(field: Field | None, name: str, before: str) -> str:
    if field is None:
        return f"{name}: {before}, now missing"
    return f"{field}: {before}, now {_shown(field)}"


def _shown(field: Field) -> str:
    return "an unreadable value" if field.unreadable else short(xcom_value(field.value))


def _unchanged(was: Field, now: Field) -> bool:
    if was.unreadable or now.unreadable:
        return bool(was.raw == now.raw)
    same = alike(was.value, now.value) or (isinstance(was.value, list) and _is_same_option(was, was.value, now.value))
    return same or (was.is_empty and now.is_empty)


def _is_normalized(field: Field, sent: Any) -> bool:
    if field.unreadable:
        return False
    shown = None if field.value is None else encode(field, field.value)
    try:
        return equal_when_normalized(field.kind, sent, shown)
    except UNREADABLE:  # the type of the field has changed
        return False


# --- values to send ---


def stored_values(values: Mapping[str, Any]) -> str:
    """Return values to send as exact text, for a store of JSON values."""
    import simplejson

    return simplejson.dumps(values, use_decimal=True, allow_nan=False)


def read_stored_values(text: str) -> dict[str, Any]:
    """Read the text of :func:`stored_values`."""
    import simplejson

    found: dict[str, Any] = simplejson.loads(text, use_decimal=True)
    return found


def check_rendered(fields: Mapping[str, Any], templated: Iterable[str]) -> None:
    """
    Reject values of templates that were rendered without a value.

    :param templated: Names of the fields that were given as a template; in all others the text ``None`` is allowed.
    :raises ConfigurationError: such a value is the text ``None``.
    """
    for name in templated:
        if fields.get(name) == "None":
            raise ConfigurationError(
                f"fields: {name!r} was rendered as the text 'None'. Pass the output of a task instead of a template, "
                "or set render_template_as_native_obj=True on the DAG. The value None empties a field."
            )


def raw_fields(fields: Any, parameter: str = "fields") -> dict[str, Any]:
    """
    Return the fields of a process to start, or values by field key, as JSON values with unchanged names.

    :param parameter: Name of the parameter with them, for the error text.
    :raises ConfigurationError: the fields are not a mapping, a name is not text, or JSON cannot represent a value
        exactly.
    """
    if not isinstance(fields, Mapping) or not all(isinstance(name, str) and name.strip() for name in fields):
        raise ConfigurationError(f"{parameter} must be a mapping of Workflowsoft's field names to values.")
    return {name: raw_value(name, value) for name, value in fields.items()}


def raw_value(name: str, value: Any) -> Any:
    """
    Return a value as JSON.

    :param name: Name of the field, for the error text.
    :raises ConfigurationError: JSON cannot represent the value exactly.
    """
    if isinstance(value, Mapping):
        return {str(key): raw_value(name, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [raw_value(name, item) for item in value]
    if isinstance(value, datetime) and value.utcoffset() is not None:
        with suppress(OverflowError):  # before the year 1 in UTC
            return time_text(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    finite = value.is_finite() if isinstance(value, Decimal) else not isinstance(value, float) or math.isfinite(value)
    if value is None or (isinstance(value, (str, bool, int, float, Decimal)) and finite):
        return value
    raise ConfigurationError(
        f"fields: {name!r} must be text, a finite number, True, False, None, a date, a datetime with a time zone, or a "
        f"list or mapping of them; got {type(value).__name__} {short(value)}."
    )


def option_values(field: Field) -> list[Any] | None:
    """Return all names of a field's options, or None if it has no options or their format is unknown."""
    options = _options(field)
    return None if options is None else [name for names in options for name in names]


def _options(field: Field) -> list[list[Any]] | None:
    """Return the names of each option, the API's names first, or None."""
    if not isinstance(field.options, list) or not field.options:
        return None
    options = []
    for option in field.options:
        values = [member(option, name) for name in OPTION_NAMES] if isinstance(option, Mapping) else [option]
        names = [value for value in values if isinstance(value, (str, int, Decimal, float))]
        if not names:
            return None
        options.append(names)
    return options


def _choices(field: Field, value: Any) -> list[int]:
    """Return the indexes of the options that a value can mean: an id, a label, or an object with them."""
    if isinstance(value, Mapping):
        return (
            [place for place, option in enumerate(field.options) if _is_option(option, value)]
            if _options(field)
            else []
        )
    return [
        place for place, names in enumerate(_options(field) or ()) if any(_means(field, name, value) for name in names)
    ]


def _sorted_choices(field: Field, values: list[Any]) -> list[str]:
    """Return what identifies each choice of a list, in one order."""
    return sorted(str(places) if len(places := _choices(field, value)) == 1 else repr(value) for value in values)


def _is_option(option: Any, value: Mapping[str, Any]) -> bool:
    """Return whether an object has an option's id or label, and no other of its names differs."""
    pairs = (
        [(member(option, name), member(value, name)) for name in OPTION_NAMES] if isinstance(option, Mapping) else []
    )
    shared = [pair for pair in pairs if pair[0] is not None and pair[1] is not None]
    return bool(shared) and all(str(name) == str(named) for name, named in shared)


def _means(field: Field, name: Any, value: Any) -> bool:
    numbers = (int, float, Decimal)
    if isinstance(name, numbers) and isinstance(value, numbers) and not isinstance(name, bool):
        return not isinstance(value, bool) and name == value  # 1.0 means option 1
    return str(name) == str(value) or str(_encoded_option(field, name)) == str(value)


def _encoded_choice(field: Field, value: Any) -> Any:
    """Return a value as it is sent; for an option that its type does not accept, one of the option's names."""
    try:
        return encode(field, value)
    except ConfigurationError:
        options, places = _options(field), _choices(field, value)
        if isinstance(value, (str, Mapping)) and options is not None and len(places) == 1:
            for name in options[places[0]]:
                with suppress(ConfigurationError):
                    return encode(field, name)
        raise


def wire_name(key: str) -> str:
    """Return a field's name in the body of a write."""
    return "field_" + key.replace("-", "_")


def encode(field: Field, value: Any) -> Any:
    """
    Return a value as it is sent for a field.

    :raises ConfigurationError: the value is invalid; the message names the field, the expected type, and the value.
    """
    if value is None:
        if field.is_known and field.kind != "string" and not field.type.strip().endswith("?"):
            raise ConfigurationError(
                f"fields: field {field} cannot be emptied, because its type has no question mark. Give it a value."
            )
        return None
    if not field.is_known:
        return as_it_is(restored(field.value, raw_value(field.label, value)))
    expected, _, write = CODECS[field.kind]
    try:
        return write(value)
    except (ValueError, TypeError, ArithmeticError):
        got = f"{type(value).__name__} {short(value)}"
        raise ConfigurationError(f"fields: field {field} must be {expected}; got {got}.") from None


def _encoded_option(field: Field, value: Any) -> Any:
    try:
        return encode(field, value)
    except ConfigurationError:
        return value
