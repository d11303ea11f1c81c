"""Starting, ending, restarting, refreshing instances and adding assignees: once, even after lost responses."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    ServerError,
    WorkflowsError,
)
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.links.procore import ProcoreItemLink
from airflow_provider_workflows.operators.procore import (
    ProcoreAddAssigneesOperator,
    ProcoreRefreshInstanceOperator,
    ProcoreRestartInstanceOperator,
    ProcoreStartInstanceOperator,
    ProcoreTerminateInstanceOperator,
    bulk_start,
    instances,
    respond,
)
from airflow_provider_workflows.operators.procore import (
    start as start_operator,
)
from airflow_provider_workflows.rules.datetimes import parse_time
from airflow_provider_workflows.sensors import procore as sensors
from airflow_provider_workflows.triggers import cancellation
from airflow_provider_workflows.triggers.procore import ProcoreInstanceWaitTrigger
from tests.support.killed import Killed
from tests.unit.sensors.test_procore import deferred, first_event

pytestmark = pytest.mark.usefixtures("airflow_connections", "no_delays")

INSTANCE = "700001"
NEW = "700002"
TOOL = "purchase_order_contract"
START = "/workflows/instances$"


def effects(emulator, *actions: str) -> list[dict]:
    return [effect for effect in emulator.effects() if effect["action"] in actions]


def started(emulator) -> list[str]:
    """Return the instances that were started through the API."""
    return [e["target"]["instance_id"] for e in effects(emulator, "start") if e["via"] == "api"]


def writes(emulator) -> list[dict]:
    return [r for r in emulator.requests() if r["method"] != "GET" and r["path"].startswith("/rest/")]


def state_of(emulator, instance_id: str = INSTANCE) -> dict:
    instances = emulator.control("GET", "state")["procore"]
    return next(instance for instance in instances if instance["id"] == instance_id)


def record_response(emulator, option: str, login: str = "integration@example.com", instance_id: str = INSTANCE) -> None:
    emulator.control("POST", f"procore/instances/{instance_id}/respond", login=login, option=option)


def lose_responses(emulator, moment: str, path: str, times: int = 1) -> None:
    emulator.control("POST", "faults", method="POST", path=path, reset=moment, times=times)


# --- start ---


def start(**parameters) -> ProcoreStartInstanceOperator:
    fixed = {"task_id": "start", "confirm_timeout": 0.2, "poll_interval": 0.01}
    return ProcoreStartInstanceOperator(**{**fixed, "tool_type": TOOL, "item_id": "5002", **parameters})


def test_a_workflow_is_started_and_described(emulator, store):
    result = start(item_id=5002).execute({"task_state_store": store})

    assert started(emulator) == [NEW]
    assert result == {
        "instance_id": NEW,
        "item_id": "5002",
        "tool_type": TOOL,
        "project_id": "1001",
        "step": "Budget Check",
        "step_occurrence_id": f"{NEW}01",
        "started_at": result["started_at"],
        "ended_at": None,
        "adopted": False,
        "outcome": None,
    }
    assert parse_time(result["started_at"])
    (sent,) = writes(emulator)
    assert sent["body"] == {"tool_type": TOOL, "item_id": "5002"}


def test_a_tool_of_the_company_is_started_at_its_level(emulator, store):
    result = start(tool_type="prequalification", item_id="81").execute({"task_state_store": store})

    assert result["project_id"] == "company"
    assert state_of(emulator, result["instance_id"])["project_id"] is None


def test_a_tool_with_a_subtype_is_started_with_it_from_its_preset(emulator, store):
    operator = start(tool_type="correspondence", item_id="9", tool_subtype=-123456789, preset_id=405)

    result = operator.execute({"task_state_store": store})

    assert result["step"] == "Letter Review"
    (sent,) = writes(emulator)
    assert (sent["body"]["tool_subtype"], sent["body"]["preset_id"]) == ("-123456789", "405")


def test_a_retry_after_success_starts_nothing(emulator, store):
    first = start().execute({"task_state_store": store})

    assert start().execute({"task_state_store": store}) == first
    assert started(emulator) == [NEW]
    assert len(writes(emulator)) == 1


def test_a_retry_after_the_end_does_not_start_another(emulator, store):
    start().execute({"task_state_store": store})
    emulator.control("POST", f"procore/instances/{NEW}/terminate")

    again = start().execute({"task_state_store": store})

    assert (again["instance_id"], again["adopted"]) == (NEW, False)
    assert again["ended_at"] is not None
    assert started(emulator) == [NEW]


def test_an_active_instance_is_adopted_and_nothing_is_written(emulator, store):
    result = start(item_id="5001").execute({"task_state_store": store})

    assert (result["instance_id"], result["adopted"]) == (INSTANCE, True)
    assert start(item_id="5001").execute({"task_state_store": store}) == result
    assert writes(emulator) == []


def test_active_instance_fails_with_on_active_instance_fail(emulator, store):
    operator = start(item_id="5001", on_active_instance="fail", retries=3)

    with pytest.raises(AirflowFailException, match=f"InstanceActive.*{INSTANCE}"):
        operator.execute({"task_state_store": store})
    assert writes(emulator) == []


def test_an_item_whose_instance_has_ended_is_started_again(emulator, store):
    emulator.control("POST", f"procore/instances/{INSTANCE}/terminate")

    result = start(item_id="5001").execute({"task_state_store": store})

    assert (result["instance_id"], result["adopted"]) == (NEW, False)


@pytest.mark.parametrize("policy", ["adopt", "fail"])
def test_lost_response_to_a_start_is_reconciled_on_the_new_instance(emulator, store, policy):
    lose_responses(emulator, "after", START)
    operator = start(on_active_instance=policy)

    result = operator.execute({"task_state_store": store})

    assert (result["instance_id"], result["adopted"]) == (NEW, False)
    assert start(on_active_instance=policy).execute({"task_state_store": store}) == result
    assert started(emulator) == [NEW]


def test_a_start_that_may_not_have_arrived_is_never_sent_again(emulator, store):
    lose_responses(emulator, "before", START)

    for _ in range(2):
        with pytest.raises(AirflowFailException, match=r"OutcomeUnknown.*item 5002 of tool .* shows no new instance"):
            start().execute({"task_state_store": store})
    assert started(emulator) == []
    assert len(writes(emulator)) == 1


def test_an_instance_that_shows_late_is_found_by_the_retry(emulator, store):
    lose_responses(emulator, "after", START)
    emulator.control("POST", "faults", method="GET", path=START, skip=4, times=10_000, status=403, json={})
    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        start().execute({"task_state_store": store})
    emulator.control("DELETE", "faults")

    assert start().execute({"task_state_store": store})["instance_id"] == NEW
    assert started(emulator) == [NEW]


def test_death_after_sending_lets_a_retry_find_what_was_started(emulator, store):
    operator = start()
    send = operator.hook.start_instance

    def send_and_die(*args, **kwargs):
        send(*args, **kwargs)
        raise Killed

    operator.hook.start_instance = send_and_die
    with pytest.raises(Killed):
        operator.execute({"task_state_store": store})
    assert store["start"]["sent"]

    result = start().execute({"task_state_store": store})

    assert (result["instance_id"], result["adopted"]) == (NEW, False)
    assert started(emulator) == [NEW]


@pytest.mark.parametrize(
    "response", [{"body": "<html><title>Proxy</title></html>"}, {"json": {"data": {}}}, {"json": 7}]
)
def test_a_response_without_an_instance_is_reconciled_by_reading(emulator, store, response):
    emulator.control("POST", "faults", method="POST", path=START, status=200, after=True, **response)

    assert start().execute({"task_state_store": store})["instance_id"] == NEW
    assert started(emulator) == [NEW]


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("status", "error"),
    [(400, InvalidRequest), (403, PermissionDenied), (404, NotFound), (422, InvalidRequest), (500, ServerError)],
)
def test_a_rejected_start_stores_nothing_and_is_retried(emulator, store, status, error):
    emulator.control("POST", "faults", method="POST", path=START, status=status, json={"error": "no"})
    with pytest.raises(error):
        start().execute({"task_state_store": store})
    assert started(emulator) == []

    assert start().execute({"task_state_store": store})["adopted"] is False
    assert started(emulator) == [NEW]


@pytest.mark.parametrize("status", [400, 403, 422, 500])
def test_rejected_start_that_took_effect_ends_in_that_instance(emulator, store, status):
    emulator.control("POST", "faults", method="POST", path=START, status=status, json={"error": "x"}, after=True)

    result = start().execute({"task_state_store": store})

    assert result["instance_id"] == NEW
    assert started(emulator) == [NEW]


def test_failed_start_that_created_an_instance_is_claimed(emulator, store):
    emulator.control("POST", "faults", method="POST", path=START, status=500, json={"error": "x"}, after=True)

    result = start(on_active_instance="fail").execute({"task_state_store": store})

    assert (result["instance_id"], result["adopted"]) == (NEW, False)
    assert start(on_active_instance="fail").execute({"task_state_store": store}) == result


def test_an_unreachable_server_is_retried_by_airflow(emulator, store, set_connection):
    emulator.control("POST", "faults", method="GET", path=START, times=9, status=503)
    with pytest.raises(ServerError):
        start().execute({"task_state_store": store})
    emulator.control("DELETE", "faults")

    assert start().execute({"task_state_store": store})["instance_id"] == NEW


def test_a_start_that_was_never_sent_is_started_by_the_retry(emulator, store):
    operator = start()

    def never_sent(*args, **kwargs):
        raise ConnectionFailed("No connection")

    operator.hook.start_instance = never_sent
    with pytest.raises(ConnectionFailed):
        operator.execute({"task_state_store": store})

    assert start().execute({"task_state_store": store})["adopted"] is False
    assert started(emulator) == [NEW]


def test_a_preset_that_is_not_valid_is_rejected_before_the_start(emulator, store):
    emulator.control("POST", "procore/presets/401", valid=False)

    with pytest.raises(ConfigurationError, match="preset_id: preset 401 is not valid"):
        start(preset_id="401").execute({"task_state_store": store})
    assert writes(emulator) == []
    assert "start" not in store


def test_an_unknown_tool_is_rejected_with_the_tools_there_are(emulator, store):
    with pytest.raises(ConfigurationError, match="tool_type 'po'.*correspondence, generic_tool_item"):
        start(tool_type="po").execute({"task_state_store": store})
    assert writes(emulator) == []


@pytest.mark.parametrize("deferrable", [False, True])
def test_both_modes_wait_for_the_end_with_the_same_result(emulator, store, deferrable):
    operator = start(wait_for_completion=True, deferrable=deferrable)
    context = {"task_state_store": store}
    if deferrable:
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute(context)
        record_response(emulator, "Reject", instance_id=NEW)
        event = first_event(deferral.value.trigger)
        assert event["resume_kwargs"] == {"adopted": False}
        result = start(wait_for_completion=True).execute_complete(context, event)
    else:
        poke = ProcoreInstanceWaitTrigger.poke_on_worker
        pokes = []

        def poke_then_reject(trigger, hook, log):
            pokes.append(poke(trigger, hook, log))
            if len(pokes) == 1:
                record_response(emulator, "Reject", instance_id=NEW)
            return pokes[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ProcoreInstanceWaitTrigger, "poke_on_worker", poke_then_reject)
            result = operator.execute(context)
        assert len(pokes) == 2

    assert (result["adopted"], result["step"], result["instance_id"]) == (False, None, NEW)
    assert result["ended_at"] is not None
    assert result["outcome"] == {
        "instance_id": NEW,
        "item_id": "5002",
        "state": "complete",
        "step": None,
        "item_status": "Rejected",
        "decision": result["outcome"]["decision"],
        "last_response": result["outcome"]["last_response"],
        "started_at": result["started_at"],
        "ended_at": result["ended_at"],
        "blocked_reason": None,
        "ambiguous": [],
        "project_id": "1001",
        "occurrence": None,
    }
    assert result["outcome"]["last_response"]["option"] == result["outcome"]["decision"]["option"] == "Reject"
    assert started(emulator) == [NEW]


def test_that_an_instance_was_adopted_survives_the_deferral(emulator, store):
    with pytest.raises(TaskDeferred) as deferral:
        start(item_id="5001", wait_for_completion=True, deferrable=True).execute({"task_state_store": store})
    record_response(emulator, "Reject")

    resumed = start(item_id="5001", wait_for_completion=True)
    result = resumed.execute_complete({"task_state_store": store}, first_event(deferral.value.trigger))

    assert (result["instance_id"], result["adopted"]) == (INSTANCE, True)


def test_wait_past_its_deadline_fails_and_a_retry_starts_nothing(emulator, store):
    for _ in range(2):
        with pytest.raises(AirflowFailException, match="no result within .*Instance 700002 .* at step 'Budget Check'"):
            start(wait_for_completion=True, wait_timeout=0.05).execute({"task_state_store": store})
    assert started(emulator) == [NEW]
    assert state_of(emulator, NEW)["state"] == "in_progress"


def test_a_retry_waits_until_the_first_deadline(emulator, store):
    first = deferred(start(wait_for_completion=True), {"task_state_store": store})
    again = deferred(start(wait_for_completion=True), {"task_state_store": store})

    assert again.trigger.deadline == first.trigger.deadline == store["deadline"]
    assert again.trigger.instance_id == NEW
    assert again.timeout > timedelta(days=7)
    assert started(emulator) == [NEW]


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"status": "timeout"}, AirflowFailException),
        ({"status": "error", "error": "NotFound", "message": "gone"}, WorkflowsError),
        (None, WorkflowsError),
        ({"status": "surprise"}, WorkflowsError),
    ],
)
def test_an_event_without_a_result_fails_the_task(store, event, error):
    with pytest.raises(error):
        start(wait_for_completion=True).execute_complete({"task_state_store": store}, event)


def test_a_trigger_times_out_at_the_deadline(emulator, store):
    trigger = deferred(start(wait_for_completion=True), {"task_state_store": store}).trigger
    trigger.deadline = datetime.now(timezone.utc).isoformat()

    assert first_event(trigger)["status"] == "timeout"


@pytest.mark.parametrize(("item_id", "ends"), [("5002", True), ("5001", False)])
def test_a_kill_ends_the_started_instance_not_an_adopted_one(emulator, store, item_id, ends):
    operator = start(item_id=item_id, wait_for_completion=True, cancel_on_kill=True)

    def killed(seconds):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_workflows.operators.base.time.sleep", killed)
        with pytest.raises(Killed):
            operator.execute({"task_state_store": store})
    operator.on_kill()

    assert len(effects(emulator, "terminate")) == ends
    assert state_of(emulator, NEW if ends else INSTANCE)["state"] == ("terminated" if ends else "in_progress")


def test_kill_terminates_nothing_on_another_server(emulator, store):
    operator = start(wait_for_completion=True, cancel_on_kill=True, deferrable=True)
    deferred(operator, {"task_state_store": store})
    operator.hook.client.base_url = emulator.url.replace("127.0.0.1", "localhost")
    operator.on_kill()

    assert effects(emulator, "terminate") == []


def kill_while_deferred(trigger, monkeypatch) -> None:
    monkeypatch.setattr(cancellation, "read_task_state", lambda task_instance: "failed")
    asyncio.run(trigger.on_kill())


@pytest.mark.parametrize(
    ("item_id", "cancel", "ends"), [("5002", True, True), ("5002", False, False), ("5001", True, False)]
)
def test_a_kill_while_deferred_ends_only_what_the_task_started(emulator, store, monkeypatch, item_id, cancel, ends):
    operator = start(item_id=item_id, wait_for_completion=True, cancel_on_kill=cancel)
    path, arguments = deferred(operator, {"task_state_store": store}).trigger.serialize()
    assert path.endswith("ProcoreInstanceWaitTrigger")

    kill_while_deferred(ProcoreInstanceWaitTrigger(**arguments), monkeypatch)

    assert len(effects(emulator, "terminate")) == ends


def test_a_kill_of_a_task_that_does_not_wait_ends_nothing(emulator, store):
    operator = start(cancel_on_kill=True)
    operator.execute({"task_state_store": store})
    operator.on_kill()

    assert effects(emulator, "terminate") == []


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"tool_type": ""}, "tool_type"),
        ({"tool_type": None}, "tool_type"),
        ({"item_id": " "}, "item_id"),
        ({"item_id": "None"}, "item_id"),
        ({"tool_subtype": ""}, "tool_subtype"),
        ({"template_id": ""}, "template_id"),
        ({"preset_id": "None"}, "preset_id"),
        ({"project_id": ""}, "project_id"),
        ({"company_id": ""}, "company_id"),
        ({"company_id": "acme"}, "company_id"),
        ({"on_active_instance": "ignore"}, "on_active_instance must be one of adopt, fail"),
    ],
)
def test_a_bad_parameter_of_a_start_is_named_before_sending(emulator, store, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        start(**parameters).execute({"task_state_store": store})
    assert emulator.requests() == []
    assert store == {}


# --- terminate ---


def terminate(**parameters) -> ProcoreTerminateInstanceOperator:
    where = {} if {"instance_id", "item_id"} & set(parameters) else {"instance_id": INSTANCE}
    return ProcoreTerminateInstanceOperator(task_id="end", **{"confirm_timeout": 0.2, **where, **parameters})


def test_an_instance_is_ended_and_described(emulator, store):
    result = terminate(instance_id=700001).execute({"task_state_store": store})

    assert result == {
        "project_id": "1001",
        "instance_id": INSTANCE,
        "item_id": "5001",
        "tool_type": TOOL,
        "ended_at": result["ended_at"],
        "already_ended": False,
    }
    assert result["ended_at"] is not None
    assert len(effects(emulator, "terminate")) == 1


@pytest.mark.parametrize("where", [{}, {"item_id": 5001, "tool_type": TOOL}])
def test_an_ended_instance_is_not_changed(emulator, store, where):
    first = terminate(**where).execute({"task_state_store": store})
    again = terminate(**where).execute({"task_state_store": store})

    assert again == {**first, "already_ended": True}
    assert len(writes(emulator)) == 1


def test_by_item_a_retry_ends_no_other_instance(emulator, store):
    terminate(item_id="5001", tool_type=TOOL).execute({"task_state_store": store})
    emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="5001")

    again = terminate(item_id="5001", tool_type=TOOL).execute({"task_state_store": store})

    assert (again["instance_id"], again["already_ended"]) == (INSTANCE, True)
    assert state_of(emulator, NEW)["state"] == "in_progress"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_end_whose_response_was_lost_is_made_once(emulator, store, moment):
    lose_responses(emulator, moment, "/terminate$")

    assert terminate().execute({"task_state_store": store})["ended_at"] is not None
    assert len(effects(emulator, "terminate")) == 1


@pytest.mark.parametrize(("readable", "already_ended"), [(True, True), (False, None)])
def test_end_by_another_user_is_not_claimed(emulator, store, monkeypatch, readable, already_ended):
    send = ProcoreHook.terminate_instance

    def ended_before(hook, instance_id, **where):
        emulator.control("POST", f"procore/instances/{instance_id}/terminate", login="dana@example.com")
        if not readable:
            emulator.control("POST", "faults", method="GET", path="/history$", status=403, times=9)
        return send(hook, instance_id, **where)

    monkeypatch.setattr(ProcoreHook, "terminate_instance", ended_before)

    assert terminate().execute({"task_state_store": store})["already_ended"] is already_ended


@pytest.mark.parametrize(("times", "already_ended"), [(1, False), (10**6, None)])
def test_end_that_the_history_shows_late_is_read_again(emulator, store, times, already_ended):
    running = {"data": ProcoreHook().get_instance_history(INSTANCE)}
    emulator.control("POST", "faults", method="GET", path="/history$", status=200, json=running, times=times)

    result = terminate(confirm_timeout=0.2).execute({"task_state_store": store})

    assert result["already_ended"] is already_ended


def test_ending_that_is_switched_off_is_a_rejection(emulator, store):
    emulator.control("PATCH", "flags", terminate_enabled="off")

    with pytest.raises(PermissionDenied, match="disabled for this tool"):
        terminate().execute({"task_state_store": store})
    assert state_of(emulator)["state"] == "in_progress"


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (422, InvalidRequest), (500, ServerError)])
def test_a_rejected_termination_is_made_by_the_retry(emulator, store, status, error):
    emulator.control("POST", "faults", method="POST", path="/terminate$", status=status, json={"error": "no"})
    with pytest.raises(error):
        terminate().execute({"task_state_store": store})
    assert effects(emulator, "terminate") == []

    assert terminate().execute({"task_state_store": store})["already_ended"] is False


def test_an_instance_of_the_company_level_is_found_there(emulator, store):
    emulator.control("POST", "procore/instances", tool_type="prequalification", item_id="81", project_id=None)

    by_item = terminate(item_id="81", tool_type="prequalification").execute({"task_state_store": store})
    by_id = terminate(instance_id=NEW, project_id="company").execute({})

    assert (by_item["instance_id"], by_item["already_ended"]) == (NEW, False)
    assert (by_id["tool_type"], by_id["already_ended"]) == ("prequalification", True)


def test_an_instance_of_a_tool_with_a_subtype_is_found_by_its_item(emulator, store):
    letter = {"tool_type": "correspondence", "tool_subtype": "-123456789", "item_id": "9"}
    emulator.control("POST", "procore/instances", **letter)

    assert terminate(**letter).execute({"task_state_store": store})["instance_id"] == NEW


# --- restart ---


def restart(**parameters) -> ProcoreRestartInstanceOperator:
    where = {} if {"instance_id", "item_id"} & set(parameters) else {"instance_id": INSTANCE}
    return ProcoreRestartInstanceOperator(task_id="again", **{"confirm_timeout": 0.2, **where, **parameters})


@pytest.mark.parametrize("where", [{}, {"item_id": 5001, "tool_type": TOOL}])
def test_an_instance_is_restarted_once_over_all_retries(emulator, store, where):
    first = restart(**where).execute({"task_state_store": store})
    again = restart(**where).execute({"task_state_store": store})

    assert first == {
        "project_id": "1001",
        "instance_id": NEW,
        "item_id": "5001",
        "tool_type": TOOL,
        "step": "Budget Check",
        "step_occurrence_id": f"{NEW}01",
        "started_at": first["started_at"],
        "restarted_instance_id": INSTANCE,
    }
    assert again == first
    assert [e["detail"] for e in effects(emulator, "restart")] == [{"new_instance_id": NEW}]
    assert state_of(emulator)["state"] == "terminated"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_restart_whose_response_was_lost_is_made_once(emulator, store, moment):
    lose_responses(emulator, moment, "/restart$")

    assert restart().execute({"task_state_store": store})["instance_id"] == NEW
    assert len(effects(emulator, "restart")) == 1


@pytest.mark.parametrize("mode", [None, "defaults", "current_configuration"])
def test_the_mode_of_a_restart_goes_along(emulator, store, mode):
    restart(restart_mode=mode).execute({"task_state_store": store})

    (sent,) = writes(emulator)
    assert sent["body"] == ({} if mode is None else {"restart_mode": mode})


@pytest.mark.parametrize(
    ("status", "error"), [(403, PermissionDenied), (404, NotFound), (422, InvalidRequest), (500, ServerError)]
)
def test_a_rejected_restart_leaves_the_instance(emulator, store, status, error):
    emulator.control("POST", "faults", method="POST", path="/restart$", status=status, json={"error": "no"})

    with pytest.raises(error):
        restart().execute({"task_state_store": store})
    assert state_of(emulator)["state"] == "in_progress"
    assert restart().execute({"task_state_store": store})["instance_id"] == NEW


def test_a_restart_that_gives_the_same_instance_is_not_believed(emulator, store):
    same = {"data": {"id": INSTANCE, "item_id": "5001"}}
    emulator.control("POST", "faults", method="POST", path="/restart$", status=200, json=same)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown.*shows no new instance"):
        restart().execute({"task_state_store": store})
    assert effects(emulator, "restart") == []


# --- refresh ---


def refresh(**parameters) -> ProcoreRefreshInstanceOperator:
    where = {} if {"instance_id", "item_id"} & set(parameters) else {"instance_id": INSTANCE}
    return ProcoreRefreshInstanceOperator(task_id="refresh", **{"confirm_timeout": 0.01, **where, **parameters})


def block(emulator, **how) -> None:
    emulator.control("POST", f"procore/instances/{INSTANCE}/block", reason="ERP is down", **how)


def test_an_instance_that_is_not_blocked_is_left_alone(emulator, store):
    assert refresh().execute({"task_state_store": store}) == {
        "project_id": "1001",
        "instance_id": INSTANCE,
        "item_id": "5001",
        "state": "in_progress",
        "step": "Budget Check",
        "blocked_reason": None,
        "refreshes": 0,
    }
    assert writes(emulator) == []


@pytest.mark.parametrize("needed", [1, 2])
def test_a_blocked_instance_is_tried_again_until_it_is_free(emulator, store, needed):
    block(emulator, refreshes=needed)

    result = refresh(item_id="5001", tool_type=TOOL).execute({"task_state_store": store})

    assert (result["state"], result["blocked_reason"], result["refreshes"]) == ("in_progress", "ERP is down", needed)
    assert len(effects(emulator, "refresh")) == needed
    assert refresh().execute({"task_state_store": store})["refreshes"] == 0


def test_step_that_is_not_retriable_is_not_refreshed(emulator, store):
    block(emulator, retriable=False)

    with pytest.raises(AirflowFailException, match=r"InstanceBlocked.*ERP is down.*cannot be retried"):
        refresh().execute({"task_state_store": store})
    assert writes(emulator) == []


def test_a_blocked_instance_is_tried_max_refreshes_times(emulator, store):
    block(emulator, refreshes=9)

    with pytest.raises(AirflowFailException, match=r"InstanceBlocked.*blocked after 2 refreshes"):
        refresh(max_refreshes=2).execute({"task_state_store": store})
    assert len(effects(emulator, "refresh")) == 2


@pytest.mark.parametrize(("moment", "sent"), [("after", 1), ("before", 2)])
def test_a_lost_refresh_is_reconciled_by_reading(emulator, store, moment, sent):
    block(emulator)
    lose_responses(emulator, moment, "/refresh$")

    result = refresh().execute({"task_state_store": store})

    assert (result["state"], result["refreshes"]) == ("in_progress", sent)
    assert len(effects(emulator, "refresh")) == 1


def test_an_earlier_refresh_by_another_user_is_not_a_failure(emulator, store):
    block(emulator)
    emulator.control("POST", "faults", method="POST", path="/refresh$", status=422, json={"error": "x"}, after=True)

    assert refresh().execute({"task_state_store": store})["state"] == "in_progress"


@pytest.mark.parametrize(("status", "error"), [(403, PermissionDenied), (422, InvalidRequest), (500, ServerError)])
def test_a_rejected_refresh_is_reported(emulator, store, status, error):
    block(emulator)
    emulator.control("POST", "faults", method="POST", path="/refresh$", status=status, json={"error": "no"})

    with pytest.raises(error):
        refresh().execute({"task_state_store": store})
    assert state_of(emulator)["state"] == "blocked"


# --- more assignees ---

STEP = f"{INSTANCE}01"


def add(**parameters) -> ProcoreAddAssigneesOperator:
    where = {} if {"instance_id", "item_id"} & set(parameters) else {"instance_id": INSTANCE}
    fixed = {"task_id": "add", "confirm_timeout": 0.2, "reason": "new_employee", "assignees": "nora@example.com"}
    return ProcoreAddAssigneesOperator(**{**fixed, **where, **parameters})


def added(emulator) -> list[list[str]]:
    return [effect["detail"]["assignee_ids"] for effect in effects(emulator, "add_assignees")]


def test_assignees_are_added_by_login_or_id(emulator, store):
    operator = add(
        assignees=["Nora@Example.com", 90005, "90005"], role_type="commenter", required=False, comment="c", message="m"
    )

    result = operator.execute({"task_state_store": store})

    assert result == {
        "project_id": "1001",
        "instance_id": INSTANCE,
        "item_id": "5001",
        "step": "Budget Check",
        "step_occurrence_id": STEP,
        "added": ["90006", "90005"],
        "already_assigned": [],
        "confirmed": True,
    }
    (sent,) = writes(emulator)
    assert sent["body"] == {
        "step_occurrence_id": STEP,
        "required": False,
        "role_type": "commenter",
        "reason": "new_employee",
        "comment": "c",
        "message": "m",
        "assignee_ids": ["90006", "90005"],
    }


def test_a_retry_after_success_adds_no_one(emulator, store):
    first = add().execute({"task_state_store": store})

    assert add().execute({"task_state_store": store}) == first
    assert len(writes(emulator)) == 1


def test_a_retry_after_the_step_returns_the_same(emulator, store):
    first = add().execute({"task_state_store": store})
    record_response(emulator, "Approve")

    assert add().execute({"task_state_store": store}) == first


def test_existing_assignees_are_not_added_again(emulator, store):
    result = add(assignees=["integration@example.com", "90006"]).execute({"task_state_store": store})

    assert (result["added"], result["already_assigned"]) == (["90006"], ["90001"])
    assert added(emulator) == [["90006"]]


def test_nothing_is_sent_if_all_are_assignees_already(emulator, store):
    result = add(assignees=90001).execute({"task_state_store": store})

    assert (result["added"], result["already_assigned"]) == ([], ["90001"])
    assert writes(emulator) == []


@pytest.mark.parametrize("role_type", [None, "responder"])
def test_commenter_is_added_where_a_responder_is_requested(emulator, store, role_type):
    add(role_type="commenter", required=False).execute({})

    with pytest.raises(AirflowFailException, match="OutcomeUnknown.*does not show all of 90006"):
        add(role_type=role_type).execute({"task_state_store": store})
    assert [request["body"].get("role_type") for request in writes(emulator)] == ["commenter", role_type]


def test_commenter_becomes_a_responder_where_procore_lets_it(emulator, store):
    emulator.control("PATCH", "flags", added_commenter="becomes_responder")
    add(role_type="commenter", required=False).execute({})

    result = add().execute({"task_state_store": store})

    assert (result["added"], result["already_assigned"], result["confirmed"]) == (["90006"], [], True)


def test_assignee_is_not_added_again_as_a_commenter(emulator, store):
    add().execute({})

    result = add(role_type="commenter").execute({"task_state_store": store})

    assert (result["added"], result["already_assigned"]) == ([], ["90006"])
    assert len(writes(emulator)) == 1


@pytest.mark.parametrize("who", ["guest@example.com", ["nora@example.com", "nobody@example.com"]])
def test_impossible_assignee_is_named_and_no_one_is_added(emulator, store, who):
    with pytest.raises(ConfigurationError, match=r"assignees: (guest|nobody)@example.com is not a possible assignee"):
        add(assignees=who).execute({"task_state_store": store})
    assert writes(emulator) == []


def test_an_impossible_assignee_is_rejected_and_no_one_is_added(emulator, store):
    with pytest.raises(InvalidRequest, match="90009 cannot be assigned"):
        add(assignees=["90006", "90009"]).execute({"task_state_store": store})
    assert added(emulator) == []


@pytest.mark.parametrize("policy", ["fail", "skip", "succeed"])
@pytest.mark.parametrize("over", ["moved", "ended"])
def test_a_step_that_is_over_gets_no_assignee(emulator, store, policy, over):
    if over == "moved":
        record_response(emulator, "Approve")
    else:
        emulator.control("POST", f"procore/instances/{INSTANCE}/terminate")
    operator = add(step_occurrence_id=STEP, on_step_moved=policy)

    if policy == "succeed":
        assert operator.execute({"task_state_store": store}) is None
    elif policy == "skip":
        with pytest.raises(AirflowSkipException, match="is over"):
            operator.execute({"task_state_store": store})
    else:
        with pytest.raises(AirflowFailException, match=f"StepMoved.*{STEP}"):
            operator.execute({"task_state_store": store})
    assert added(emulator) == []


def test_a_step_that_moved_between_two_tries_gets_no_assignee(emulator, store):
    emulator.control("POST", "faults", method="POST", path="/additional_assignees$", status=500)
    with pytest.raises(ServerError):
        add().execute({"task_state_store": store})
    record_response(emulator, "Approve")

    with pytest.raises(AirflowFailException, match="StepMoved.*is now at 'Director Approval'"):
        add().execute({"task_state_store": store})
    assert added(emulator) == []


def test_a_lost_addition_is_reconciled_by_reading(emulator, store):
    lose_responses(emulator, "after", "/additional_assignees$")

    first = add().execute({"task_state_store": store})

    assert first["added"] == ["90006"]
    assert add().execute({"task_state_store": store}) == first
    assert len(writes(emulator)) == 1


def test_addition_with_an_unknown_outcome_is_not_retried(emulator, store):
    lose_responses(emulator, "before", "/additional_assignees$")

    with pytest.raises(AirflowFailException, match="OutcomeUnknown.*90006"):
        add().execute({"task_state_store": store})
    assert len(writes(emulator)) == 1


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("status", "error"), [(403, PermissionDenied), (404, NotFound), (422, InvalidRequest), (500, ServerError)]
)
def test_a_rejected_addition_is_made_by_the_retry(emulator, store, status, error):
    emulator.control(
        "POST", "faults", method="POST", path="/additional_assignees$", status=status, json={"error": "no"}
    )
    with pytest.raises(error):
        add().execute({"task_state_store": store})
    assert added(emulator) == []

    add().execute({"task_state_store": store})
    assert added(emulator) == [["90006"]]


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"assignees": []}, "assignees"),
        ({"assignees": ""}, "assignees"),
        ({"assignees": None}, "assignees"),
        ({"assignees": ["90006", " "]}, "assignees"),
        ({"reason": "bored"}, "reason must be one of new_employee"),
        ({"reason": None}, "reason must be one of"),
        ({"role_type": "boss"}, "role_type must be one of responder, commenter"),
        ({"step_occurrence_id": ""}, "step_occurrence_id"),
        ({"on_step_moved": "retry"}, "on_step_moved"),
    ],
)
def test_add_assignees_names_a_bad_parameter_before_sending(emulator, store, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        add(**parameters).execute({"task_state_store": store})
    assert emulator.requests() == []


# --- what all of them share ---


@pytest.mark.sample(4)
@pytest.mark.parametrize("build", [terminate, restart, refresh, add])
@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"instance_id": "1", "item_id": "2"}, "instance_id and item_id"),
        ({"instance_id": None}, "instance_id, item_id"),
        ({"instance_id": ""}, "instance_id"),
        ({"item_id": "5001"}, "tool_type"),
        ({"item_id": "5001", "tool_type": "None"}, "tool_type"),
        ({"item_id": "5001", "tool_type": TOOL, "tool_subtype": ""}, "tool_subtype"),
        ({"project_id": ""}, "project_id"),
        ({"company_id": ""}, "company_id"),
    ],
)
def test_a_bad_parameter_is_named_before_anything_is_sent(emulator, store, build, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        build(**parameters).execute({"task_state_store": store})
    assert emulator.requests() == []


@pytest.mark.parametrize(
    ("build", "bad"),
    [
        (restart, {"restart_mode": "x"}),
        (refresh, {"max_refreshes": True}),
        (refresh, {"max_refreshes": 0}),
        (refresh, {"max_refreshes": "2"}),
    ],
)
def test_its_own_bad_parameter_is_named_before_sending(emulator, store, build, bad):
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        build(**bad).execute({"task_state_store": store})
    assert emulator.requests() == []


@pytest.mark.parametrize(
    ("build", "named"),
    [(terminate, "instance_id"), (restart, "instance_id"), (refresh, "instance_id"), (add, "step_occurrence_id")],
)
def test_without_a_store_a_retried_task_needs_the_occurrence(emulator, build, named):
    with pytest.raises(ConfigurationError, match=f"{named} must be given when retries > 0"):
        build(item_id="5001", tool_type=TOOL, retries=2).execute({})
    assert emulator.requests() == []


@pytest.mark.parametrize("build", [terminate, restart, refresh, add])
def test_item_without_workflow_and_unknown_tool_are_named(emulator, store, build):
    with pytest.raises(NotFound, match="Item 4711"):
        build(item_id="4711", tool_type=TOOL).execute({"task_state_store": store})
    with pytest.raises(ConfigurationError, match="Unknown tool_type 'po'"):
        build(item_id="4711", tool_type="po").execute({"task_state_store": store})


@pytest.mark.parametrize("build", [start, terminate, restart, refresh, add])
def test_the_link_leads_to_the_item(emulator, store, set_connection, build):
    connection = emulator.connection("procore")
    connection["extra"]["item_url"] = "https://app.example.com/{project_id}/{tool_type}/{item_id}"
    set_connection("procore_default", connection)
    operator = build(item_id="5001", tool_type=TOOL)
    link = next(link for link in operator.operator_extra_links if link.name == ProcoreItemLink.name)

    operator.execute({"task_state_store": store})

    assert link.get_link(operator, ti_key=None) == f"https://app.example.com/1001/{TOOL}/5001"


def documented(module) -> list[tuple[type, set[str]]]:
    """Return the public classes of a module with the parameters that they say are templated."""
    classes = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    return [(c, templated(c)) for c in classes if hasattr(c, "template_fields")]


def templated(cls: type) -> set[str]:
    entries = re.split(r"\n\s*:param ", cls.__doc__ or "")[1:]
    named = {entry.partition(":")[0]: re.split(r"\n\s*:\w+", entry)[0] for entry in entries}
    return {name for name, text in named.items() if "(templated)" in text}


@pytest.mark.parametrize(
    ("cls", "names"),
    [pair for module in (respond, start_operator, instances, bulk_start, sensors) for pair in documented(module)],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_fields_documented_as_templated_are_templated(cls, names):
    assert names - set(cls.template_fields) == set()
    inherited = {name for base in cls.__mro__ for name in templated(base)}
    assert set(cls.template_fields) - inherited - {"on_step_moved"} == set()


def test_templates_are_rendered_before_they_are_checked(emulator, store):
    operator = start(item_id="{{ order }}", preset_id="{{ preset }}")
    operator.render_template_fields({"order": 5002, "preset": "401"})

    assert operator.execute({"task_state_store": store})["item_id"] == "5002"


def test_deadline_before_the_first_poll_still_finds_an_end(emulator, store):
    start().execute({"task_state_store": store})
    record_response(emulator, "Reject", instance_id=NEW)
    store.set("deadline", (datetime.now(timezone.utc) - timedelta(seconds=1)).isoformat())

    result = start(wait_for_completion=True).execute({"task_state_store": store})

    assert result["outcome"]["item_status"] == "Rejected"


def test_ended_instance_started_by_failing_server_is_not_restarted(emulator, store):
    operator = start()
    send = operator.hook.start_instance

    def started_and_ended(*args, **named):
        instance = send(*args, **named)
        emulator.control("POST", f"procore/instances/{instance['id']}/terminate")
        raise ServerError("The server failed", status_code=500)

    operator.hook.start_instance = started_and_ended
    result = operator.execute({"task_state_store": store})

    assert (result["instance_id"], result["adopted"]) == (NEW, False)
    assert start().execute({"task_state_store": store})["instance_id"] == NEW
    assert started(emulator) == [NEW]


def test_instance_shown_late_by_failing_server_is_found_by_retry(emulator, store):
    emulator.control("POST", "faults", method="POST", path=START, status=500, json={}, after=True)
    emulator.control("POST", "faults", method="GET", path=START, skip=4, times=10**6, status=500, json={})
    with pytest.raises(AirflowFailException, match="OutcomeUnknown.*item 5002"):
        start().execute({"task_state_store": store})
    emulator.control("DELETE", "faults")
    emulator.control("POST", f"procore/instances/{NEW}/terminate")

    assert start().execute({"task_state_store": store})["instance_id"] == NEW
    assert started(emulator) == [NEW]


def test_retry_after_termination_by_a_kill_reports_no_outcome(emulator, store):
    operator = start(wait_for_completion=True, cancel_on_kill=True, deferrable=True)
    with pytest.raises(TaskDeferred):
        operator.execute({"task_state_store": store})
    operator.on_kill()

    with pytest.raises(AirflowFailException, match="user 90001 .* terminated .* killed try"):
        start(wait_for_completion=True, cancel_on_kill=True).execute({"task_state_store": store})
    assert started(emulator) == [NEW]


def as_cleared(store, clears: int) -> dict:
    """Return the context of a task that was cleared so many times."""
    ti = SimpleNamespace(try_number=1 + clears, max_tries=clears)
    return {"ti": ti, "task": SimpleNamespace(retries=0), "task_state_store": store}


@pytest.mark.parametrize("parameters", [{}, {"on_active_instance": "fail"}])
def test_cleared_task_may_terminate_what_it_started_before(emulator, store, monkeypatch, parameters):
    waiting = {"wait_for_completion": True, "cancel_on_kill": True, **parameters}
    deferred(start(**waiting), as_cleared(store, 0))
    trigger = deferred(start(**waiting), as_cleared(store, 1)).trigger

    kill_while_deferred(trigger, monkeypatch)

    assert started(emulator) == [NEW]
    assert state_of(emulator, NEW)["state"] == "terminated"
    with pytest.raises(AirflowFailException, match="user 90001 .* terminated .* killed try"):
        start(**waiting).execute_complete(as_cleared(store, 1), first_event(trigger))


def test_cleared_task_terminates_no_instance_of_another_user(emulator, store, monkeypatch):
    waiting = {"wait_for_completion": True, "cancel_on_kill": True}
    deferred(start(**waiting), as_cleared(store, 0))
    emulator.control("POST", f"procore/instances/{NEW}/terminate")
    emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="5002")

    trigger = deferred(start(**waiting), as_cleared(store, 1)).trigger
    kill_while_deferred(trigger, monkeypatch)

    assert trigger.resume_kwargs == {"adopted": True}
    assert state_of(emulator, trigger.instance_id)["state"] == "in_progress"


@pytest.mark.parametrize("parameters", [{"poll_interval": 0}, {"wait_timeout": -1}])
def test_a_wait_that_cannot_be_is_rejected_before_the_start(emulator, store, parameters):
    with pytest.raises(ConfigurationError, match=next(iter(parameters))):
        start(wait_for_completion=True, **parameters).execute({"task_state_store": store})
    assert writes(emulator) == []


# --- malformed responses ---

SHOWS = rf"/instances/{INSTANCE}(/history)?$"
MALFORMED_RESPONSES = [{"json": {}}, {"json": {"data": {}}}, {"json": {"error": "busy"}}, {"body": "<html></html>"}]


def set_flags(emulator, **values) -> None:
    emulator.control("PATCH", "flags", **values)


def respond_malformed(emulator, path: str, response: dict, *, after: bool, times: int = 1) -> None:
    emulator.control("POST", "faults", method="POST", path=path, status=200, after=after, times=times, **response)


def reject_reads(emulator, status: int, path: str = SHOWS, skip: int = 1) -> None:
    emulator.control("POST", "faults", method="GET", path=path, skip=skip, times=10**6, status=status, json={})


def by_another_user(emulator, monkeypatch, item_id: str = "5002") -> None:
    """Let a person start the item's workflow while the operator's own start is lost."""

    def lost(*args, **kwargs):
        emulator.control("POST", "procore/instances", tool_type=TOOL, item_id=item_id)
        raise OutcomeUnknown("The response was lost")

    monkeypatch.setattr(ProcoreHook, "start_instance", lost)


@pytest.mark.parametrize("build", [terminate, restart, refresh, add])
def test_instance_of_another_item_is_left_alone(emulator, store, build):
    set_flags(emulator, filters="ignored")
    emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="5002")
    emulator.control("POST", "procore/instances", tool_type="prequalification", item_id="5001", project_id=None)
    block(emulator)

    result = build(item_id="5001", tool_type=TOOL).execute({"task_state_store": store})

    assert result["item_id"] == "5001"
    assert state_of(emulator, NEW)["state"] == "in_progress"
    assert all(f"/{NEW}/" not in request["path"] for request in writes(emulator))


def test_start_adopts_no_instance_of_another_item_or_tool(emulator, store):
    set_flags(emulator, filters="ignored")
    emulator.control("POST", "procore/instances", tool_type="generic_tool_item", item_id="5002")

    result = start().execute({"task_state_store": store})

    assert (result["adopted"], result["item_id"], started(emulator)) == (False, "5002", [result["instance_id"]])


@pytest.mark.parametrize("creator", ["present", "absent"])
@pytest.mark.parametrize("who", ["own", "other"])
def test_lost_start_is_claimed_only_by_its_creator(emulator, store, monkeypatch, creator, who):
    set_flags(emulator, created_by=creator)
    if who == "own":
        lose_responses(emulator, "after", START)
    else:
        by_another_user(emulator, monkeypatch)
    operator = start(confirm_timeout=0, wait_for_completion=True, cancel_on_kill=True, deferrable=True)

    trigger = deferred(operator, {"task_state_store": store}).trigger
    operator.on_kill()
    kill_while_deferred(trigger, monkeypatch)

    is_own = (creator, who) == ("present", "own")
    assert trigger.resume_kwargs == {"adopted": not is_own}
    assert state_of(emulator, NEW)["state"] == ("terminated" if is_own else "in_progress")


@pytest.mark.parametrize(("creator", "who"), [("present", "other"), ("absent", "other"), ("absent", "own")])
def test_lost_start_by_an_unknown_user_is_unknown_or_adopted(emulator, store, monkeypatch, creator, who):
    set_flags(emulator, created_by=creator)
    if who == "own":
        lose_responses(emulator, "after", START)
    else:
        by_another_user(emulator, monkeypatch)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown.*5002"):
        start(confirm_timeout=0, on_active_instance="fail").execute({"task_state_store": store})


@pytest.mark.parametrize("status", ["400", "409", "422", "existing"])
def test_start_that_was_too_late_adopts_the_instance(emulator, store, monkeypatch, status):
    set_flags(emulator, active_instance=status)
    send = ProcoreHook.start_instance

    def too_late(hook, *args, **kwargs):
        emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="5002")
        return send(hook, *args, **kwargs)

    monkeypatch.setattr(ProcoreHook, "start_instance", too_late)

    result = start().execute({"task_state_store": store})

    assert (result["instance_id"], result["adopted"]) == (NEW, True)
    assert started(emulator) == []


@pytest.mark.parametrize("status", [403, 404, 500])
def test_lost_start_that_cannot_be_read_is_an_unknown_outcome(emulator, store, status):
    lose_responses(emulator, "after", START)
    reject_reads(emulator, status, START, skip=4)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown.*item 5002"):
        start(confirm_timeout=0).execute({"task_state_store": store})
    assert started(emulator) == [NEW]


def test_started_instance_is_reported_though_it_cannot_be_read(emulator, store):
    reject_reads(emulator, 500, f"/instances/{NEW}$", skip=0)

    result = start().execute({"task_state_store": store})

    assert (result["instance_id"], result["step"], result["adopted"]) == (NEW, "Budget Check", False)


@pytest.mark.sample(3)
@pytest.mark.parametrize("malformed", MALFORMED_RESPONSES)
@pytest.mark.parametrize("takes_effect", [True, False])
@pytest.mark.parametrize(("build", "action"), [(terminate, "terminate"), (restart, "restart"), (add, "add_assignees")])
def test_undocumented_response_is_resolved_by_reading(emulator, store, build, action, takes_effect, malformed):
    path = "/additional_assignees$" if action == "add_assignees" else f"/{action}$"
    respond_malformed(emulator, path, malformed, after=takes_effect, times=9)
    operator = build(confirm_timeout=0)

    if takes_effect:
        operator.execute({"task_state_store": store})
    else:
        with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
            operator.execute({"task_state_store": store})
    assert len(effects(emulator, action)) == takes_effect


@pytest.mark.parametrize("takes_effect", [True, False])
def test_undocumented_response_to_a_refresh_is_resolved_by_reading(emulator, store, takes_effect):
    block(emulator)
    respond_malformed(emulator, "/refresh$", {"json": {}}, after=takes_effect)

    result = refresh().execute({"task_state_store": store})

    assert (result["state"], result["refreshes"]) == ("in_progress", 1 if takes_effect else 2)
    assert len(effects(emulator, "refresh")) == 1


def test_end_that_is_empty_in_the_response_is_not_an_end(emulator, store):
    shown = {"data": {"id": INSTANCE, "item_id": "5001", "ended_at": ""}}
    respond_malformed(emulator, "/terminate$", {"json": shown}, after=False)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        terminate(confirm_timeout=0).execute({"task_state_store": store})


def test_instance_with_an_empty_end_is_terminated(emulator, store, monkeypatch):
    shown = ProcoreHook.get_instance

    def with_empty_end(*args, **kwargs):
        instance = shown(*args, **kwargs)
        return {**instance, "ended_at": instance["ended_at"] or ""}

    monkeypatch.setattr(ProcoreHook, "get_instance", with_empty_end)

    assert terminate().execute({"task_state_store": store})["already_ended"] is False
    assert len(effects(emulator, "terminate")) == 1


@pytest.mark.sample(3)
@pytest.mark.parametrize("status", [403, 404, 500])
@pytest.mark.parametrize(
    ("build", "path"),
    [
        (terminate, "/terminate$"),
        (restart, "/restart$"),
        (refresh, "/refresh$"),
        (add, "/additional_assignees$"),
    ],
)
def test_lost_change_that_cannot_be_read_is_an_unknown_outcome(emulator, store, build, path, status):
    if build is refresh:
        block(emulator)
    lose_responses(emulator, "after", path, times=9)
    reject_reads(emulator, status, skip=2 if build is refresh else 1)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        build(confirm_timeout=0).execute({"task_state_store": store})


@pytest.mark.parametrize(("build", "action"), [(terminate, "terminate"), (restart, "restart")])
def test_change_that_is_lost_twice_is_found_by_reading(emulator, store, build, action):
    lose_responses(emulator, "after", f"/{action}$", times=2)

    build(confirm_timeout=0).execute({"task_state_store": store})

    assert len(effects(emulator, action)) == 1


@pytest.mark.parametrize("build", [terminate, restart])
def test_change_that_never_arrives_is_an_unknown_outcome(emulator, store, build):
    lose_responses(emulator, "before", "/(terminate|restart)$", times=2)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        build(confirm_timeout=0).execute({"task_state_store": store})
    assert state_of(emulator)["state"] == "in_progress"


def test_restart_works_where_the_user_may_not_list(emulator, store):
    emulator.control("POST", "faults", method="GET", path=START, times=9, status=403, json={})

    assert restart().execute({"task_state_store": store})["instance_id"] == NEW


# --- more assignees, malformed responses ---


def test_addition_that_the_step_does_not_show_is_an_unknown_outcome(emulator, store):
    shown = {"data": ProcoreHook().get_instance(INSTANCE)}
    respond_malformed(emulator, "/additional_assignees$", {"json": shown}, after=False)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown.*90006"):
        add(confirm_timeout=0).execute({"task_state_store": store})


@pytest.mark.parametrize("events", ["none", "response_steps"])
@pytest.mark.parametrize("lost", [True, False])
def test_addition_to_a_step_that_moves_is_found_or_unknown(emulator, store, monkeypatch, events, lost):
    set_flags(emulator, hidden_events=events)
    send = ProcoreHook.add_assignees

    def then_it_moves(hook, *args, **kwargs):
        shown = send(hook, *args, **kwargs)
        record_response(emulator, "Approve")
        if lost:
            raise OutcomeUnknown("The response was lost")
        return shown

    monkeypatch.setattr(ProcoreHook, "add_assignees", then_it_moves)
    operator = add(confirm_timeout=0, on_step_moved="succeed")

    if lost and events == "response_steps":
        with pytest.raises(AirflowFailException, match="OutcomeUnknown.*90006"):
            operator.execute({"task_state_store": store})
    else:
        result = operator.execute({"task_state_store": store})
        assert (result["added"], result["confirmed"]) == (["90006"], events == "none")
        assert add(confirm_timeout=0).execute({"task_state_store": store}) == result
    assert added(emulator) == [["90006"]]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("moves", [True, False])
def test_killed_addition_is_found_or_unknown_and_not_sent_twice(emulator, store, dies, moment, moves):
    dies(ProcoreHook, "add_assignees", moment)
    with pytest.raises(Killed):
        add(confirm_timeout=0).execute({"task_state_store": store})
    if moves:
        record_response(emulator, "Approve")

    again = add(confirm_timeout=0, on_step_moved="succeed")
    if moment == "after":
        assert again.execute({"task_state_store": store})["added"] == ["90006"]
    else:
        with pytest.raises(AirflowFailException, match="OutcomeUnknown.*90006"):
            again.execute({"task_state_store": store})
    assert len(writes(emulator)) == (1 if moment == "after" else 0)


@pytest.mark.parametrize("where", [{}, {"item_id": "5001", "tool_type": TOOL}])
def test_addition_that_cannot_be_sent_binds_nothing(emulator, store, where):
    with pytest.raises(ConfigurationError):
        add(assignees="nobody@example.com", **where).execute({"task_state_store": store})
    record_response(emulator, "Approve")

    assert add(**where).execute({"task_state_store": store})["step"] == "Director Approval"


@pytest.mark.parametrize("policy", ["fail", "skip", "succeed"])
def test_addition_to_a_step_that_moves_between_read_and_write(emulator, store, monkeypatch, policy):
    send = ProcoreHook.add_assignees

    def too_late(hook, *args, **kwargs):
        record_response(emulator, "Approve")
        return send(hook, *args, **kwargs)

    monkeypatch.setattr(ProcoreHook, "add_assignees", too_late)
    operator = add(confirm_timeout=0, on_step_moved=policy)

    if policy == "succeed":
        assert operator.execute({"task_state_store": store}) is None
    else:
        error = {"fail": AirflowFailException, "skip": AirflowSkipException}[policy]
        with pytest.raises(error, match="Director Approval"):
            operator.execute({"task_state_store": store})
    assert added(emulator) == []


def test_addition_waits_while_the_instance_is_between_two_steps(emulator, store):
    set_flags(emulator, transition="in_between", transition_delay=3600)
    record_response(emulator, "Approve")
    with pytest.raises(WorkflowsError, match="between two steps") as raised:
        add(confirm_timeout=0, on_step_moved="succeed").execute({"task_state_store": store})
    assert raised.value.retryable
    emulator.control("POST", "clock", advance=3601)

    assert add().execute({"task_state_store": store})["step"] == "Director Approval"


# --- what the log says ---


@pytest.mark.parametrize(
    ("build", "verb", "texts"),
    [
        (start, "Started", ["5002", NEW, f"{NEW}01"]),
        (terminate, "Terminated", ["5001", INSTANCE, STEP]),
        (restart, "Restarted", ["5001", INSTANCE, NEW, f"{NEW}01"]),
        (refresh, "Refreshed", ["5001", INSTANCE, STEP]),
        (add, "Added", ["5001", INSTANCE, STEP, "90006"]),
    ],
)
def test_each_effect_leaves_one_line_with_all_its_ids(emulator, store, capsys, build, verb, texts):
    if build is refresh:
        block(emulator)
    build(**({"comment": "a secret deal", "message": "a secret deal"} if build is add else {})).execute(
        {"task_state_store": store}
    )

    output = capsys.readouterr().out
    (line,) = [line for line in output.splitlines() if verb in line]
    assert all(text in line for text in [*texts, "90001"])
    assert "a secret deal" not in output


@pytest.mark.parametrize(
    "operator", [lambda: refresh(), lambda: add(assignees="90001"), lambda: start(item_id="5001"), lambda: terminate()]
)
def test_success_without_a_write_is_logged(emulator, store, capsys, operator):
    if isinstance(operator(), ProcoreTerminateInstanceOperator):
        emulator.control("POST", f"procore/instances/{INSTANCE}/terminate")

    operator().execute({"task_state_store": store})

    assert writes(emulator) == []
    assert re.search("nothing is sent|no other one is started", capsys.readouterr().out)
