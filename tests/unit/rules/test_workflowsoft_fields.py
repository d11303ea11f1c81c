from __future__ import annotations

import random
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pendulum
import pytest
import simplejson
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_workflows.client.http import _dump
from airflow_provider_workflows.exceptions import ConfigurationError, UnexpectedResponse
from airflow_provider_workflows.rules import workflowsoft_fields as rules
from airflow_provider_workflows.rules.parameters import templated_names
from tests.support.sizes import tenth_and_full

GUID = "9aae87b4-2b01-43eb-be17-d0080a225f54"


def row(type_name: str, value_json: Any, label: str = "Event", key: str = "k-1", **more: Any) -> dict[str, Any]:
    flags = {"options": None, "isReadonly": False, "isRequired": False}
    return {"label": label, "type": type_name, "key": key, "valueJson": value_json, **flags, **more}


def field(type_name: str, value_json: Any = None, **more: Any) -> rules.Field:
    return rules.read_fields([row(type_name, value_json, **more)])[0]


def differing(fields: list[rules.Field], values: dict[str, Any]) -> list[str]:
    """Return what fields that were written show instead."""
    return rules.compare_write(fields, fields, values).wrong


def with_labels(*labels: str) -> list[rules.Field]:
    """Return fields whose values are their numbers."""
    return rules.read_fields([row("Int32", n, label=label, key=f"k-{n}") for n, label in enumerate(labels)])


def test_a_label_is_found_without_the_blanks_at_its_ends():
    values = rules.by_label(with_labels("Amount ", " Cost centre\t"))

    assert dict(values) == {"Amount": 0, "Cost centre": 1}
    for name in ("Amount", "Amount ", " Amount"):
        assert values[name] == values.get(name) == 0
        assert name in values
    assert "Total " not in values
    assert values.get("Total ", 7) == 7


def test_an_unreadable_label_with_blanks_fails_when_used():
    values = rules.by_label(rules.read_fields([row("Int32", '"x"', label="Amount ")]))

    for name in ("Amount", "Amount "):
        assert name not in values
        with pytest.raises(UnexpectedResponse, match="Amount"):
            values.get(name)


def test_labels_that_differ_only_by_blanks_stay_apart():
    values = rules.by_label(with_labels("Amount", "Amount ", "Note", "Note", " "))

    assert dict(values) == {"Amount": 0, "Amount ": 1, "k-2": 2, "k-3": 3, " ": 4}


@pytest.mark.parametrize(
    ("type_name", "value_json", "value"),
    [
        ("String", '"Event Test"', "Event Test"),
        ("String", '""', ""),
        ("String", '"null"', "null"),
        ("Boolean?", "true", True),
        ("DateTime?", '"2021-08-24T21:00:00Z"', pendulum.datetime(2021, 8, 24, 21, tz="UTC")),
        ("DateTime", '"2021-08-24T21:00:00"', pendulum.datetime(2021, 8, 24, 21, tz="UTC")),
        ("DateTime", '"2021-08-24T23:00:00+02:00"', pendulum.datetime(2021, 8, 24, 21, tz="UTC")),
        ("Decimal?", "1640.0", Decimal("1640.0")),
        ("Decimal?", "12345678901234.5678", Decimal("12345678901234.5678")),
        ("Decimal", "7", Decimal(7)),
        ("Int16?", "-32768", -32768),
        ("Int32?", "7", 7),
        ("Int64", "9007199254740993", 9007199254740993),
        ("Double?", "0.1", 0.1),
        ("Single", "2", 2.0),
        ("Guid?", f'"{GUID.upper()}"', GUID),
        ("Date?", '"2021-08-24"', date(2021, 8, 24)),
        ("Date?", '"2021-08-24T00:00:00Z"', date(2021, 8, 24)),
        ("Date?", '"2021-08-24T00:00:00.000+02:00"', date(2021, 8, 24)),
        ("Date?", '"2021-08-24 00:00"', date(2021, 8, 24)),
        ("DateTime", '"0001-01-01T00:00:00"', pendulum.datetime(1, 1, 1, tz="UTC")),
        ("Decimal?", "-1.50E-20", Decimal("-1.50E-20")),
        ("Int16?", "7.0", 7),
        ("Boolean", "false", False),
        ("GeoPoint", '{"lat": 1.5}', {"lat": 1.5}),
        ("GeoPoint", '{"a": [12345678901234.5678, 0.1]}', {"a": [Decimal("12345678901234.5678"), 0.1]}),
        ("GeoPoint", "1e400", Decimal("1E+400")),
        ("Decimal?", None, None),
        ("Decimal?", "", None),
        ("Decimal?", "null", None),
        ("Decimal?", '""', None),
        ("GeoPoint", "null", None),
        (None, '"x"', "x"),
    ],
)
def test_a_value_is_read_by_its_type(type_name, value_json, value):
    read = field(type_name, value_json).value

    assert read == value
    assert type(read) is type(value) or isinstance(read, type(value))


def test_names_are_read_in_any_case_and_missing_ones_mean_no():
    (read,) = rules.read_fields(
        [{"LABEL": "Event", "Type": "String", "Key": "k", "ValueJSON": '"x"', "IsReadOnly": True}]
    )

    assert (read.label, read.value, read.is_readonly, read.is_required) == ("Event", "x", True, False)


def test_a_field_without_a_label_goes_by_its_key():
    assert rules.by_label(rules.read_fields([{"key": "k", "type": "String", "valueJson": '"x"'}])) == {"k": "x"}


@pytest.mark.parametrize(
    ("type_name", "value_json"),
    [
        ("String", "{secret"),
        ("String", "5"),
        ("String", 5),
        ("String", '{"secret": 1}'),
        ("String", '"secret'),
        ("Boolean?", '"yes"'),
        ("Boolean?", "2"),
        ("Decimal?", '"1,640"'),
        ("Double?", '"secret,5"'),
        ("DateTime?", "253402300799"),
        ("DateTime?", "0"),
        ("Date?", '"/Date(1629838800000)/"'),
        ("Date?", '"/Date(1629763200001)/"'),
        ("Date?", '"2021-08-24T21:00:00Z"'),
        ("Date?", '"2021-08-24T22:00:00"'),
        ("Date?", '"2021-08-24 to 2021-09-01"'),
        ("Date?", '"2021-08-24foo"'),
        ("Date?", '"2021-08-24T00:00:00Z or later"'),
        ("Date?", '"2021-02-30"'),
        ("DateTime?", '"secret"'),
        ("Decimal?", "NaN"),
        ("Decimal?", "true"),
        ("Int16", "32768"),
        ("Int32", "1.5"),
        ("Guid", '"secret"'),
        ("Date", '"secret"'),
        ("Double", '"secret"'),
        ("GeoPoint", "[" * 100_000),
        ("GeoPoint", '{"secret": NaN}'),
        ("Int32", "1E+999999999"),
        ("DateTime", '"0001-01-01T00:00:00+02:00"'),
    ],
)
def test_an_unreadable_value_concerns_only_its_own_field(type_name, value_json):
    fields = rules.read_fields([row(type_name, value_json, isRequired=True), row("String", '"x"', "Other", "k-2")])
    values = rules.by_label(fields)

    assert dict(values) == {"Other": "x"}
    for use in (lambda: values["Event"], lambda: values.get("Event")):
        with pytest.raises(UnexpectedResponse, match=f"field 'Event' .{type_name.rstrip('?')}.*key k-1") as error:
            use()
        assert "secret" not in str(error.value)
    with pytest.raises(KeyError):
        values["Elsewhere"]
    assert (values.get("Elsewhere", 1), values.get("Other")) == (1, "x")
    assert rules.missing_required(fields) == []
    assert rules.plan_update(fields, {"Other": "y"}).values == {"k-2": "y"}


def test_an_expected_field_that_is_unreadable_is_named():
    fields = rules.read_fields([row("Int32", '"secret"'), row("String", '"x"', "Other", "k-2")])

    rules.check_expected(fields, {"Other": "String"}, "7")
    with pytest.raises(ConfigurationError, match="value of field 'Event'.*does not match its type"):
        rules.check_expected(fields, {"Event": "Int32"}, "7")


def test_an_unreadable_field_may_be_written():
    unreadable = field("String", '{"secret": 1}')

    assert rules.plan_update([unreadable], {"Event": "x"}).values == {"k-1": "x"}


@pytest.mark.parametrize(
    ("type_name", "value_json", "value"),
    [
        ("Boolean?", '"true"', True),
        ("Boolean?", '"False"', False),
        ("Boolean", "1", True),
        ("Boolean", 0, False),
        ("Decimal?", '"1640.50"', Decimal("1640.50")),
        ("Decimal?", '"1640,5"', Decimal("1640.5")),
        ("Decimal?", '"-12,75"', Decimal("-12.75")),
        ("Decimal?", '"0,500"', Decimal("0.500")),
        ("Decimal?", '"1640,500"', Decimal("1640.500")),
        ("Decimal?", '"1,234,567"', Decimal(1234567)),
        ("Decimal?", '"1,640.50"', Decimal("1640.50")),
        ("Decimal?", '"1.640,50"', Decimal("1640.50")),
        ("Decimal?", "1640,5", Decimal("1640.5")),
        ("Decimal?", Decimal("1640.0"), Decimal("1640.0")),
        ("Double?", '"1.5"', 1.5),
        ("Single?", '"1,5"', 1.5),
        ("Int32?", '"7"', 7),
        ("Int32?", 7, 7),
        ("String", "Event Test", "Event Test"),
        ("Boolean?", True, True),
        ("GeoPoint", {"lat": Decimal("1.5")}, {"lat": 1.5}),
        ("Guid?", GUID, GUID),
        ("Date?", '"/Date(1629763200000)/"', date(2021, 8, 24)),
        ("Date?", "2021-08-24", date(2021, 8, 24)),
        ("DateTime?", "2021-08-24T21:00:00Z", pendulum.datetime(2021, 8, 24, 21)),
        ("DateTime?", r'"\/Date(1629838800000)\/"', pendulum.datetime(2021, 8, 24, 21)),
        ("DateTime?", '"/Date(1629838800000+0200)/"', pendulum.datetime(2021, 8, 24, 21)),
        ("DateTime?", "1629838800", pendulum.datetime(2021, 8, 24, 21)),
        ("DateTime?", "1629838800000", pendulum.datetime(2021, 8, 24, 21)),
        ("DateTime?", "1629838800.5", pendulum.datetime(2021, 8, 24, 21, 0, 0, 500000)),
        ("DateTime?", '"9999-12-31T23:59:59.9999999Z"', pendulum.datetime(9999, 12, 31, 23, 59, 59, 999999)),
        ("DateTime?", '"/Date(253402300799000)/"', pendulum.datetime(9999, 12, 31, 23, 59, 59)),
        ("DateTime?", '"/Date(-62135596800000)/"', pendulum.datetime(1, 1, 1)),
        ("System.Decimal?", "1.5", Decimal("1.5")),
    ],
)
def test_a_value_with_one_possible_reading_is_read(type_name, value_json, value):
    read = field(type_name, value_json)

    assert (read.unreadable, read.value) == ("", value)
    assert type(read.value) is type(value) or isinstance(read.value, type(value))
    assert rules.plan_update([read], {"Event": rules.xcom_value(value)}).values == {}


@pytest.mark.parametrize("body", [{}, [{"label": "no key"}], ["x"]])
def test_fields_of_another_format_are_an_error(body):
    with pytest.raises(UnexpectedResponse, match="list of fields"):
        rules.read_fields(body)


@pytest.mark.parametrize("bad", [None, "x", {"label": "no key"}, {"key": None, "type": "Section"}])
def test_a_row_without_a_key_leaves_the_other_fields(bad):
    assert [field.key for field in rules.read_fields([bad, row("String", '"x"', key="k-1")])] == ["k-1"]


def test_a_step_without_fields_may_have_an_empty_response():
    assert rules.read_fields(None) == []


def test_xcom_has_json_primitives_and_repeated_labels_by_key():
    fields = rules.read_fields(
        [
            row("Decimal?", "12345678901234.5678", "Amount", "a"),
            row("DateTime?", '"2021-08-24T23:00:00+02:00"', "Start", "b"),
            row("Date?", '"2021-08-24"', "Day", "c"),
            row("String", '"one"', "Twice", "d"),
            row("String", '"two"', "Twice", "e"),
            row("Boolean?", None, "Empty", "f"),
        ]
    )

    shown = {label: rules.xcom_value(value) for label, value in rules.by_label(fields).items()}

    assert shown == {
        "Amount": "12345678901234.5678",
        "Start": "2021-08-24T21:00:00Z",
        "Day": "2021-08-24",
        "d": "one",
        "e": "two",
        "Empty": None,
    }
    assert rules.plan_update(fields, shown).values == {}


@pytest.mark.parametrize(
    ("type_name", "value", "sent"),
    [
        ("String", "x", "x"),
        ("String", None, None),
        ("Boolean?", False, False),
        ("DateTime?", datetime(2021, 8, 24, 23, 0, 0, 999, timezone(timedelta(hours=2))), "2021-08-24T21:00:00Z"),
        ("DateTime?", pendulum.datetime(2021, 8, 24, 21, tz="Europe/Vienna"), "2021-08-24T19:00:00Z"),
        ("DateTime?", "2021-08-24T21:00:00+02:00", "2021-08-24T19:00:00Z"),
        ("DateTime?", datetime(1, 2, 3, tzinfo=timezone.utc), "0001-02-03T00:00:00Z"),
        ("DateTime?", pendulum.datetime(999, 12, 31, 23, 59, 59), "0999-12-31T23:59:59Z"),
        ("DateTime?", " 2021-08-24 21:00:00.999+0200 ", "2021-08-24T19:00:00Z"),
        ("DateTime?", None, None),
        ("Date?", date(1, 1, 1), "0001-01-01"),
        ("Int64?", -(2**63), -(2**63)),
        ("Int64", Decimal("9007199254740993"), 9007199254740993),
        ("GeoPoint", Decimal("12345678901234.5678"), Decimal("12345678901234.5678")),
        (
            "GeoPoint",
            {"at": datetime(2021, 8, 24, tzinfo=timezone.utc), "on": (date(2021, 8, 24),)},
            {"at": "2021-08-24T00:00:00Z", "on": ["2021-08-24"]},
        ),
        ("Decimal?", Decimal("12345678901234.5678"), Decimal("12345678901234.5678")),
        ("Decimal?", "12345678901234.5678", Decimal("12345678901234.5678")),
        ("Decimal?", 5, Decimal(5)),
        ("Int32", 5, 5),
        ("Double", Decimal("0.5"), 0.5),
        ("Single", 1, 1.0),
        ("Guid", GUID.upper(), GUID),
        ("Date?", date(2021, 8, 24), "2021-08-24"),
        ("Date?", "2021-08-24", "2021-08-24"),
    ],
)
def test_a_value_is_written_by_its_type(type_name, value, sent):
    encoded = rules.encode(field(type_name), value)

    assert encoded == sent
    assert type(encoded) is type(sent)


@pytest.mark.parametrize(
    ("type_name", "value", "expected"),
    [
        ("String", 5, "must be text; got int 5"),
        ("Boolean?", "true", "must be True or False; got str 'true'"),
        ("Boolean?", 1, "must be True or False; got int 1"),
        ("Boolean", None, "cannot be emptied"),
        ("DateTime?", datetime(2021, 8, 24), "with a time zone.*got datetime"),
        ("DateTime?", "2021-08-24T21:00:00", "with a time zone.*got str"),
        ("DateTime?", "tomorrow", "with a time zone.*got str"),
        ("DateTime?", "2021-99-24T21:00:00Z", "with a time zone.*got str"),
        ("DateTime?", date(2021, 8, 24), "with a time zone.*got date"),
        ("Decimal?", Decimal("NaN"), "finite Decimal.*got Decimal"),
        ("Decimal?", "Infinity", "finite Decimal.*got str"),
        ("Decimal?", "12,5", "finite Decimal.*got str '12,5'"),
        ("Decimal?", 0.1, "a float is not exact.*got float 0.1"),
        ("Decimal?", True, "finite Decimal.*got bool"),
        ("Int16", 32768, "int of 16 bits; got int 32768"),
        ("Int32", "5", "int of 32 bits; got str"),
        ("Int64", True, "int of 64 bits; got bool"),
        ("Double", float("nan"), "finite number; got float nan"),
        ("Double", 10**400, "finite number"),
        ("Guid", "x", "a UUID; got str 'x'"),
        ("Int32", 1.0, "int of 32 bits; got float 1.0"),
        ("Int32", Decimal("1E+999999999"), "int of 32 bits; got Decimal"),
        ("Int64", 2**63, "int of 64 bits; got int"),
        ("Int64", -(2**63) - 1, "int of 64 bits; got int"),
        ("Single", float("inf"), "finite number; got float inf"),
        ("Double", True, "finite number; got bool True"),
        ("Decimal?", Decimal("sNaN"), "finite Decimal.*got Decimal"),
        ("Decimal?", Decimal("-Infinity"), "finite Decimal.*got Decimal"),
        ("DateTime?", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))), "with a time zone.*got datetime"),
        ("DateTime?", 1629838800, "with a time zone.*got int"),
        ("Date?", 20210824, "a date.*got int"),
        ("Date?", datetime(2021, 8, 24, tzinfo=timezone.utc), "a date.*got datetime"),
        ("Date?", "24.8.2021", "a date.*got str"),
    ],
)
def test_error_of_a_wrong_value_names_field_type_and_value(type_name, value, expected):
    with pytest.raises(ConfigurationError, match=f"field 'Event' .*{expected}"):
        rules.encode(field(type_name), value)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        {"deep": [float("inf")]},
        Decimal("sNaN"),
        datetime(2021, 8, 24),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))),
        object(),
        b"bytes",
    ],
)
def test_value_without_a_json_form_is_rejected_by_name(value):
    with pytest.raises(ConfigurationError, match="'Event' must be text, a finite number"):
        rules.encode(field("GeoPoint"), value)
    with pytest.raises(ConfigurationError, match="'field_a' must be text, a finite number"):
        rules.raw_fields({"field_a": value})


def sent_and_shown(type_name: str, value: Any) -> str:
    """Return the JSON of a value as it is sent, after it was stored for a retry; the server shows the same text."""
    stored = rules.read_stored_values(rules.stored_values({"k": rules.encode(field(type_name), value)}))
    return _dump(rules.encode(field(type_name), stored["k"])).decode()


def any_decimal(chance: random.Random) -> str:
    """Return a decimal of up to 28 digits in one of the forms of JSON."""
    digits = str(chance.randrange(1, 10 ** chance.randint(1, 28)))  # JSON's -0 is the integer 0
    sign = chance.choice(["", "-"])
    form = chance.randrange(3)
    if form == 0:
        return sign + digits
    if form == 1:
        return f"{sign}{chance.randrange(10**5)}.{digits}"[:29]
    return f"{sign}{digits[0]}.{digits[1:] or '0'}E{chance.randint(-40, 40):+d}"


def any_moment(chance: random.Random) -> datetime:
    # A day from either end, for a zone may move it beyond.
    seconds = chance.randint(86_400, int((datetime.max - datetime.min).total_seconds()) - 86_400)
    zone = timezone(timedelta(minutes=chance.randint(-14 * 60, 14 * 60)))
    return (datetime.min + timedelta(seconds=seconds)).replace(tzinfo=zone)


@tenth_and_full("number", 100_000)
def test_decimals_dates_and_times_round_trip_exactly(number):
    chance = random.Random(20211124)

    for _ in range(number // 2):
        text = any_decimal(chance)
        value = field("Decimal?", text).value
        again = field("Decimal?", sent_and_shown("Decimal?", value)).value
        assert (type(again), again.as_tuple()) == (Decimal, value.as_tuple()) == (Decimal, Decimal(text).as_tuple())
    for _ in range(number // 4):
        day = date.fromordinal(chance.randint(1, date.max.toordinal()))
        assert field("Date?", sent_and_shown("Date?", field("Date?", f'"{day}"').value)).value == day
    for _ in range(number // 4):
        moment = any_moment(chance)
        read = field("DateTime?", f'"{moment.isoformat()}"').value
        assert field("DateTime?", sent_and_shown("DateTime?", read)).value == read == moment
        assert sent_and_shown("DateTime?", moment) == sent_and_shown("DateTime?", read)


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_decimals_round_trip_exactly(number):
    sent = simplejson.dumps(rules.encode(field("Decimal?"), number), use_decimal=True)

    assert field("Decimal?", sent).value == number
    assert rules.encode(field("Decimal?"), rules.xcom_value(field("Decimal?", sent).value)) == number


@given(st.datetimes(timezones=st.just(timezone.utc)))
def test_times_round_trip_to_the_second(moment):
    sent = simplejson.dumps(rules.encode(field("DateTime?"), moment))

    assert field("DateTime?", sent).value == moment.replace(microsecond=0)


def test_only_what_differs_is_sent():
    fields = rules.read_fields(
        [
            row("Decimal?", "1640.0", "Duration", "a"),
            row("DateTime?", '"2021-08-24T21:00:00.4Z"', "Start", "b"),
            row("String", '"x"', "Name", "c"),
            row("Single?", "0.12345679", "Share", "d"),
            row("Boolean?", None, "Exists", "e"),
        ]
    )

    update = rules.plan_update(
        fields,
        {"Duration": 1640, "b": "2021-08-24T21:00:00Z", "Name": "y", "Share": 0.123456789, "Exists": False},
    )

    assert update == rules.Update({"c": "y", "e": False}, ["Name", "Exists"], ["Duration", "Start", "Share"])


def test_fields_are_found_by_key_and_by_a_label_that_is_unique():
    fields = rules.read_fields([row("String", None, "Twice", "a"), row("String", None, "Twice", "b")])

    assert rules.find_field(fields, "b").key == "b"
    with pytest.raises(ConfigurationError, match="2 fields have the label 'Twice'. Use one of their keys: a, b"):
        rules.find_field(fields, "Twice")
    with pytest.raises(ConfigurationError, match="no field 'Venue'. Candidates: 'Twice', 'Twice'"):
        rules.find_field(fields, "Venue")
    with pytest.raises(ConfigurationError, match="Candidates: none"):
        rules.find_field([], "Venue")


def test_a_field_named_by_label_and_by_key_is_rejected():
    with pytest.raises(ConfigurationError, match="given twice"):
        rules.plan_update([field("String")], {"Event": "x", "k-1": "y"})


def test_read_only_fields_are_rejected_only_when_they_would_change():
    fields = rules.read_fields(
        [row("String", '"x"', "One", "a", isReadonly=True), row("Int32", "1", "Two", "b", isReadonly=True)]
    )

    assert rules.plan_update(fields, {"One": "x"}).unchanged == ["One"]
    with pytest.raises(ConfigurationError, match=r"read-only in Workflowsoft: 'One' \(String\), 'Two' \(Int32\)"):
        rules.plan_update(fields, {"One": "y", "Two": 2})


def test_unknown_type_is_written_unchanged_only_when_allowed():
    place = field("GeoPoint", '{"lat": 1}')

    assert rules.plan_update([place], {"Event": {"lat": 1}}).values == {}
    with pytest.raises(ConfigurationError, match="allow_unknown_types"):
        rules.plan_update([place], {"Event": {"lat": 2}})
    assert rules.plan_update([place], {"Event": {"lat": 2}}, allow_unknown_types=True).values == {"k-1": {"lat": 2}}
    assert rules.plan_update([place], {"Event": None}, allow_unknown_types=True).values == {"k-1": None}


@pytest.mark.parametrize(
    ("shown", "requested", "same"),
    [
        ("1", True, False),
        ("1", 1.0, True),
        ('{"a": [1, {"b": true}]}', {"a": [1.0, {"b": True}]}, True),
        ('{"a": [1, {"b": true}]}', {"a": [1, {"b": 1}]}, False),
        ('{"a": 1}', {"a": 1, "b": None}, False),
        ("[1]", [1, 2], False),
        ("12345678901234.5678", Decimal("12345678901234.5678"), True),
        ("12345678901234.5678", 12345678901234.5678, False),
    ],
)
def test_values_of_an_unknown_type_are_compared_as_json(shown, requested, same):
    update = rules.plan_update([field("Unknown", shown)], {"Event": requested}, allow_unknown_types=True)

    assert (update.unchanged if same else update.written) == ["Event"]


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (None, None),
        ([], None),
        ({"A": 1}, None),
        (["A", "B"], ["A", "B"]),
        ([{"id": 1, "Title": "one"}, {"Id": 2}], [1, "one", 2]),
        ([{"Id": 1, "Value": "A"}], [1, "A"]),
        ([{"Name": "A"}], ["A"]),
        ([{"Colour": "A"}], None),
        ([["A"]], None),
    ],
)
def test_options_are_read_if_their_format_is_unambiguous(options, values):
    assert rules.option_values(field("String", options=options)) == values


def test_a_value_outside_the_options_is_rejected_with_the_options():
    rating = field("String", '"A"', options=["A", "B"])

    assert rules.plan_update([rating], {"Event": "B"}).values == {"k-1": "B"}
    assert rules.plan_update([rating], {"Event": None}).values == {"k-1": None}
    with pytest.raises(ConfigurationError, match="must be one of 'A', 'B'; got 'C'"):
        rules.plan_update([rating], {"Event": "C"})


@pytest.mark.parametrize("name", ["Title", "Name", "Value", "Label", "Text"])
def test_an_option_is_chosen_by_its_text_or_its_id(name):
    options = [{"Id": 1, name: "Low"}, {"Id": 2, name: "High"}]
    text = field("String", '"Low"', options=options)

    assert rules.plan_update([text], {"Event": "High"}).values == {"k-1": "High"}
    assert rules.plan_update([text], {"Event": "2"}).values == {"k-1": "2"}
    assert rules.plan_update([text], {"Event": "1"}).unchanged == ["Event"]
    with pytest.raises(ConfigurationError, match="must be one of 1, 'Low', 2, 'High'"):
        rules.plan_update([text], {"Event": "Medium"})
    number = field("Int32?", "1", options=options)
    assert rules.plan_update([number], {"Event": "High"}).values == {"k-1": 2}
    with pytest.raises(ConfigurationError, match="must be an int"):
        rules.plan_update([number], {"Event": "Medium"})


def test_an_option_is_shown_by_its_other_name_after_a_write():
    options = [{"Id": 1, "Title": "Low"}, {"Id": 2, "Title": "High"}]

    assert differing([field("String", '"2"', options=options)], {"k-1": "High"}) == []
    assert differing([field("String", '"1"', options=options)], {"k-1": "High"}) != []


RATINGS = [{"Id": 1, "Title": "Low"}, {"Id": 2, "Title": "High"}]


@pytest.mark.parametrize("high", [{"Id": 2, "Title": "High"}, {"Id": 2}, {"title": "High"}, 2, "High"])
@pytest.mark.parametrize("shown", ['{"Id": 2, "Title": "High"}', '"High"', "2"])
def test_an_option_may_be_an_object_with_its_id_or_label(high, shown):
    rating = field("Lookup", shown, options=RATINGS)

    assert differing([rating], {"k-1": high}) == []
    low = field("Lookup", '{"Id": 1, "Title": "Low"}', options=RATINGS)
    assert rules.plan_update([low], {"Event": high}, allow_unknown_types=True).values == {"k-1": high}
    assert differing([low], {"k-1": high}) != []


@pytest.mark.parametrize("wrong", [{"Id": 3, "Title": "High"}, {"Id": 2, "Title": "Low"}, {}, {"Other": 2}])
def test_an_object_that_is_no_option_is_rejected(wrong):
    with pytest.raises(ConfigurationError, match="must be one of 1, 'Low', 2, 'High'"):
        rules.plan_update([field("Lookup", "1", options=RATINGS)], {"Event": wrong}, allow_unknown_types=True)


@pytest.mark.parametrize(("type_name", "sent"), [("Int32?", 2), ("String", "High")])
def test_an_object_of_an_option_is_sent_as_its_type_takes_it(type_name, sent):
    rating = field(type_name, None, options=RATINGS)

    assert rules.plan_update([rating], {"Event": {"Id": 2, "Title": "High"}}).values == {"k-1": sent}


@pytest.mark.parametrize("options", [["Yes", "No"], [{"Id": 1, "Title": "Yes"}, {"Id": 0, "Title": "No"}]])
def test_a_boolean_is_not_compared_with_its_options(options):
    assert rules.plan_update([field("Boolean?", None, options=options)], {"Event": True}).values == {"k-1": True}


def test_the_options_of_a_list_have_no_order():
    def tags(shown: str, **more: Any) -> rules.Field:
        return field("List<String>", shown, **{"options": ["a", "b", "c"], **more})

    assert differing([tags('["b", "c"]')], {"k-1": ["c", "b"]}) == []
    assert differing([tags("[1, 2]", options=RATINGS)], {"k-1": ["High", "Low"]}) == []
    assert differing([tags('["b", "b"]')], {"k-1": ["b", "c"]}) != []
    assert differing([tags('["b", "c"]', options=None)], {"k-1": ["c", "b"]}) != []
    assert rules.compare_write([tags('["a", "b"]')], [tags('["b", "a"]')], {}).changed == []


@pytest.mark.parametrize(("type_name", "value"), [("Double?", 1.0), ("Decimal?", "1.0"), ("Decimal?", 1)])
def test_an_option_is_a_number_and_not_its_digits(type_name, value):
    of_numbers = field(type_name, None, options=[1, 2])

    assert rules.plan_update([of_numbers], {"Event": value}).written == ["Event"]
    with pytest.raises(ConfigurationError, match="must be one of 1, 2"):
        rules.plan_update([of_numbers], {"Event": 3})


def test_required_means_neither_missing_nor_empty_text():
    fields = rules.read_fields(
        [
            row("String", '""', "Empty", "a", isRequired=True),
            row("String", None, "Missing", "b", isRequired=True),
            row("Boolean?", "false", "No", "c", isRequired=True),
            row("Int32?", "0", "Zero", "d", isRequired=True),
            row("String", None, "Optional", "e"),
        ]
    )

    assert rules.missing_required(fields) == ["Empty", "Missing"]


def test_values_that_differ_after_a_write_are_named():
    fields = rules.read_fields([row("String", '"x"', "One", "a"), row("Decimal?", "2", "Two", "b")])

    assert differing(fields, {"a": "x", "b": Decimal("2.0")}) == []
    changed, gone = differing(fields, {"a": "y", "gone": 1})
    assert changed.startswith("'One' (String)")
    assert gone.startswith("gone")
    assert ("'y'" in changed, "'x'" in changed) == (True, True)


def changed(**values: Any) -> rules.WriteComparison:
    """Compare fields before and after a write of ``written`` with what is there by then."""
    rows = {"written": "x", "other": "o", "computed": 1, "empty": None}
    kinds = {"computed": "Int32?"}

    def fields(shown: dict[str, Any]) -> list[rules.Field]:
        return rules.read_fields(
            [
                row(kinds.get(key, "String"), simplejson.dumps(value), key, key, isReadonly=key == "computed")
                for key, value in shown.items()
            ]
        )

    after = {**rows, "written": "new", **values}
    return rules.compare_write(
        fields(rows), fields({k: v for k, v in after.items() if v != "gone"}), {"written": "new"}
    )


def test_a_write_is_compared_in_all_fields():
    good = changed()
    assert (good.wrong, good.emptied, good.changed, good.is_untouched) == ([], [], [], False)
    blank = changed(empty="")
    assert (blank.emptied, blank.changed) == ([], [])

    assert changed(written="x").is_untouched


@pytest.mark.parametrize("values", [{"other": None}, {"other": "gone"}, {"computed": None}, {"empty": "gone"}])
def test_only_emptied_other_fields_show_that_a_write_replaces(values):
    found = changed(**values)

    assert (len(found.emptied), found.changed) == (1, [])
    assert next(iter(values)) in found.emptied[0]


@pytest.mark.parametrize(
    ("values", "was", "now"),
    [({"other": "p"}, "'o'", "'p'"), ({"empty": "filled"}, "None", "'filled'"), ({"computed": 2}, "1", "2")],
)
def test_another_value_of_another_field_is_only_described(values, was, now):
    found = changed(**values)

    assert (found.emptied, len(found.changed)) == ([], 1)
    assert f"before {was}, now {now}" in found.changed[0]


@pytest.mark.parametrize(
    ("type_name", "sent", "shown", "alike"),
    [
        ("String", " two\nlines ", "two\r\nlines", True),
        ("String", "x", "y", False),
        ("DateTime?", "2021-08-24T21:00:45Z", "2021-08-24T21:00:00Z", True),
        ("DateTime?", "2021-08-24T21:00:45Z", "2021-08-24T21:01:00Z", True),
        ("DateTime?", "2021-08-24T21:00:45Z", "2021-08-24T21:00:30Z", False),
        ("DateTime?", "2021-08-24T21:00:45Z", "2021-08-24T19:00:00Z", False),
        ("Decimal?", Decimal("1640.545"), Decimal("1640.55"), True),
        ("Decimal?", Decimal("1640.545"), Decimal("1640.54"), True),
        ("Decimal?", Decimal("1640.545"), Decimal("1640.53"), False),
        ("Decimal?", Decimal("1640.5"), Decimal("1600"), False),
        ("Decimal?", Decimal("1E+400"), Decimal("1.0"), False),
        ("Double?", 0.125, 0.13, True),
        ("Boolean?", True, False, False),
        ("Int32?", 7, 8, False),
        ("Decimal?", Decimal(1), None, False),
    ],
)
def test_a_tidied_value_counts_only_where_it_is_requested(type_name, sent, shown, alike):
    after = [field(type_name, simplejson.dumps(shown, use_decimal=True))]

    exact = rules.compare_write(after, after, {"k-1": sent})
    normalized = rules.compare_write(after, after, {"k-1": sent}, normalized=True)

    assert (len(exact.wrong), exact.normalized) == (1, [])
    assert (normalized.wrong == [], len(normalized.normalized)) == (alike, int(alike))


def test_a_label_with_a_trailing_blank_is_found():
    fields = [field("String", '"x"', label="Venue ")]

    assert rules.find_field(fields, "Venue").label == "Venue"
    rules.check_expected(fields, {"Venue": "String"}, "7")


def test_only_a_template_that_renders_to_none_is_rejected():
    templated = templated_names({"A": "{{ x }}", "B": "None", "C": None, 1: "{% if x %}y{% endif %}"})

    assert templated == {"A", 1}
    rules.check_rendered({"A": "x", "B": "None", "C": None}, templated)
    with pytest.raises(ConfigurationError, match="'A' was rendered as the text 'None'"):
        rules.check_rendered({"A": "None", "B": "None"}, templated)
    assert templated_names("{{ x }}") == frozenset()


EXPECTED = [
    row("Decimal?", "1", "Amount", "a-1"),
    row("String", None, "Twice", "b-1"),
    row("String", None, "Twice", "b-2"),
]


@pytest.mark.parametrize("expected", [{}, {"Amount": "Decimal?"}, {"a-1": " decimal? "}, {"b-2": "STRING"}])
def test_expected_fields_match_by_label_or_key_in_any_case(expected):
    rules.check_expected(rules.read_fields(EXPECTED), expected, "2")


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"Venue": "String"}, "'Venue' is missing"),
        ({"Amount": "Decimal"}, r"'Amount' is Decimal\?, expected Decimal"),
        ({"Twice": "String"}, "'Twice' is the label of 2 fields"),
        ({"amount": "Decimal?"}, "'amount' is missing"),
        ({"Venue": "String", "Amount": None}, r"'Venue' is missing; 'Amount' is Decimal\?, expected None"),
    ],
)
def test_drift_is_reported_with_all_fields_that_there_are(expected, message):
    with pytest.raises(ConfigurationError, match=rf"expected_fields.*instance 2 .*: {message}.*'Amount' \(Decimal\?\)"):
        rules.check_expected(rules.read_fields(EXPECTED), expected, "2")


def test_expected_fields_of_a_fieldless_or_malformed_instance():
    with pytest.raises(ConfigurationError, match="'Venue' is missing. It has: none"):
        rules.check_expected([], {"Venue": "String"}, "2")
    with pytest.raises(ConfigurationError, match="must be a mapping of labels to types"):
        rules.check_expected([], "Venue", "2")


def test_values_are_stored_with_every_digit():
    values = {
        "a": Decimal("12345678901234.5678"),
        "b": None,
        "c": "ü",
        "d": {"e": [Decimal("1E-30"), 9007199254740993]},
    }

    stored = rules.read_stored_values(rules.stored_values(values))

    assert stored == values
    assert (str(stored["a"]), str(stored["d"]["e"][0])) == ("12345678901234.5678", "1E-30")


@pytest.mark.parametrize(
    ("readonly", "closed"), [([], False), ([True, True], True), ([True, False], False), ([False], False)]
)
def test_an_instance_has_closed_when_no_field_can_be_written(readonly, closed):
    fields = rules.read_fields([row("String", None, key=str(n), isReadonly=flag) for n, flag in enumerate(readonly)])

    assert rules.has_closed(fields) is closed


def test_fields_to_start_with_are_sent_as_they_are():
    named_fields = {
        "field_a": Decimal("0.10"),
        "Start": datetime(2021, 8, 24, tzinfo=timezone.utc),
        "L": (1, None, {1: True}),
    }

    sent = rules.raw_fields(named_fields)

    assert sent == {"field_a": Decimal("0.10"), "Start": "2021-08-24T00:00:00Z", "L": [1, None, {"1": True}]}
    assert b'"field_a": 0.10' in _dump(sent)


@pytest.mark.parametrize("named_fields", ["text", [("a", 1)], {1: "x"}, {" ": "x"}])
def test_fields_to_start_with_must_be_a_mapping_of_names(named_fields):
    with pytest.raises(ConfigurationError, match="fields must be a mapping of Workflowsoft's field names"):
        rules.raw_fields(named_fields)


def test_a_field_is_written_under_the_vendors_name():
    assert rules.wire_name(GUID) == "field_9aae87b4_2b01_43eb_be17_d0080a225f54"


@pytest.mark.parametrize(
    ("shown", "requested", "same"), [("1000000", 1000001, False), ("0.5", 0.5000004, False), ("0.1", 0.100000001, True)]
)
def test_a_single_has_seven_digits(shown, requested, same):
    assert (rules.plan_update([field("Single?", shown)], {"Event": requested}).written == []) is same


@pytest.mark.parametrize(("shown", "requested"), [(None, ""), ('""', None), ("null", "")])
def test_a_text_is_empty_in_each_format_of_the_server(shown, requested):
    assert rules.plan_update([field("String", shown)], {"Event": requested}).values == {}


@pytest.mark.parametrize("flag", [True, "true", "True", 1])
def test_a_flag_may_come_as_text(flag):
    read = field("String", '"x"', isReadonly=flag, isRequired=flag)

    assert (read.is_readonly, read.is_required) == (True, True)
    assert not field("String", '"x"', isReadonly="false").is_readonly


def test_options_may_be_several_and_in_another_format():
    several = field("String[]", '["A"]', options=["A", "B"])
    assert rules.plan_update([several], {"Event": ["A", "B"]}, allow_unknown_types=True).written == ["Event"]
    with pytest.raises(ConfigurationError, match="must be one of 'A', 'B'"):
        rules.plan_update([several], {"Event": ["A", "C"]}, allow_unknown_types=True)
    guid = field("Guid?", None, options=[GUID.upper()])
    assert rules.plan_update([guid], {"Event": GUID}).values == {"k-1": GUID}


def test_a_number_of_an_unknown_type_survives_xcom():
    money = field("Money", '{"amount": 12345678901234.5678, "in": "EUR"}')
    shown = rules.xcom_value(money.value)

    assert rules.plan_update([money], {"Event": shown}).unchanged == ["Event"]
    sent = rules.plan_update([money], {"Event": {**shown, "in": "USD"}}, allow_unknown_types=True).values["k-1"]
    assert sent == {"amount": Decimal("12345678901234.5678"), "in": "USD"}


@pytest.mark.parametrize("text", ['"21:00"', '"now"'])
def test_a_time_without_a_day_is_not_a_time(text):
    assert field("DateTime?", text).unreadable


@pytest.mark.parametrize("text", ["1_000", "١٢", "1e", ""])
def test_only_plain_digits_are_a_number(text):
    with pytest.raises(ConfigurationError, match="must be a finite Decimal"):
        rules.encode(field("Decimal?"), text)


@pytest.mark.parametrize("name", [1, None, True, ("Event",)])
def test_a_name_of_a_field_that_is_not_text_is_rejected(name):
    with pytest.raises(ConfigurationError, match=f"^fields: a field is named .* got {type(name).__name__}"):
        rules.plan_update([field("String", '"x"')], {name: "y"})
    with pytest.raises(ConfigurationError, match="^expected_fields: a field is named"):
        rules.check_expected([field("String", '"x"')], {name: "String"}, "7")
