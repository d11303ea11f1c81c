"""An activity: performed once, in the state occurrence that it is pinned to."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
)
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
from airflow_provider_workflows.operators.procore_legacy import (
    ProcoreLegacyListActivityHistoriesOperator,
    ProcoreLegacyPerformActivityOperator,
)
from tests.support.killed import Killed

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_connections")]

INSTANCE = "568150"
JOINT = "568151"
POST = {"method": "POST", "path": "/workflow_activity_histories$"}


def perform(**parameters) -> ProcoreLegacyPerformActivityOperator:
    what = {"activity": "submit for approval"}
    where = {} if {"instance_id", "object_id"} & set(parameters) else {"instance_id": INSTANCE}
    return ProcoreLegacyPerformActivityOperator(task_id="act", confirm_timeout=0.2, **{**where, **what, **parameters})


def performed(emulator) -> list[tuple[str, str]]:
    """Return who did what, as the emulator recorded it."""
    effects = [e for e in emulator.effects() if e["action"] == "perform_activity"]
    return [(effect["by"], effect["detail"]["activity"]) for effect in effects]


def state_of(emulator, instance_id: str = INSTANCE) -> str:
    instances = emulator.control("GET", "state")["procore_legacy"]
    return next(instance["state"] for instance in instances if instance["id"] == instance_id)


def person(emulator, activity: str, login: str = "rita@example.com", instance_id: str = INSTANCE) -> None:
    emulator.control("POST", "clock", advance=60)  # so that no two things happen in one second
    emulator.control("POST", f"procore/legacy/instances/{instance_id}/perform", activity=activity, login=login)
    emulator.control("POST", "clock", advance=60)


def test_an_activity_is_performed_and_described(emulator, store):
    result = perform(comments="please").execute({"task_state_store": store})

    assert performed(emulator) == [("90001", "Submit for Approval")]
    assert state_of(emulator) == "Pending Approval"
    assert result == {
        "instance_id": INSTANCE,
        "object_id": "1953145",
        "object_type": "Contract",
        "project_id": "1001",
        "activity": "Submit for Approval",
        "activity_id": "29945",
        "matched_by": "name",
        "role_id": "14301",
        "history_id": result["history_id"],
        "performed_by": "90001",
        "comments": "please",
        "performed_at": result["performed_at"],
        "state_before": {
            "id": "18706",
            "name": "Start",
            "status": "Draft",
            "set_at": result["state_before"]["set_at"],
        },
        "already_performed": False,
    }


def test_the_request_has_the_format_of_the_guide(emulator, store):
    perform(comments="please").execute({"task_state_store": store})

    (sent,) = [r for r in emulator.requests() if r["method"] == "POST" and "histories" in r["path"]]
    assert sent["query"] == {"company_id": "4264807", "workflow_instance_id": INSTANCE}
    assert sent["body"] == {
        "workflow_activity_history": {
            "workflow_activity_id": 29945,
            "workflow_instance_id": 568150,
            "workflow_user_role_id": 14301,
            "performed_by_id": 90001,
            "comments": "please",
        }
    }


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"legacy_history_order": "newest_first"},
        {"performed_by": "overridden"},
        {"history_names": "without"},
        {"performed_by": "overridden", "history_names": "without"},
    ],
)
def test_a_retry_finds_the_activity_done_and_returns_the_same(emulator, store, flags):
    emulator.control("PATCH", "flags", **flags)
    first = perform().execute({"task_state_store": store})
    again = perform().execute({"task_state_store": store})

    assert performed(emulator) == [("90001", "Submit for Approval")]
    assert again == {**first, "already_performed": True}


def test_state_reached_again_by_a_retry_gets_no_second_activity(emulator, store):
    perform().execute({"task_state_store": store})
    person(emulator, "Deny")
    assert state_of(emulator) == "Start"

    again = perform().execute({"task_state_store": store})

    assert again["already_performed"]
    assert [what for _, what in performed(emulator)] == ["Submit for Approval", "Deny"]


def test_a_later_occurrence_of_the_state_does_not_count(emulator, store):
    person(emulator, "Submit for Approval", "pat@example.com")
    pending = ProcoreLegacyHook().get_instance(INSTANCE)
    person(emulator, "Deny")
    person(emulator, "Submit for Approval", "pat@example.com")
    target = {
        "activity": "Approve",
        "state_id": pending["current_workflow_state"]["id"],
        "state_set_at": pending["current_state_set_at"],
    }

    with pytest.raises(AirflowFailException, match=r"StepMoved.*has been in state 'Pending Approval' since"):
        perform(**target).execute({"task_state_store": store})
    with pytest.raises(AirflowSkipException):
        perform(**target, on_state_moved="skip").execute({"task_state_store": store})
    assert perform(**target, on_state_moved="succeed").execute({"task_state_store": store}) is None
    assert [what for _, what in performed(emulator)] == ["Submit for Approval", "Deny", "Submit for Approval"]


def test_a_colleague_of_the_same_role_was_faster(emulator, store):
    set_at = ProcoreLegacyHook().get_instance(INSTANCE)["current_state_set_at"]
    person(emulator, "Submit for Approval", "pat@example.com")

    result = perform(state_id="18706", state_set_at=set_at).execute({"task_state_store": store})

    assert (result["already_performed"], result["performed_by"]) == (True, "90002")
    assert performed(emulator) == [("90002", "Submit for Approval")]


def test_two_roles_must_perform_and_each_performs_once(emulator, store):
    mine = {"instance_id": JOINT, "activity": "Accept", "role": "Project Manager"}
    first = perform(**mine).execute({"task_state_store": store})
    assert state_of(emulator, JOINT) == "Joint Review"

    again = perform(**mine).execute({"task_state_store": store})

    assert again == {**first, "already_performed": True}
    person(emulator, "Accept", "rita@example.com", JOINT)
    assert state_of(emulator, JOINT) == "Accepted"
    assert perform(**mine).execute({"task_state_store": store})["already_performed"]
    assert [who for who, _ in performed(emulator)] == ["90001", "90003"]


@pytest.mark.parametrize("activity", ["29945", 29945, " 29945 "])
def test_an_activity_is_performed_by_its_id(emulator, store, capsys, caplog, activity):
    first = perform(activity=activity).execute({"task_state_store": store})
    assert "(matched by id)" in capsys.readouterr().out + caplog.text
    state = first["state_before"]
    again = perform(activity=activity, state_id=state["id"], state_set_at=state["set_at"]).execute({})

    assert (first["activity"], first["activity_id"], first["matched_by"]) == ("Submit for Approval", "29945", "id")
    assert (again["history_id"], again["matched_by"], again["already_performed"]) == (first["history_id"], "id", True)
    assert performed(emulator) == [("90001", "Submit for Approval")]


def test_a_retry_says_again_what_matched(emulator, store):
    first = perform(activity="29945").execute({"task_state_store": store})

    assert perform(activity="29945").execute({"task_state_store": store}) == {**first, "already_performed": True}


def test_an_activity_of_several_roles_needs_the_role(emulator, store):
    with pytest.raises(ConfigurationError, match="'Accept' is ambiguous: give its id as activity, or a role"):
        perform(instance_id=JOINT, activity="Accept").execute({"task_state_store": store})


# --- lost responses ---


def test_a_response_lost_after_the_fact_is_reconciled_by_reading(emulator, store):
    emulator.control("POST", "faults", **POST, reset="after")

    result = perform().execute({"task_state_store": store})

    assert result["activity_id"] == "29945"
    assert performed(emulator) == [("90001", "Submit for Approval")]


@pytest.mark.parametrize("response", [{"body": "<html>done</html>"}, {"json": []}])
def test_an_unreadable_response_is_reconciled_by_reading(emulator, store, response):
    emulator.control("POST", "faults", **POST, status=201, after=True, **response)

    assert perform().execute({"task_state_store": store})["activity"] == "Submit for Approval"
    assert performed(emulator) == [("90001", "Submit for Approval")]


def test_a_try_killed_while_sending_is_reconciled_by_its_retry(emulator, store, monkeypatch):
    send = ProcoreLegacyHook.perform_activity

    def send_and_die(hook: ProcoreLegacyHook, *args: str, **kwargs: str) -> dict:
        send(hook, *args, **kwargs)
        raise Killed

    monkeypatch.setattr(ProcoreLegacyHook, "perform_activity", send_and_die)
    with pytest.raises(Killed):
        perform().execute({"task_state_store": store})

    assert perform().execute({"task_state_store": store})["already_performed"]
    assert performed(emulator) == [("90001", "Submit for Approval")]


def test_a_lost_activity_is_never_sent_a_second_time(emulator, store):
    emulator.control("POST", "faults", **POST, reset="before")

    for _ in range(2):  # the try itself, and a manual retry
        with pytest.raises(AirflowFailException, match=r"OutcomeUnknown.*shows no activity 29945 since"):
            perform().execute({"task_state_store": store})
    assert performed(emulator) == []
    assert len([r for r in emulator.requests() if r["method"] == "POST" and "histories" in r["path"]]) == 1


def test_the_record_decides_when_a_response_is_a_rejection(emulator, store):
    emulator.control("POST", "faults", **POST, status=422, json={"errors": "late"}, after=True)

    assert perform().execute({"task_state_store": store})["already_performed"]
    assert performed(emulator) == [("90001", "Submit for Approval")]


def test_a_rejection_is_raised_and_may_be_retried(emulator, store):
    emulator.control("POST", "faults", **POST, status=422, json={"errors": {"comments": ["are too long"]}})

    with pytest.raises(InvalidRequest, match="comments: are too long"):
        perform().execute({"task_state_store": store})
    perform().execute({"task_state_store": store})

    assert performed(emulator) == [("90001", "Submit for Approval")]


def test_state_that_moved_during_the_request_is_a_moved_state(emulator, store, monkeypatch):
    send = ProcoreLegacyHook.perform_activity

    def send_too_late(hook: ProcoreLegacyHook, *args: str, **kwargs: str) -> dict:
        emulator.control("POST", f"procore/legacy/instances/{INSTANCE}/terminate", login="pat@example.com")
        emulator.control("POST", "faults", **POST, status=404, json={"errors": "Not Found"})
        return send(hook, *args, **kwargs)

    monkeypatch.setattr(ProcoreLegacyHook, "perform_activity", send_too_late)

    with pytest.raises(AirflowFailException, match="StepMoved.*was terminated at"):
        perform().execute({"task_state_store": store})
    assert perform(on_state_moved="succeed").execute({"task_state_store": store}) is None
    assert performed(emulator) == []


def test_call_rejected_before_any_effect_is_retried(emulator, store):
    emulator.control("POST", "faults", **POST, status=429, headers={"Retry-After": "3600"})

    with pytest.raises(RateLimited):
        perform().execute({"task_state_store": store})
    perform().execute({"task_state_store": store})

    assert performed(emulator) == [("90001", "Submit for Approval")]


def test_an_unreadable_history_leaves_the_outcome_unknown(emulator, store):
    emulator.control("POST", "faults", **POST, reset="after")
    emulator.control("POST", "faults", method="GET", path="histories$", skip=1, times=9, status=403, json={})

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        perform().execute({"task_state_store": store})
    emulator.control("DELETE", "faults")
    assert perform().execute({"task_state_store": store})["already_performed"]
    assert performed(emulator) == [("90001", "Submit for Approval")]


# --- who performs it ---


def test_a_colleague_is_named_by_login(emulator, store):
    result = perform(performed_by="Pat@Example.com").execute({"task_state_store": store})

    assert result["performed_by"] == "90002"
    assert performed(emulator) == [("90002", "Submit for Approval")]
    assert perform(performed_by="pat@example.com").execute({"task_state_store": store})["already_performed"]
    assert len(performed(emulator)) == 1


def test_unknown_login_is_named_and_nothing_is_performed(emulator, store):
    with pytest.raises(ConfigurationError, match=r"performed_by: no user .*'unknown@example.com'.* a number"):
        perform(performed_by="unknown@example.com").execute({"task_state_store": store})

    assert {request["method"] for request in emulator.requests() if "/rest/" in request["path"]} == {"GET"}
    assert performed(emulator) == []


# --- parameters ---


def test_a_user_of_another_role_is_rejected_by_the_server(emulator, store):
    with pytest.raises(PermissionDenied):
        perform(performed_by="90003").execute({"task_state_store": store})


def test_activity_that_is_not_open_is_rejected_with_candidates(emulator, store):
    with pytest.raises(ConfigurationError, match=r"'Approve' cannot be performed.*'Submit for Approval' \(id 29945"):
        perform(activity="Approve").execute({"task_state_store": store})


def test_the_instance_is_found_by_its_object_even_after_it_ended(emulator, store):
    by_object = {"object_type": "PurchaseOrderContract", "object_id": 1953145}
    assert perform(**by_object).execute({"task_state_store": store})["instance_id"] == INSTANCE
    person(emulator, "Approve")

    assert perform(**by_object).execute({"task_state_store": store})["already_performed"]
    with pytest.raises(NotFound, match="PurchaseOrderContract 4711 has no workflow"):
        perform(object_type="PurchaseOrderContract", object_id="4711").execute({})


def test_without_a_store_a_retried_task_needs_its_pin(emulator):
    with pytest.raises(ConfigurationError, match="state_id and state_set_at must be given when retries > 0"):
        perform(retries=1).execute({})
    assert emulator.requests() == []

    perform(retries=0).execute({})
    assert performed(emulator) == [("90001", "Submit for Approval")]


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"project_id": ""}, "project_id is missing"),
        ({"object_type": "None"}, "object_type is missing"),
        ({"instance_id": "1", "object_id": "2"}, "instance_id and object_id"),
        ({"instance_id": None}, "instance_id, object_id"),
        ({"object_id": "1"}, "object_type"),
        ({"activity": None}, "activity is missing"),
        ({"activity": " "}, "activity is missing"),
        ({"state_id": "1"}, "state_set_at"),
        ({"state_id": "1", "state_set_at": "soon"}, "state_set_at must be an ISO-8601 time"),
        ({"role": ""}, "role"),
        ({"performed_by": "rita"}, "performed_by must be a login information id"),
        ({"prostore_file_ids": ["7", "plan.pdf"]}, "prostore_file_ids must be ids"),
        ({"prostore_file_ids": [None]}, "prostore_file_ids must be ids"),
        ({"poll_interval": 0}, "poll_interval must be seconds or a timedelta, more than 0"),
        ({"on_state_moved": "retry"}, "on_state_moved"),
    ],
)
def test_a_bad_parameter_is_named_before_anything_is_sent(emulator, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        perform(**parameters).execute({})
    assert emulator.requests() == []


# --- histories ---


@pytest.mark.parametrize("order", ["ascending", "newest_first"])
def test_histories_come_newest_first(emulator, store, order):
    emulator.control("PATCH", "flags", legacy_history_order=order)
    perform().execute({"task_state_store": store})
    person(emulator, "Deny")

    rows = ProcoreLegacyListActivityHistoriesOperator(task_id="list", instance_id=INSTANCE).execute({})

    assert [row["workflow_activity_name"] for row in rows] == ["Deny", "Submit for Approval"]
    assert all(isinstance(row["id"], str) for row in rows)


def test_active_instances_are_listed(emulator):
    assert [instance["id"] for instance in ProcoreLegacyHook().list_instances()] == [INSTANCE, JOINT]
