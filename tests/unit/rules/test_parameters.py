"""What templates are rendered to: text, or an error that names the parameter, and never a traceback."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import XComArg

import airflow_provider_workflows
from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.parameters import (
    boolean_parameters,
    check_rendered,
    literals,
    text_parameters,
    whole_number,
)

NO_TEXT = [5001.0, True, ["a"], {"a": 1}, Decimal("1"), datetime(2026, 1, 1, tzinfo=timezone.utc), date(2026, 1, 1)]
# Parameters that are read in their own way, for they are no text.
OTHERS = {
    "approved_plan",
    "as_of",
    "assignments",
    "attachments",
    "changed_since",
    "csv_path",
    "dry_run",
    "errors_path",
    "expected_fields",
    "fields",
    "files",
    "first_day",
    "history_path",
    "items",
    "last_day",
    "limit",
    "max_instances",
    "op_args",
    "op_kwargs",
    "outcome",
    "output_path",
    "path",
    "plan",
    "responses",
    "tables_path",
    "tools",
}


class Owner:
    def __init__(
        self,
        *,
        item_id: str | int | None = None,
        step: str | int | None = None,
        option: str | None = None,
        comment: str | None = None,
        project_ids: str | int | list[str | int] | None = None,
        step_reached: str | list[str] | None = None,
        instance: str | int | Mapping[str, Any] | None = None,
        confirm_timeout: timedelta | float = 60.0,
    ):
        self.item_id, self.step, self.option, self.comment = item_id, step, option, comment
        self.project_ids, self.instance, self.confirm_timeout = project_ids, instance, confirm_timeout
        self.step_reached = step_reached


Owner.__module__ = "airflow_provider_workflows.made_up"
Owner.__init__.__annotations__["project_ids"] = "str | int | Sequence[str | int] | None"
Owner.__init__.__annotations__["step_reached"] = "str | Collection[str] | None"


def rendered(**values: Any) -> Owner:
    owner = Owner(**values)
    check_rendered(owner)
    return owner


@pytest.mark.parametrize("name", ["item_id", "step", "option", "comment", "instance", "project_ids"])
def test_a_whole_number_is_taken_as_text(name):
    assert getattr(rendered(**{name: 5001}), name) == "5001"
    assert getattr(rendered(**{name: "5001"}), name) == "5001"
    assert getattr(rendered(**{name: None}), name) is None


@pytest.mark.parametrize("value", NO_TEXT, ids=repr)
@pytest.mark.parametrize("name", ["item_id", "step", "option", "comment"])
def test_a_value_that_is_not_text_is_rejected_by_name(name, value):
    with pytest.raises(ConfigurationError, match=f"^{name} "):
        rendered(**{name: value})


@pytest.mark.parametrize("value", ["5001.0", "5001.", "5.001e3", " 5001.0 ", 5001.0, float("nan")])
@pytest.mark.parametrize("name", ["item_id", "instance", "project_ids"])
def test_an_id_with_a_fraction_is_rejected(name, value):
    with pytest.raises(ConfigurationError, match=f"^{name} "):
        rendered(**{name: value})
    if name == "project_ids":
        with pytest.raises(ConfigurationError, match=f"^{name} "):
            rendered(**{name: ["1", value]})


def test_a_label_may_read_like_a_number_with_a_fraction():
    assert rendered(step="1.0", option="2.5", comment="1.5 %").step == "1.0"
    assert rendered(step_reached="2.1").step_reached == "2.1"
    assert rendered(step_reached={"2.1"}).step_reached == ["2.1"]


@pytest.mark.parametrize("value", ["None", " None\n"])
def test_a_comment_that_is_the_text_none_is_rejected(value):
    with pytest.raises(ConfigurationError, match="^comment "):
        rendered(comment=value)


def test_a_comment_is_not_repeated_in_an_error():
    with pytest.raises(ConfigurationError) as error:
        rendered(comment=["very private"])
    assert "private" not in str(error.value)


def test_several_ids_are_texts_and_a_row_stays_one():
    owner = rendered(project_ids=(1, "2"), instance={"instance_id": 7})

    assert owner.project_ids == ["1", "2"]
    assert owner.instance == {"instance_id": 7}


@pytest.mark.parametrize("value", [None, -1, "30", True, float("nan"), float("inf"), [1]])
def test_a_confirm_timeout_that_is_none_is_rejected(value):
    with pytest.raises(ConfigurationError, match="^confirm_timeout "):
        rendered(confirm_timeout=value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, []), ((), []), ("a", ["a"]), (7, ["7"]), ({" a "}, ["a"]), ([7, "2.1"], ["7", "2.1"])],
)
def test_states_are_texts_or_ids_and_none_means_not_given(value, expected):
    assert literals("until", value) == expected


@pytest.mark.parametrize("value", ["", "{{ x }}", "{% if x %}", 1.5, True, {"a": 1}, b"a"], ids=str)
@pytest.mark.parametrize("several", [False, True])
def test_template_or_task_output_is_no_state(value, several):
    with pytest.raises(ConfigurationError, match="^until "):
        literals("until", ["a", value] if several else value)


# --- of all operators, sensors and notifiers ---


def public_classes() -> list[type]:
    found: dict[str, type] = {}
    for package in ("operators", "sensors", "decorators", "notifications"):
        room = importlib.import_module(f"{airflow_provider_workflows.__name__}.{package}")
        for module in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
            for cls in vars(importlib.import_module(module.name)).values():
                if inspect.isclass(cls) and cls.__module__ == module.name and hasattr(cls, "template_fields"):
                    found[f"{cls.__module__}.{cls.__name__}"] = cls
    return list(found.values())


@pytest.mark.parametrize("cls", public_classes(), ids=lambda cls: cls.__name__)
def test_every_templated_parameter_is_text_or_a_known_exception(cls):
    fields = [name for name in cls.template_fields if not name.endswith("conn_id")]

    assert {name for name in fields if name not in text_parameters(cls)} <= OTHERS


STATES = ("until", "fail_on", "skip_on", "legacy_until")


@pytest.mark.parametrize("value", ["{{ params.states }}", XComArg(EmptyOperator(task_id="states"))], ids=type)
@pytest.mark.parametrize(
    ("cls", "name"),
    [(cls, name) for cls in public_classes() for name in STATES if name in inspect.signature(cls.__init__).parameters],
)
def test_states_that_airflow_does_not_render_fail_the_parsing(cls, name, value):
    signature = inspect.signature(cls.__init__).parameters.values()
    required = {p.name: "1" for p in signature if p.kind is p.KEYWORD_ONLY and p.default is p.empty}

    with pytest.raises(ConfigurationError, match=f"^{name} "):
        cls(task_id="wait", **{**required, name: value})


def test_every_confirm_timeout_takes_a_timedelta():
    takers = [cls for cls in public_classes() if "confirm_timeout" in inspect.signature(cls.__init__).parameters]

    assert len(takers) >= 8
    for cls in takers:
        operator = SimpleNamespace()
        cls.confirm_timeout.fset(operator, timedelta(minutes=1))
        assert cls.confirm_timeout.fget(operator) == 60.0


BOOLEANS = [(cls, name) for cls in public_classes() for name in boolean_parameters(cls)]


def test_every_parameter_with_a_boolean_default_is_checked():
    defaults = {
        (cls, parameter.name)
        for cls in public_classes()
        for base in cls.__mro__
        if base.__module__.startswith("airflow_provider_workflows.") and "__init__" in vars(base)
        for parameter in inspect.signature(base.__init__).parameters.values()
        if isinstance(parameter.default, bool) and parameter.name != "dry_run"
    }

    assert defaults
    assert defaults <= set(BOOLEANS)


@pytest.mark.parametrize(("cls", "name"), BOOLEANS, ids=lambda part: getattr(part, "__name__", part))
def test_no_boolean_is_templated(cls, name):
    assert name not in cls.template_fields


def test_a_whole_number_may_be_text():
    assert [whole_number("limit", value) for value in (1, "10", " 3 ")] == [1, 10, 3]


@pytest.mark.parametrize("value", [0, -1, "0", True, None, 2.5, "", "many", [1], "9" * 20, 10**20])
def test_a_number_that_cannot_be_is_rejected_by_name(value):
    with pytest.raises(ConfigurationError, match="^limit must be a whole number of at least 1"):
        whole_number("limit", value)


def test_a_number_of_thousands_of_digits_is_rejected_by_name():  # Python shows none of these
    for value in ("9" * 5000, 10**5000):
        with pytest.raises(ConfigurationError, match="^limit must be"):
            whole_number("limit", value)
