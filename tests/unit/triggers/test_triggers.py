"""Common properties of all triggers: their arguments in Airflow's database, statistics, and rejected parameters."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import math
import pkgutil
from datetime import timedelta
from typing import get_origin

import pytest
from airflow.triggers.base import BaseTrigger

from airflow_provider_workflows import triggers, version_compat
from airflow_provider_workflows.client.rate_limit_headers import RateLimit
from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.operators import procore as operators
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyPerformActivityOperator
from airflow_provider_workflows.sensors import procore, procore_legacy, workflowsoft
from airflow_provider_workflows.sensors.base import WorkflowsSensor
from tests.support.versions import AIRFLOW
from tests.unit.polling.conftest import (
    INTERVAL,
    MadeUpWait,
    cancel,
    legacy_wait,
    v2_wait,
    wait_for,
)

pytestmark = pytest.mark.compat

# --- what lies in the database ---

VALUES = {
    "after": "2026-01-01T00:00:00Z",
    "asset": None,
    "resume_kwargs": {"a": [1, None]},
    "deadline": "2026-01-01T00:00:00+00:00",
    "event": {"status": "poke"},
    "max_instances": 3,
    "performed": {"history_id": "1"},
    "poll_interval": 60.0,
    "project_ids": ["1", None],
    "terminate_on_kill": True,
    "seen": None,
    "stuck_after": 60.0,
    "until": ["complete"],
    "occurrence": {"id": "1", "name": "Start", "status": None, "set_at": None},
}
LISTS = {"tool_types", "operation_ids", "fail_on", "skip_on", "step_reached", "step_decided", "legacy_until"}
PARTICULAR = {  # those of triggers that bring some into a form of their own
    "ProcoreItemWaitTrigger": {},
    "ProcoreResponseRequestedTrigger": {},
    "ProcoreInstanceChangedTrigger": {"states": ["complete"], "changes": ["ended"]},
    "WorkflowsoftIntegrationTrigger": {"diagram": None, "step": None},
}
TIME = "2026-01-01T00:00:00+00:00"


def every_trigger():
    for found in pkgutil.iter_modules(triggers.__path__, triggers.__name__ + "."):
        module = importlib.import_module(found.name)
        for cls in vars(module).values():
            # On Python 3.10 a type with parameters, such as tuple[str, ...], passes for a class.
            is_class = inspect.isclass(cls) and get_origin(cls) is None
            is_own = is_class and issubclass(cls, BaseTrigger) and cls.__module__ == found.name
            if is_own and not inspect.isabstract(cls):
                yield cls


def parameters_of(cls):
    """Return the names that the constructors of a class and its bases take."""
    names = {}
    for base in cls.__mro__:
        if base is BaseTrigger:
            break
        if "__init__" in vars(base):
            taken = inspect.signature(base.__init__).parameters.values()
            names |= {parameter.name: parameter for parameter in taken if parameter.kind is parameter.KEYWORD_ONLY}
    return names


@pytest.mark.parametrize("cls", list(every_trigger()), ids=lambda cls: cls.__name__)
def test_trigger_arguments_survive_json_unchanged(cls):
    until = TIME if cls.__name__ == "WakeUpTrigger" else VALUES["until"]
    values = {**VALUES, "until": until}
    arguments = {name: ["x"] if name in LISTS else values.get(name, "7") for name in parameters_of(cls)}
    arguments |= PARTICULAR.get(cls.__name__, {})

    path, stored = cls(**arguments).serialize()

    assert path == f"{cls.__module__}.{cls.__qualname__}"
    assert json.loads(json.dumps(stored)) == stored
    assert stored.keys() == arguments.keys()
    assert stored == arguments or cls.__name__ in PARTICULAR
    assert cls(**stored).serialize() == (path, stored)


def test_every_trigger_is_covered():
    names = {cls.__name__ for cls in every_trigger()}

    assert {
        "ProcoreInstanceWaitTrigger",
        "ProcoreItemWaitTrigger",
        "ProcoreResponseRequestedWaitTrigger",
        "ProcoreAsyncOperationWaitTrigger",
        "ProcoreBulkReplaceWaitTrigger",
        "ProcoreLegacyInstanceWaitTrigger",
        "ProcoreLegacyStateChangeWaitTrigger",
        "WorkflowsoftIntegrationWaitTrigger",
        "WakeUpTrigger",
    } <= names


# --- statistics ---


@pytest.fixture
def statistics(monkeypatch):
    """The statistics that were reported to Airflow."""
    reported = []
    monkeypatch.setattr(version_compat, "_report", lambda kind, name, value, tags: reported.append((name, value, tags)))
    return reported


def test_poll_emits_statistics_with_tags(clock, product, statistics):
    def three_requests(hook):
        hook.client.sent += 3
        hook.client.rate = RateLimit(3600, 3000, int(clock.time()) + 1000)

    async def read(reader, subscribers):
        await reader.call(three_requests)
        reader.deliver_all((subscriber, None) for subscriber in subscribers)

    async def scenario():
        product.next = [read]
        tasks = [wait_for(MadeUpWait(product.scope())) for _ in range(4)]
        await asyncio.sleep(1.5 * INTERVAL)
        await cancel(*tasks)

    clock.run(scenario())

    tags = {"connection": "made_up", "product": "made_up", "scope": "scope"}
    assert [row for row in statistics if row[1]] == [
        ("workflows.requests", 3, tags),
        ("workflows.polls", 1, tags),
        ("workflows.waits", 4, tags),
        ("workflows.rate_limit_remaining", 3000, tags),
    ]


@pytest.mark.usefixtures("airflow_connections")
@pytest.mark.parametrize(("kind", "ids"), [(v2_wait, ("700001", "5001")), (legacy_wait, ("568150",))])
def test_the_age_of_the_oldest_step_is_reported(emulator, clock, statistics, kind, ids):
    async def scenario():
        task = wait_for(kind(*ids))
        await asyncio.sleep(10.5 * INTERVAL)
        await cancel(task)

    clock.run(scenario())

    ages = [value for name, value, _ in statistics if name == "workflows.oldest_step_age"]
    products = {tags["product"] for name, _, tags in statistics}
    assert ages == sorted(ages)
    assert 8 * INTERVAL <= ages[-1] <= 12 * INTERVAL
    assert products == {"procore" if kind is v2_wait else "procore_legacy"}


def test_malformed_time_fails_no_poll(clock, product, statistics):
    scope = product.scope()
    for malformed in (None, "", "yesterday", 7, {"a": 1}):
        scope.record_step(malformed)

    async def scenario():
        async def read(reader, subscribers):
            scope.record_step("not a time")
            reader.deliver_all((subscriber, None) for subscriber in subscribers)

        product.next = [read]
        task = wait_for(MadeUpWait(scope))
        await asyncio.sleep(2.5 * INTERVAL)
        await cancel(task)

    clock.run(scenario())

    assert len(product.polls) == 2
    assert [name for name, *_ in statistics if name == "workflows.oldest_step_age"] == []


# --- intervals ---

SENSORS = {
    procore.ProcoreInstanceSensor: {"instance_id": "700001"},
    procore.ProcoreItemSensor: {"tool_type": "purchase_order_contract", "item_id": "5001"},
    procore.ProcoreResponseRequestedSensor: {"tool_type": "purchase_order_contract"},
    procore.ProcoreAsyncOperationSensor: {"operation_id": "1"},
    procore_legacy.ProcoreLegacyInstanceSensor: {"instance_id": "568150", "until": {"Start"}},
    workflowsoft.WorkflowsoftIntegrationSensor: {"step_id": "101"},
}


@pytest.mark.usefixtures("airflow_connections")
@pytest.mark.parametrize("mode", [{"deferrable": True}, {"deferrable": False}, {"mode": "reschedule"}], ids=str)
@pytest.mark.parametrize("cls", SENSORS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    "time",
    [{"poke_interval": 0}, {"poke_interval": math.inf}, {"timeout": math.inf}, {"timeout": timedelta.max}],
    ids=str,
)
def test_impossible_times_are_rejected_by_every_sensor(emulator, cls, mode, time):
    with pytest.raises(ConfigurationError, match=f"{next(iter(time))} must be seconds or a timedelta"):
        cls(task_id="wait", **time, **SENSORS[cls], **mode).execute({"ti": None})
    assert emulator.requests() == []


WAITING_OPERATORS = {
    operators.ProcoreStartInstanceOperator: {"tool_type": "commitment", "item_id": "5001"},
    operators.ProcoreBulkStartInstancesOperator: {"tool_type": "commitment", "items": ["5001"]},
    operators.ProcoreBulkReplaceAssigneesOperator: {"old_assignee": "1", "new_assignees": ["2"], "reason": "other"},
    operators.ProcoreApprovalOperator: {"instance_id": "1"},
    ProcoreLegacyPerformActivityOperator: {"instance_id": "1", "activity": "Approve", "performed_by": "2"},
}


DECIDES_IN_AIRFLOW = () if AIRFLOW >= (3, 3) else (operators.ProcoreApprovalOperator,)


def test_every_sensor_is_covered():
    modules = (procore, procore_legacy, workflowsoft)
    own = {cls for module in modules for cls in vars(module).values() if inspect.isclass(cls)}
    assert {cls for cls in own if issubclass(cls, WorkflowsSensor) and not inspect.isabstract(cls)} == set(SENSORS)


@pytest.mark.usefixtures("airflow_connections")
@pytest.mark.parametrize(
    "time",
    [
        *({"poll_interval": value} for value in (0, -1.0, math.nan, math.inf, True, "5", [60])),
        *({"wait_timeout": value} for value in (-1, math.nan, math.inf, 1e12, timedelta.max, None, "abc")),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "operator",
    [
        pytest.param(
            cls, id=cls.__name__, marks=pytest.mark.skipif(cls in DECIDES_IN_AIRFLOW, reason="needs Airflow 3.3")
        )
        for cls in WAITING_OPERATORS
    ],
)
def test_impossible_times_are_rejected_by_every_waiting_operator(emulator, operator, time):
    task = operator(task_id="act", **WAITING_OPERATORS[operator], **time)

    with pytest.raises(ConfigurationError, match=f"{next(iter(time))} must be seconds or a timedelta"):
        task.execute({})
    assert emulator.requests() == []
