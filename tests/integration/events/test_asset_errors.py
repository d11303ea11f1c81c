"""Errors of assets that cannot be built, and the documentation of their parameters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from airflow.sdk import DAG

from airflow_provider_workflows.assets.procore import EVENTS, procore_asset
from airflow_provider_workflows.assets.workflowsoft import workflowsoft_asset
from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.procore import STATES
from airflow_provider_workflows.triggers.procore_events import CHANGES

pytestmark = pytest.mark.compat

TOOL = "purchase_order_contract"
NAME = "orders to respond to"
EXAMPLES = Path(__file__).parents[3] / "example_dags"
EVENTS_PAGE = (Path(__file__).parents[3] / "docs" / "events.md").read_text()


def error_of(build, *args, **kwargs) -> str:
    with pytest.raises(ConfigurationError) as caught:
        build(*args, **kwargs)
    assert type(caught.value) is ConfigurationError
    return str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"event": "asked"}, "event must be one of response_requested, instance_changed; got 'asked'."),
        ({"states": "complete"}, "states does not go with event='response_requested'; omit it."),
        (
            {"poll_interval": 0},
            "poll_interval must be seconds or a timedelta, more than 0 and at most 100 years; got 0.",
        ),
        ({"procore_conn_id": None}, "procore_conn_id is missing or was rendered empty. Give it a value."),
        ({"tool_type": []}, "tool_type must name at least one tool; got none."),
        ({"user": ""}, "user is missing or was rendered empty. Give it a value."),
    ],
    ids=str,
)
def test_error_names_the_function_and_the_asset(kwargs, text):
    message = error_of(procore_asset, NAME, **{"tool_type": TOOL, **kwargs})

    assert message == f"procore_asset({NAME!r}): {text}"


def test_error_names_the_workflowsoft_function_and_the_asset():
    assert error_of(workflowsoft_asset, "vendors", step_id="1", max_instances=0) == (
        "workflowsoft_asset('vendors'): max_instances must be from 1 to 500; got 0."
    )


@pytest.mark.parametrize("name", ["", None, 5])
def test_error_shows_an_invalid_name(name):
    assert error_of(workflowsoft_asset, name, step_id="1") == (
        f"workflowsoft_asset({name!r}): name must be text, the name of the asset; got {name!r}."
    )


@pytest.mark.parametrize("name", ["self", "a" * 1501])
def test_error_of_airflow_names_the_asset(name):
    assert error_of(procore_asset, name, tool_type=TOOL).startswith(f"procore_asset({name!r}): ")


@pytest.mark.parametrize("names", [("step",), ("diagram",), (), ("step", "step_id"), ("diagram", "step", "step_id")])
def test_step_is_named_by_diagram_and_step_or_by_its_id(names):
    message = error_of(workflowsoft_asset, "vendors", **dict.fromkeys(names, "1"))

    found = " and ".join(names) or "nothing"
    assert message == f"workflowsoft_asset('vendors'): Give both diagram and step, or step_id alone; got {found}."


@pytest.mark.parametrize(
    ("build", "kwargs"),
    [
        (procore_asset, {"tool_type": (tool for tool in [TOOL])}),
        (procore_asset, {"tool_type": TOOL, "project_id": iter([1001])}),
        (procore_asset, {"tool_type": TOOL, "event": "instance_changed", "states": {"complete": 1}.keys()}),
    ],
    ids=["generator", "iterator", "keys"],
)
def test_iterator_is_rejected_with_the_allowed_types(build, kwargs):
    assert "as a list, a tuple or a set" in error_of(build, NAME, **kwargs)


@pytest.mark.parametrize(
    ("build", "kwargs", "named"),
    [
        (procore_asset, {"tool_type": "{{ params.tool }}"}, "tool_type"),
        (procore_asset, {"tool_type": [TOOL, "{{ params.tool }}"]}, "tool_type"),
        (procore_asset, {"tool_type": TOOL, "procore_conn_id": "{% if x %}a{% endif %}"}, "procore_conn_id"),
        (procore_asset, {"tool_type": TOOL, "event": "instance_changed", "states": ["{{ x }}"]}, "states"),
        (workflowsoft_asset, {"step_id": "{{ ds }}"}, "step_id"),
        (workflowsoft_asset, {"diagram": "{{ ds }}", "step": "a"}, "diagram"),
        (workflowsoft_asset, {"step_id": "1", "workflowsoft_conn_id": "{{ x }}"}, "workflowsoft_conn_id"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_template_is_rejected_with_advice(build, kwargs, named):
    message = error_of(build, NAME, **kwargs)

    assert f"{named} is a template, which Airflow does not render in an asset's watcher. Give the value" in message


def test_a_template_as_a_name_is_rejected():
    assert "name is a template" in error_of(procore_asset, "{{ ds }}", tool_type=TOOL)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("tool_type", ["correspondence", [TOOL, "correspondence"]])
def test_correspondence_needs_its_subtype(event, tool_type):
    assert "tool_subtype is missing" in error_of(procore_asset, NAME, event=event, tool_type=tool_type)
    assert procore_asset(NAME, event=event, tool_type=tool_type, tool_subtype=-123456789).name == NAME


# --- the documentation --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "allowed"), [("event", EVENTS), ("states", STATES), ("changes", CHANGES)])
def test_every_allowed_value_is_documented(name, allowed):
    # Python 3.13 takes the indentation out of docstrings.
    (meaning,) = re.findall(rf"^ *:param {name}: (.*?)^ *:", procore_asset.__doc__ or "", re.M | re.S)

    assert set(allowed) <= set(re.findall("``(.*?)``", meaning)) <= set(allowed) | set(EVENTS)


def test_asset_of_the_documented_schedule_starts_the_other_dag():
    (text,) = [text for text in re.findall(r"```python\n(.*?)```", EVENTS_PAGE, re.DOTALL) if "outlets" in text]
    module: dict = {}
    exec(compile(text, "events.md", "exec"), module)

    handler, clock = module["handle_orders"](), module["wake_handle_orders"]()
    assert isinstance(handler, DAG)
    assert clock.get_task("update_the_asset").outlets == [module["orders"]]
    assert module["orders"].watchers
    assert list(handler.timetable.asset_condition.objects) == [module["orders"]]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*event_driven*.py")), ids=lambda path: path.stem)
def test_no_example_lets_events_wait_for_a_run_to_end(path):
    assert "max_active_runs" not in path.read_text()
