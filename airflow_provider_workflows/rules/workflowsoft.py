"""What Workflowsoft's answers mean, and how its typed fields are read and written."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from decimal import Decimal, InvalidOperation
from reprlib import repr as short
from typing import Any

from airflow_provider_workflows.exceptions import ConfigurationError, ContractError
from airflow_provider_workflows.rules.forms import is_id
from airflow_provider_workflows.rules.times import parse_time

USER_NAMES = (("full_name", "FullName"), ("email", "Email"))
INTEGERS = {"int16": 16, "int32": 32, "int64": 64}
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
DAY = re.compile(r"\d{4}-\d\d-\d\d")
TIME_WITH_ZONE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*(Z|[+-]\d\d:?\d\d)")
# Nobody documents the server's words; only ones that leave no other reading count.
_SUBJECT = r"(the |this )?(integration )?(task|instance|step)( #?\d[\w-]*)?"
_OVER = r"(been )?(completed|closed|finished|done)"
ALREADY_COMPLETED = re.compile(
    rf"{_SUBJECT} (is|was|has) (already )?{_OVER}( already)?|({_SUBJECT} )?(is |was |has )?already {_OVER}",
    re.IGNORECASE,
)


# --- answers ---------------------------------------------------------------------------------------------


def member(holder: Mapping[str, Any], name: str) -> Any:
    """Return an object's member in whatever case the server writes its name, or None."""
    return next((value for key, value in holder.items() if str(key).lower() == name.lower()), None)


def titled_rows(body: Any, kind: str) -> list[dict[str, str]]:
    """
    Read a list of process diagrams or integration steps as ``[{id, title}]``.

    :param kind: What the rows are, for the error text.
    :raises ContractError: not a list of objects with an id.
    """
    rows = body if isinstance(body, list) else None
    if rows is None or not all(_has_id(row, "Id") for row in rows):
        raise ContractError(f"The list of {kind}s is not a list of objects with an Id")
    return [{"id": str(member(row, "Id")), "title": str(member(row, "Title") or "")} for row in rows]


class UnreadableInstances(ContractError):
    """
    A poll's answer has another form, at least in a part.

    :param instances: What could be read of it, as :func:`integration_instances` returns it.
    """

    def __init__(self, what: str, instances: list[dict[str, str | None]]):
        super().__init__(what)
        self.instances = instances


def integration_instances(body: Any) -> list[dict[str, str | None]]:
    """
    Read the answer of a poll for new integration instances.

    The vendor shows one object and does not say what "none" or "several" look like: an empty answer of any
    kind is none, as is an object whose ids are empty and which says nothing else; an object is one, a list is
    several. Anything else is an error, never "none".

    :param body: The parsed answer; None for an empty one.
    :return: ``[{integration_instance_id, process_instance_id}]``
    :raises UnreadableInstances: another form; its values are not repeated.
    """
    if body is None or body == [] or _says_nothing(body):
        return []
    rows = body if isinstance(body, list) else [body]
    odd = [row for row in rows if not _is_instance(row)]
    instances: list[dict[str, str | None]] = [
        {
            "integration_instance_id": str(member(row, "IntegrationInstanceId")),
            "process_instance_id": str(member(row, "ProcessInstanceId")) if _has_id(row, "ProcessInstanceId") else None,
        }
        for row in rows
        if _is_instance(row)
    ]
    if odd:
        which = f"In {len(odd)} of {len(rows)} places the" if instances else "The"
        what = f"{which} poll's answer holds no integration instance but {_form(odd[0])}"
        raise UnreadableInstances(what, instances)
    return instances


def user_rows(body: Any) -> list[dict[str, str]]:
    """
    Read a list of users as ``[{id, full_name, email}]``.

    :raises ContractError: not a list of objects with an id.
    """
    ids = [row["id"] for row in titled_rows(body, "user")]
    names = [{name: str(member(row, key) or "") for name, key in USER_NAMES} for row in body]
    return [{"id": id_, **named} for id_, named in zip(ids, names, strict=True)]


def choose_user(parameter: str, email: str, rows: Iterable[Mapping[str, str]]) -> str:
    """
    Return the id of the one user who has an e-mail address, in whatever case.

    :param parameter: What the DAG author calls it, for the error text.
    :raises ConfigurationError: nobody has it, or several have; who was found is listed.
    """
    rows = list(rows)
    fitting = [row for row in rows if row["email"].casefold() == email.casefold()]
    if len(fitting) == 1:
        return fitting[0]["id"]
    listed = ", ".join(f"{row['full_name']} <{row['email']}> (id {row['id']})" for row in fitting or rows) or "none"
    if not fitting:
        raise ConfigurationError(f"{parameter}: no user has the e-mail address {email!r}; the search found: {listed}.")
    raise ConfigurationError(f"{parameter}: {len(fitting)} users have the address {email!r}: {listed}. Give the id.")


def choose(
    parameter: str, kind: str, wanted: str, rows: Iterable[Mapping[str, str]], *, may_lack: bool = False
) -> Mapping[str, str]:
    """
    Return the one row whose title or id is exactly the wanted text.

    :param parameter: What the DAG author calls it, for the error text.
    :param kind: What Workflowsoft calls it, for the error text.
    :param may_lack: There may be more rows than were listed; then digits that none has are taken for an id.
    :raises ConfigurationError: none is, or several are; the candidates are listed with their ids.
    """
    rows = list(rows)
    fitting = [row for row in rows if wanted in (row["title"], row["id"])]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(f"{row['title']!r} (id {row['id']})" for row in fitting or rows) or "none"
    if not fitting and may_lack and wanted.isdecimal():
        return {"id": wanted, "title": ""}
    if not fitting:
        if may_lack:
            listed += ", and perhaps more that were not listed; give the id"
        raise ConfigurationError(f"{parameter}: there is no {kind} {wanted!r}; there are: {listed}.")
    raise ConfigurationError(f"{parameter}: {wanted!r} is the name of {len(fitting)} {kind}s: {listed}. Give the id.")


def instance_id_of(given: Any) -> str:
    """
    Return an integration instance's id, given as it is or in a row of ``WorkflowsoftIntegrationSensor``.

    :raises ConfigurationError: neither.
    """
    if isinstance(given, Mapping):
        given = given.get("integration_instance_id")
    text = "" if given is None else str(given).strip()
    if text in ("", "None") or text[0] in "{[" or isinstance(given, (list, tuple, bool)):
        raise ConfigurationError(
            "integration_instance_id must be the id of one integration instance, or one row of "
            f"WorkflowsoftIntegrationSensor's result; got {type(given).__name__} {short(given)}."
        )
    return text


def says_already_completed(words: str) -> bool:
    """Tell whether a sentence of an error can only mean that the integration instance was completed before."""
    return any(ALREADY_COMPLETED.fullmatch(sentence.strip()) for sentence in re.split(r"[.;!\n]", words))


# --- fields ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """
    One field of an integration instance.

    :param type: The type in Workflowsoft's words, such as ``Decimal?``; the question mark: may be empty.
    :param value: None when empty; str, bool, int, float, ``Decimal``, a UTC ``pendulum.DateTime``, a
        ``datetime.date``, or parsed JSON as it is for a type this package does not know.
    :param options: What may be chosen, as the server gives it; its form is not documented.
    """

    label: str
    key: str
    type: str
    value: Any
    options: Any
    is_readonly: bool
    is_required: bool

    @property
    def kind(self) -> str:
        """The type in lower case and without its question mark."""
        return self.type.strip().rstrip("?").lower()

    @property
    def is_known(self) -> bool:
        return self.kind in CODECS

    def __str__(self) -> str:
        return f"{self.label!r} ({self.type})"


@dataclass(frozen=True)
class Update:
    """
    What an update comes to.

    :param values: JSON values to send, by field key; only those that differ from what is there.
    :param written: Labels of these fields.
    :param unchanged: Labels of the fields that already hold what they should.
    """

    values: dict[str, Any]
    written: list[str]
    unchanged: list[str]


def read_fields(body: Any) -> list[Field]:
    """
    Read the fields of an integration instance with their typed values.

    :raises ContractError: not a list of fields, or a value that does not fit its type; it is not repeated.
    """
    if not isinstance(body, list) or not all(_has_id(row, "key") for row in body):
        raise ContractError("The answer is not a list of fields with a key")
    return [_read_field(row) for row in body]


def by_label(fields: Iterable[Field]) -> dict[str, Any]:
    """Return ``{label: value}``; a label that several fields share is replaced by the key of each."""
    fields = list(fields)
    labels = [field.label for field in fields]
    return {field.label if labels.count(field.label) == 1 else field.key: field.value for field in fields}


def check_expected(fields: Iterable[Field], expected: Mapping[str, str], instance_id: str) -> None:
    """
    Require fields to have the types that a DAG was written for.

    :param expected: Types in Workflowsoft's words by label or key, such as ``Decimal?``; case does not count.
    :param instance_id: Whose fields they are, for the error text.
    :raises ConfigurationError: a field is missing, ambiguous, or of another type; all are listed.
    """
    if not isinstance(expected, Mapping):
        raise ConfigurationError('expected_fields must be a mapping of labels to types, such as {"Venue": "String"}.')
    fields, drift = list(fields), []
    for name, kind in expected.items():
        fitting = [f for f in fields if f.key == name] or [f for f in fields if f.label == name]
        if len(fitting) != 1:
            drift.append(f"{name!r} is {'missing' if not fitting else f'there {len(fitting)} times'}")
        elif fitting[0].type.strip().lower() != str(kind).strip().lower():
            drift.append(f"{name!r} is {fitting[0].type}, expected {kind}")
    if drift:
        listed = ", ".join(map(str, fields)) or "none"
        raise ConfigurationError(
            f"expected_fields: the fields of instance {instance_id} are others: {'; '.join(drift)}. It has: {listed}. "
            "Either the diagram was changed, or this is an instance of another step."
        )


def xcom_value(value: Any) -> Any:
    """Return a field's value in JSON's own types."""
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

    :raises ConfigurationError: there is none, or several share the label; the candidates are listed.
    """
    fields = list(fields)
    fitting = [f for f in fields if f.key == name] or [f for f in fields if f.label == name]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        listed = ", ".join(repr(field.label) for field in fields) or "none"
        raise ConfigurationError(f"fields: there is no field {name!r}; there are: {listed}.")
    keys = ", ".join(field.key for field in fitting)
    raise ConfigurationError(f"fields: {len(fitting)} fields are called {name!r}; use the key of one of them: {keys}.")


def plan_update(fields: Iterable[Field], wanted: Mapping[str, Any], *, allow_unknown_types: bool = False) -> Update:
    """
    Compare what is wanted with what is there, and refuse what Workflowsoft would refuse.

    :param fields: The fields as they are.
    :param wanted: Values by label or key; a field that already holds its value may be read-only.
    :param allow_unknown_types: Send values of types that this package does not know unchanged.
    :raises ConfigurationError: no such field, a wrong value, a read-only field, not one of the options.
    """
    fields = list(fields)
    update = Update({}, [], [])
    readonly, seen = [], set()
    for name, value in wanted.items():
        field = find_field(fields, name)
        if field.key in seen:
            raise ConfigurationError(f"fields: field {field} is given twice, by label and by key.")
        seen.add(field.key)
        encoded = encode(field, value)
        if _same(field, encoded):
            update.unchanged.append(field.label)
            continue
        if field.is_readonly:
            readonly.append(str(field))
            continue
        if not field.is_known and not allow_unknown_types:
            raise ConfigurationError(
                f"fields: the type of field {field} is unknown; set allow_unknown_types=True to send the "
                "value as it is."
            )
        _check_option(field, encoded)
        update.values[field.key] = encoded
        update.written.append(field.label)
    if readonly:
        raise ConfigurationError(f"fields: read-only in Workflowsoft: {', '.join(readonly)}. Nothing was sent.")
    return update


def differing(fields: Iterable[Field], values: Mapping[str, Any]) -> list[str]:
    """Return the fields that do not hold what was sent, described for an error text."""
    held = {field.key: field for field in fields}
    return [str(held.get(key, key)) for key, value in values.items() if key not in held or not _same(held[key], value)]


def missing_required(fields: Iterable[Field]) -> list[str]:
    """Return the labels of required fields that are empty; false and 0 are values."""
    return [field.label for field in fields if field.is_required and field.value in (None, "")]


def left_empty(fields: Iterable[Field], values: Mapping[str, Any]) -> list[str]:
    """Return the labels of required fields that would be empty after values, by key, were written."""
    return missing_required(replace(field, value=values.get(field.key, field.value)) for field in fields)


def has_closed(fields: Iterable[Field]) -> bool:
    """Tell whether no field can be written; it means something only where one could before."""
    fields = list(fields)
    return bool(fields) and all(field.is_readonly for field in fields)


def kept_values(values: Mapping[str, Any]) -> str:
    """Return values to send as text that keeps every digit, for a store that holds JSON."""
    import simplejson

    return simplejson.dumps(values, use_decimal=True, allow_nan=False)


def read_kept_values(text: str) -> dict[str, Any]:
    """Read what :func:`kept_values` wrote."""
    import simplejson

    found: dict[str, Any] = simplejson.loads(text, use_decimal=True)
    return found


def check_rendered(fields: Mapping[str, Any]) -> None:
    """
    Refuse values that a template without a value has left.

    :raises ConfigurationError: a value is the text ``None``.
    """
    for name, value in fields.items():
        if value == "None":
            raise ConfigurationError(
                f"fields: {name!r} was rendered as the text 'None'. Hand over the output of a task instead of a "
                "template, or set render_template_as_native_obj=True on the DAG; None empties a field."
            )


def raw_fields(fields: Any) -> dict[str, Any]:
    """
    Return the fields to start a process with in JSON's own types, under the names they were given by.

    :raises ConfigurationError: not a mapping of texts, or a value that JSON does not hold exactly.
    """
    if not isinstance(fields, Mapping) or not all(isinstance(name, str) and name.strip() for name in fields):
        raise ConfigurationError("fields must be a mapping of Workflowsoft's field names to values.")
    return {name: _raw_value(name, value) for name, value in fields.items()}


def _raw_value(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _raw_value(name, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_raw_value(name, item) for item in value]
    if isinstance(value, datetime) and value.utcoffset() is not None:
        with suppress(OverflowError):  # before the year 1 in UTC
            return _time_text(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    finite = value.is_finite() if isinstance(value, Decimal) else not isinstance(value, float) or math.isfinite(value)
    if value is None or (isinstance(value, (str, bool, int, float, Decimal)) and finite):
        return value
    raise ConfigurationError(
        f"fields: {name!r} takes text, a finite number, True, False, None, a date, a datetime with a time zone, or "
        f"lists and mappings of them; got {type(value).__name__} {short(value)}."
    )


def option_values(field: Field) -> list[Any] | None:
    """Return the values that may be chosen, or None where there is no choice or its form is not clear."""
    if not isinstance(field.options, list) or not field.options:
        return None
    values = []
    for option in field.options:
        if isinstance(option, Mapping):
            given = [v for v in (member(option, "Id"), member(option, "Value")) if v is not None]
            if not given:
                return None
            values += given
        elif isinstance(option, (str, int, Decimal, float)):
            values.append(option)
        else:
            return None
    return values


def wire_name(key: str) -> str:
    """Return the name under which a field is written."""
    return "field_" + key.replace("-", "_")


def encode(field: Field, value: Any) -> Any:
    """
    Return a value in the form that is sent for a field.

    :raises ConfigurationError: it does not fit; the error names the field, what it takes, and what it got.
    """
    if value is None:
        if field.is_known and field.kind != "string" and not field.type.strip().endswith("?"):
            raise ConfigurationError(f"fields: field {field} cannot be emptied; its type has no question mark.")
        return None
    if not field.is_known:
        return _as_it_is(_restored(field.value, _raw_value(field.label, value)))
    expected, _, write = CODECS[field.kind]
    try:
        return write(value)
    except (ValueError, TypeError, ArithmeticError):
        got = f"{type(value).__name__} {short(value)}"
        raise ConfigurationError(f"fields: field {field} takes {expected}; got {got}.") from None


# --- one field's value -----------------------------------------------------------------------------------


def _read_field(row: Mapping[str, Any]) -> Field:
    label, key, kind = (str(member(row, name) or "") for name in ("label", "key", "type"))
    field = Field(
        label=label or key,
        key=key,
        type=kind,
        value=None,
        options=member(row, "options"),
        is_readonly=_is_set(member(row, "isReadonly")),
        is_required=_is_set(member(row, "isRequired")),
    )
    return replace(field, value=_read_value(field, member(row, "valueJson")))


def _is_set(flag: Any) -> bool:
    return str(flag).lower() in ("true", "1")


def _read_value(field: Field, text: Any) -> Any:
    if text is None or text == "":
        return None
    import simplejson  # here, for a DAG file that is only parsed reads no value

    try:
        value = simplejson.loads(text, use_decimal=True)
        if value is None or (value == "" and field.is_known and field.kind != "string"):
            return None
        return CODECS[field.kind][1](value) if field.is_known else _as_it_is(value)
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise ContractError(f"The value of field {field}, key {field.key}, is not one of its type") from None


def _same(field: Field, encoded: Any) -> bool:
    held = None if field.value is None else encode(field, field.value)
    if field.kind == "single" and held is not None and encoded is not None:
        return f"{held:.7g}" == f"{encoded:.7g}"  # more digits the server does not keep
    if field.kind == "string":
        return (held or None) == (encoded or None)  # both are empty, whichever the server shows
    return _alike(held, encoded)


def _alike(held: Any, wanted: Any) -> bool:
    """Tell whether two JSON values are the same; unlike Python, JSON tells 1 and true apart."""
    if isinstance(held, Mapping) and isinstance(wanted, Mapping):
        return held.keys() == wanted.keys() and all(_alike(held[name], wanted[name]) for name in held)
    if isinstance(held, list) and isinstance(wanted, list):
        return len(held) == len(wanted) and all(map(_alike, held, wanted))
    return bool(held == wanted) and isinstance(held, bool) == isinstance(wanted, bool)


def _check_option(field: Field, encoded: Any) -> None:
    allowed = option_values(field)
    if encoded is None or allowed is None:
        return
    words = {str(value) for value in allowed} | {str(_encoded_option(field, value)) for value in allowed}
    chosen = encoded if isinstance(encoded, list) else [encoded]  # of a type with several choices
    if not all(str(choice) in words for choice in chosen):
        listed = ", ".join(repr(value) for value in allowed)
        raise ConfigurationError(f"fields: field {field} takes one of {listed}; got {short(encoded)}.")


def _encoded_option(field: Field, value: Any) -> Any:
    try:
        return encode(field, value)
    except ConfigurationError:
        return value


def _restored(held: Any, wanted: Any) -> Any:
    """Return JSON with the numbers that XCom holds as text only, made numbers again where they are unchanged."""
    if isinstance(held, Mapping) and isinstance(wanted, Mapping):
        return {name: _restored(held.get(name), item) for name, item in wanted.items()}
    if isinstance(held, list) and isinstance(wanted, list) and len(held) == len(wanted):
        return [_restored(*pair) for pair in zip(held, wanted, strict=True)]
    return held if isinstance(held, Decimal) and wanted == str(held) else wanted


def _as_it_is(value: Any) -> Any:
    """Return parsed JSON with floats for the numbers that a float holds exactly, and Decimals for the others."""
    if isinstance(value, Mapping):
        return {name: _as_it_is(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_it_is(item) for item in value]
    if not isinstance(value, Decimal):
        return value
    return float(value) if Decimal(repr(float(value))) == value else value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


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
    # A float has lost digits that a Decimal would have kept, so it is refused and not quietly rounded.
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
    moment = parse_time(_text(value)) if DAY.match(value) else None
    if moment is None:
        raise ValueError
    return moment


def _write_time(value: Any) -> str:
    if isinstance(value, str) and TIME_WITH_ZONE.fullmatch(value.strip()):
        value = _read_time(value.strip())
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise TypeError
    return _time_text(value)


def _read_date(value: Any) -> date:
    return date.fromisoformat(_text(value)[:10])


def _write_date(value: Any) -> str:
    if isinstance(value, str):
        value = date.fromisoformat(value.strip())
    if isinstance(value, datetime) or not isinstance(value, date):
        raise TypeError
    return value.isoformat()


def _time_text(moment: datetime) -> str:
    # Whole seconds and a Z, as in the vendor's only sample.
    # Not by strftime, which writes the year 999 with three digits.
    return moment.astimezone(timezone.utc).replace(microsecond=0).isoformat().replace("+00:00", "Z")


# Base type -> (what a value of it is, how it is read, how it is written). The vendor shows the first four;
# the others follow from the names being those of .NET.
CODECS: dict[str, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "string": ("text", _text, _text),
    "boolean": ("True or False", _boolean, _boolean),
    "datetime": ("a datetime with a time zone, or its ISO-8601 text with a zone", _read_time, _write_time),
    "decimal": ("a finite Decimal, int or number as text (a float is not exact)", _decimal, _decimal),
    "double": ("a finite number", _float, _float),
    "single": ("a finite number", _float, _float),
    "guid": ("a UUID", _guid, _guid),
    "date": ("a date, or its text as YYYY-MM-DD", _read_date, _write_date),
    **{kind: (f"an int of {bits} bits", _integer(kind), _integer(kind)) for kind, bits in INTEGERS.items()},
}


def _has_id(row: Any, name: str) -> bool:
    return isinstance(row, Mapping) and is_id(member(row, name))


def _is_instance(row: Any) -> bool:
    return _has_id(row, "IntegrationInstanceId") and not _is_empty(member(row, "IntegrationInstanceId"))


def _is_empty(value: Any) -> bool:
    """Tell whether a value is one that .NET leaves where nobody has set any."""
    return value is None or value == "" or (type(value) is int and value == 0)


def _says_nothing(body: Any) -> bool:
    if not isinstance(body, Mapping) or not all(map(_is_empty, body.values())):
        return False
    return not body or any(str(name).lower() == "integrationinstanceid" for name in body)


def _form(odd: Any) -> str:
    if isinstance(odd, Mapping):
        return f"an object with {', '.join(sorted(f'{name} ({type(odd[name]).__name__})' for name in odd))}"
    return f"a {type(odd).__name__}"
