"""A step that is decided in Airflow or in Procore: the first response wins, once, and the result says whose it was."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk import DAG

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.operators.procore import ProcoreApprovalOperator
from airflow_provider_workflows.operators.waiting import DEADLINE
from tests.conftest import Store
from tests.support.killed import Killed
from tests.support.required_actions import ApprovalTask
from tests.support.versions import AIRFLOW
from tests.unit.operators.procore.test_respond import (
    INSTANCE,
    STEP,
    TOOL,
    respond_as_user,
    responses,
    return_to_step,
    sent,
    set_flags,
    step_of,
)

hitl = pytest.importorskip("airflow.sdk.execution_time.hitl", reason="decisions in Airflow need 3.1")

pytestmark = [
    pytest.mark.usefixtures("airflow_connections"),
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="the operator needs Airflow 3.3"),
]

LETTERS = {"tool_type": "correspondence", "tool_subtype": "-123456789", "item_id": "9001"}


def approval(**parameters) -> ProcoreApprovalOperator:
    where = {} if {"instance_id", "item_id"} & set(parameters) else {"instance_id": INSTANCE}
    usual = {"confirm_timeout": 0.2, "poll_interval": 0.01}
    return ProcoreApprovalOperator(task_id="decide", **{**usual, **where, **parameters})


@pytest.fixture
def task_of(store, monkeypatch):
    """Return a function that makes a task of the operator's parameters."""
    return lambda **parameters: ApprovalTask(lambda: approval(**parameters), store, monkeypatch)


@pytest.fixture
def task(task_of) -> ApprovalTask:
    return task_of()


def whose(result) -> tuple:
    return result["responded_in"], result["responded_by"], result["option"]


# --- one response, in Airflow or in Procore ---


def test_request_has_the_options_the_item_and_a_link(emulator, task_of, set_connection):
    connection = emulator.connection("procore")
    connection["extra"]["item_url"] = "https://app.example.com/{project_id}/{item_id}"
    set_connection("procore_default", connection)
    task = task_of(fields={"Amount": "1,200 EUR"}, assigned_users={"id": 7, "name": "Kim"})

    task.run()

    request = task.request
    assert request["options"] == ["Approve", "Return", "Reject"]
    assert "Budget Check" in request["subject"]
    assert "5001" in request["subject"]
    assert r"1\,200 EUR" in request["body"]
    assert "(<https://app.example.com/1001/5001>)" in request["body"]
    assert request["assigned_users"] == [{"id": "7", "name": "Kim"}]
    assert request["params"]["note"]["schema"]["type"] == ["string", "null"]
    assert (task.is_listed, task.created, sent(emulator)) == (True, ["running"], 0)


def test_choice_in_airflow_is_sent_once_with_who_decided(emulator, task):
    task.run()
    assert task.click("Approve", "Within budget.") == 200

    result = task.run()

    assert responses(emulator) == [("90001", "Approve")]
    (effect,) = [e for e in emulator.effects() if e["action"] == "respond"]
    assert "Kim" in effect["detail"]["comment"]
    assert "Within budget." in effect["detail"]["comment"]
    assert result == {
        "instance_id": INSTANCE,
        "item_id": "5001",
        "project_id": "1001",
        "step": "Budget Check",
        "step_occurrence_id": STEP,
        "option": "Approve",
        "option_id": result["option_id"],
        "type": "approve",
        "matched_by": "label",
        "comment": effect["detail"]["comment"],
        "user_id": "90001",
        "already_recorded": False,
        "confirmed": True,
        "responded_in": "airflow",
        "responded_by": "Kim",
        "responded_by_id": "7",
        "responded_at": "2026-11-30T08:00:00+00:00",
        "note": "Within budget.",
        "decision": None,
    }


def test_both_formats_of_the_event_give_the_same_result(emulator, store, monkeypatch):
    results = []
    for is_click_noticed in (True, False):
        emulator.control("POST", "reset", seed="default")
        task = ApprovalTask(approval, Store(), monkeypatch)
        task.run()
        if not is_click_noticed:  # recorded before the deferral
            task.state = "running"
        task.click("Approve", "Fine.")
        if not is_click_noticed:
            task.state = "deferred"
            task.run_trigger()
        results.append(task.run())

    assert results[0] == results[1]
    assert results[0]["responded_in"] == "airflow"


def test_another_assignee_in_procore_wins_and_the_request_leaves(emulator, task_of):
    emulator.control("POST", "procore/instances", **LETTERS)
    task = task_of(**LETTERS)
    task.run()
    instance_id = task.trigger[1]["instance_id"]
    assert task.is_listed

    emulator.control("POST", f"procore/instances/{instance_id}/respond", login="rita@example.com", option="Reject")
    task.run_trigger()
    assert not task.is_listed
    result = task.run()

    assert whose(result) == ("procore", "rita@example.com", "Reject")
    assert (result["decision"]["option"], result["note"], sent(emulator)) == ("Reject", None, 0)


def test_own_user_in_procore_wins_and_nothing_is_sent(emulator, task):
    task.run()
    respond_as_user(emulator, "integration@example.com", "Reject")
    task.run_trigger()

    assert whose(task.run()) == ("procore", "integration@example.com", "Reject")
    assert sent(emulator) == 0


@pytest.mark.parametrize("policy", ["succeed", "skip", "fail"])
def test_ended_instance_ends_the_task_as_configured(emulator, task_of, policy):
    task = task_of(**({} if policy == "succeed" else {"on_step_moved": policy}))
    task.run()
    emulator.control("POST", f"procore/instances/{INSTANCE}/terminate", login="pat@example.com")
    task.run_trigger()

    if policy == "succeed":
        assert whose(task.run()) == (None, None, None)
    else:
        error = {"fail": AirflowFailException, "skip": AirflowSkipException}[policy]
        with pytest.raises(error, match="is over"):
            task.run()
    assert (sent(emulator), task.is_listed) == (0, False)


def test_override_in_procore_is_reported_with_who_overrode(emulator, task):
    task.run()
    emulator.control("POST", f"procore/instances/{INSTANCE}/override", login="pat@example.com", option="Reject")
    task.run_trigger()

    result = task.run()

    assert whose(result)[:2] == ("procore", "pat@example.com")
    assert result["decision"]["source"] == "override"


def test_step_of_all_still_waits_after_the_first_response(emulator, task_of):
    emulator.control("POST", "procore/instances", tool_type="generic_tool_item", item_id="8001")
    task = task_of(tool_type="generic_tool_item", item_id="8001")
    task.run()
    instance_id = task.trigger[1]["instance_id"]
    emulator.control("POST", f"procore/instances/{instance_id}/respond", login="rita@example.com", option="Approve")

    task.click("Reject")
    result = task.run()

    assert whose(result) == ("airflow", "Kim", "Reject")
    assert responses(emulator) == [("90003", "Approve"), ("90001", "Reject")]


@pytest.mark.parametrize("option", ["Approve", "Reject"])
@pytest.mark.parametrize("moment", ["before the read", "before the write"])
def test_click_and_response_in_the_same_second_send_one(emulator, task, monkeypatch, option, moment):
    task.run()
    task.click("Approve")
    really = ProcoreHook.respond

    def too_late(hook, *args, **kwargs):
        respond_as_user(emulator, "integration@example.com", option)
        return really(hook, *args, **kwargs)

    if moment == "before the read":
        respond_as_user(emulator, "integration@example.com", option)
    else:
        monkeypatch.setattr(ProcoreHook, "respond", too_late)
    result = task.run()

    assert whose(result) == ("procore", "integration@example.com", option)
    assert responses(emulator) == [("90001", option)]
    assert result["comment"] is None


def test_click_after_another_assignee_decided_reports_the_other(emulator, task_of):
    emulator.control("POST", "procore/instances", **LETTERS)
    task = task_of(**LETTERS)
    task.run()
    instance_id = task.trigger[1]["instance_id"]
    emulator.control("POST", f"procore/instances/{instance_id}/respond", login="rita@example.com", option="Approve")
    task.click("Reject")

    assert whose(task.run()) == ("procore", "rita@example.com", "Approve")
    assert sent(emulator) == 0


def test_second_click_changes_nothing(emulator, task):
    task.run()

    assert [task.click("Approve"), task.click("Reject", user={"id": "8", "name": "Lou"})] == [200, 409]
    assert whose(task.run()) == ("airflow", "Kim", "Approve")
    assert responses(emulator) == [("90001", "Approve")]


def test_second_click_at_the_same_moment_is_ignored(emulator, task):
    task.run()
    task.click("Approve")
    first = task.resumed_with
    assert whose(task.run()) == ("airflow", "Kim", "Approve")
    task._schedule({**first, "chosen_options": ["Reject"], "responded_by_user": {"id": "8", "name": "Lou"}})

    assert whose(task.run()) == ("airflow", "Kim", "Approve")
    assert responses(emulator) == [("90001", "Approve")]


# --- clicks that resume nothing, kills, retries and clears ---


def test_click_before_the_deferral_is_noticed_by_the_trigger(emulator, task, monkeypatch):
    really = hitl.upsert_hitl_detail

    def request_and_click(**request):
        really(**request)
        assert task.click("Approve") == 200

    monkeypatch.setattr(hitl, "upsert_hitl_detail", request_and_click)
    task.run()
    assert task.resumed_with is None

    task.run_trigger()

    assert whose(task.run()) == ("airflow", "Kim", "Approve")


def test_click_during_a_false_alarm_is_neither_wiped_nor_lost(emulator, task):
    task.run()
    # The trigger believes that the step is over, and a person clicks before the task is deferred again.
    task._schedule({"status": "done", "action": "succeed", "result": {}, "reason": "It is over.", "deadline": None})
    task.click("Approve")
    assert task.run() is None
    assert (task.state, task.created, task.wiped) == ("deferred", ["running"], 0)

    task.run_trigger()

    assert whose(task.run()) == ("airflow", "Kim", "Approve")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("about", ["choice.", "chosen_option"])
def test_killed_worker_loses_no_click_and_requests_no_second(emulator, task, dies, moment, about):
    task.run()
    task.click("Approve", "Fine.")
    dies(Store, "set", moment, about)
    with pytest.raises(Killed):
        task.run()

    result = task.run()
    if result is None:  # the choice was not stored, so the next try has deferred and the trigger finds it
        task.run_trigger()
        result = task.run()

    assert whose(result) == ("airflow", "Kim", "Approve")
    assert (responses(emulator), len(task.created), task.wiped) == ([("90001", "Approve")], 1, 0)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_worker_killed_while_it_sends_still_responds_once(emulator, task, dies, moment):
    task.run()
    task.click("Approve")
    dies(ProcoreHook, "respond", moment)
    with pytest.raises(Killed):
        task.run()

    assert whose(task.run()) == ("airflow", "Kim", "Approve")
    assert responses(emulator) == [("90001", "Approve")]


def test_lost_response_is_recognized_by_its_comment(emulator, task, dies):
    task.run()
    task.click("Approve")
    dies(ProcoreHook, "respond", "before")
    with pytest.raises(Killed):
        task.run()
    emulator.control(
        "POST",
        f"procore/instances/{INSTANCE}/respond",
        login="integration@example.com",
        option="Approve",
        comment="Responded in Procore.",
    )

    result = task.run()

    assert whose(result) == ("procore", "integration@example.com", "Approve")
    assert (result["comment"], sent(emulator)) == ("Responded in Procore.", 0)


def test_record_that_shows_no_comment_leaves_open_whose_it_is(emulator, task, dies):
    task.run()
    task.click("Approve")
    dies(ProcoreHook, "respond", "before")
    with pytest.raises(Killed):
        task.run()
    respond_as_user(emulator, "integration@example.com", "Approve")

    assert task.run()["responded_in"] == "unknown"


def test_retry_after_a_failed_wait_reuses_the_request(emulator, task):
    task.run()
    task._schedule({"status": "error", "error": "PermissionDenied", "message": "No access", "deadline": None})
    with pytest.raises(Exception, match="No access"):
        task.run()

    assert task.run() is None
    task.click("Return")

    assert whose(task.run()) == ("airflow", "Kim", "Return")
    assert task.created == ["running"]


def test_server_that_fails_makes_the_retry_send_the_same_choice(emulator, task):
    emulator.control("POST", "faults", method="POST", path="/responses$", status=500, json={}, times=2)
    task.run()
    task.click("Approve")
    for _ in range(2):
        with pytest.raises(Exception, match="500"):
            task.run()

    assert whose(task.run()) == ("airflow", "Kim", "Approve")
    assert (responses(emulator), task.created) == ([("90001", "Approve")], ["running"])


def test_cleared_task_requests_the_decision_again(emulator, task):
    task.run()
    task.click("Approve")
    task.clear()  # before it was sent

    assert task.run() is None
    assert (task.is_listed, sent(emulator)) == (True, 0)
    task.click("Reject")

    assert whose(task.run()) == ("airflow", "Kim", "Reject")
    assert responses(emulator) == [("90001", "Reject")]


@pytest.mark.parametrize("change", ["occurrence", "fields", "users"])
def test_cleared_task_never_shows_another_request_than_its_own(emulator, task_of, change):
    task = task_of()
    task.run()
    if change == "occurrence":
        task.click("Approve")
        task.run()
        return_to_step(emulator)
    else:
        changed = {"fields": {"Amount": 2}} if change == "fields" else {"assigned_users": [{"id": "9", "name": "Al"}]}
        task.build = lambda: approval(**changed)
    before = sent(emulator)
    task.clear()

    with pytest.raises(ConfigurationError, match="new DAG run"):
        task.run()
    assert (len(task.created), sent(emulator)) == (1, before)


def test_retry_waits_with_the_text_of_the_first_try(emulator, task_of):
    task = task_of(fields={"Amount": 1})
    task.run()
    task.retry()
    task.build = lambda: approval(fields={"Amount": 2})

    assert task.run() is None
    assert (task.state, len(task.created)) == ("deferred", 1)


def test_retry_with_another_occurrence_is_an_error(emulator, task_of):
    task = task_of(step_occurrence_id=STEP)
    task.run()
    task.retry()
    respond_as_user(emulator, "integration@example.com", "Approve")
    return_to_step(emulator)
    task.build = lambda: approval(step_occurrence_id=step_of(emulator)["step_occurrence_id"])

    with pytest.raises(ConfigurationError, match=STEP):
        task.run()
    assert len(task.created) == 1


def test_retry_decides_about_the_occurrence_of_the_first_try(emulator, task):
    task.run()
    task.retry()
    respond_as_user(emulator, "integration@example.com", "Approve")
    return_to_step(emulator)
    assert step_of(emulator)["step"] == "Budget Check"

    result = task.run()

    assert (whose(result), result["step_occurrence_id"]) == (("procore", "integration@example.com", "Approve"), STEP)
    assert len(task.created) == 1


# --- the wait ---


def test_deadline_is_an_error_that_is_not_retried(emulator, task):
    task.run()
    task.trigger[1]["deadline"] = "2026-01-01T00:00:00+00:00"
    task.run_trigger()

    with pytest.raises(AirflowFailException, match="no response within"):
        task.run()
    assert (task.is_listed, sent(emulator)) == (False, 0)


def test_click_just_in_time_counts_after_the_deadline(emulator, task_of, store):
    task = task_of(wait_timeout=60)
    task.run()
    task.click("Approve")
    store.set(f"{DEADLINE}.0", "2026-01-01T00:00:00+00:00")

    assert whose(task.run()) == ("airflow", "Kim", "Approve")


def test_retry_after_the_deadline_does_not_ask_again(emulator, task_of, store):
    task = task_of(wait_timeout=60)
    task.run()
    task.retry()
    store.set(f"{DEADLINE}.0", "2026-01-01T00:00:00+00:00")

    with pytest.raises(AirflowFailException, match="no response within"):
        task.run()
    assert len(task.created) == 1


@pytest.mark.parametrize("has_response", [True, False])
def test_deferral_that_no_triggerer_ended_reads_procore_once(emulator, task, store, has_response):
    task.run()
    store.set(f"{DEADLINE}.0", "2026-01-01T00:00:00+00:00")
    resume = ("__fail__", {"error": "Trigger timeout"}, task.context())
    if has_response:
        respond_as_user(emulator, "integration@example.com", "Reject")
        assert whose(task.build().resume_execution(*resume)) == ("procore", "integration@example.com", "Reject")
    else:
        with pytest.raises(AirflowFailException, match="no response within"):
            task.build().resume_execution(*resume)


# --- dry runs ---


@pytest.mark.parametrize("is_turned_off", [False, True])
def test_dry_run_requests_a_choice_and_returns_its_calls(emulator, task_of, is_turned_off):
    task = task_of(dry_run=True)
    task.run()
    assert "Dry run" in task.request["body"]
    if is_turned_off:  # the page stated that nothing is sent
        task.build = approval
    task.click("Approve", "Fine.")

    result = task.run()

    (call,) = result["would_send"]
    assert call["path"].endswith("/responses")
    assert "Kim" in call["body"]["response"]["comment"]
    assert (result["dry_run"], result["option"]) == (True, "Approve")
    assert (sent(emulator), responses(emulator)) == (0, [])


def test_dry_run_by_the_connection_reports_a_response_in_procore(emulator, task, set_connection):
    connection = emulator.connection("procore")
    connection["extra"]["dry_run"] = True
    set_connection("procore_default", connection)
    task.run()
    respond_as_user(emulator, "integration@example.com", "Reject")
    task.run_trigger()

    result = task.run()

    assert (whose(result), result["would_send"]) == (("procore", "integration@example.com", "Reject"), [])


def test_cleared_task_never_shows_the_request_of_a_dry_run(emulator, task_of):
    task = task_of(dry_run=True)
    task.run()
    task.clear()
    task.build = approval

    with pytest.raises(ConfigurationError, match="new DAG run"):
        task.run()


# --- its parameters ---


def test_option_that_is_gone_is_named_with_those_there_are(emulator, task, monkeypatch):
    task.run()
    task.click("Return")
    shown = ProcoreHook.get_instance

    def without_return(*args, **kwargs):
        instance = shown(*args, **kwargs)
        options = instance["current_step_occurrence"]["available_response_options"]
        instance["current_step_occurrence"]["available_response_options"] = [
            option for option in options if option["name"] != "Return"
        ]
        return instance

    monkeypatch.setattr(ProcoreHook, "get_instance", without_return)

    with pytest.raises(ConfigurationError, match="'Return' matches no option.*'Approve'"):
        task.run()
    assert sent(emulator) == 0


def test_options_with_the_same_label_are_distinguished(emulator, task, monkeypatch):
    shown = ProcoreHook.get_instance

    def same_labels(*args, **kwargs):
        instance = shown(*args, **kwargs)
        for option in (instance.get("current_step_occurrence") or {}).get("available_response_options") or []:
            option["name"] = "OK" if option["name"] in ("Approve", "Reject") else option["name"]
        return instance

    monkeypatch.setattr(ProcoreHook, "get_instance", same_labels)
    task.run()
    first, second, third = task.request["options"]
    assert second == "Return"
    assert first != third

    task.click(third)
    monkeypatch.setattr("airflow_provider_workflows.operators.procore.approval.poll_until", lambda *args: None)
    task.run()

    assert responses(emulator) == [("90001", "Reject")]


def test_step_of_another_user_is_an_error_before_a_request(emulator, task):
    respond_as_user(emulator, "integration@example.com", "Approve")

    with pytest.raises(ConfigurationError, match="Director Approval.*dana@example.com"):
        task.run()
    assert (task.created, task.request) == ([], None)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"instance_id": "1", "item_id": "2"}, "instance_id and item_id"),
        ({"instance_id": None}, "instance_id, item_id"),
        ({"item_id": "5001"}, "tool_type"),
        ({"step_occurrence_id": ""}, "step_occurrence_id"),
        ({"on_step_moved": "retry"}, "on_step_moved"),
        ({"fields": ["Amount"]}, "fields"),
        ({"fields": ""}, "fields"),
        ({"fields": {" ": 1}}, "fields"),
        ({"assigned_users": ["kim"]}, "assigned_users"),
        ({"assigned_users": [{"id": "7"}]}, "assigned_users"),
        ({"assigned_users": {"id": "", "name": "Kim"}}, "assigned_users"),
        ({"poll_interval": 0}, "poll_interval"),
        ({"wait_timeout": -1}, "wait_timeout"),
    ],
)
def test_bad_parameter_is_named_before_anything_is_sent(emulator, task_of, parameters, named):
    task = task_of(**parameters)

    with pytest.raises(ConfigurationError, match=named):
        task.run()
    assert (emulator.requests(), task.created) == ([], [])


FIELDS_OF_THE_DAG = {
    "Amount": "1,200",
    "Cost code": "12.10",
    "Lots": ["1,200", "0x10"],
    "Orders": 3,
    "Note": "{{ params.note }}",
}


def natively_rendered(fields, **params):
    """Return the operator as Airflow renders it in a DAG with native objects."""
    with DAG("any", schedule=None, render_template_as_native_obj=True):
        operator = approval(fields=fields)
    operator.render_template_fields({"params": params})
    return operator


def test_request_shows_a_text_of_the_dag_as_it_is(emulator, task_of):
    task = task_of()
    task.build = lambda: natively_rendered(FIELDS_OF_THE_DAG, note="On budget")

    task.run()

    for row in (r"1\,200", r"12\.10", r"0x10", "3", "On budget"):
        assert row in task.request["body"]
    assert "(" not in task.request["body"].split("Orders")[0].split("Amount")[1]


@pytest.mark.parametrize("text", ["1,200", "12.10", "1e3", "[5]"])
@pytest.mark.parametrize("fields", [{"Amount": "{{ params.text }}"}, {"Amount": ["{{ params.text }}"]}])
def test_template_whose_text_is_unknown_is_not_shown(emulator, task_of, fields, text):
    task = task_of()
    task.build = lambda: natively_rendered(fields, text=text)

    with pytest.raises(ConfigurationError, match=r"fields: .*'Amount'.*filters string and tojson"):
        task.run()
    assert (emulator.requests(), task.created) == ([], [])


@pytest.mark.parametrize(("text", "shown"), [("1,200", r"1\,200"), ("12.10", r"12\.10"), (12.5, r"12\.5")])
def test_template_that_ends_with_tojson_keeps_its_text(emulator, task_of, text, shown):
    task = task_of()
    task.build = lambda: natively_rendered({"Amount": "{{ params.text | string | tojson }}"}, text=text)

    task.run()

    assert shown in task.request["body"]


def test_template_of_all_fields_may_not_change_a_text(emulator, task_of):
    task = task_of()
    task.build = lambda: natively_rendered("{'Amount': {{ params.text }} }", text="12.10")

    with pytest.raises(ConfigurationError, match="fields: .*'Amount'"):
        task.run()


@pytest.mark.parametrize("name", ["option", "option_type", "comment", "files", "attachments", "deferrable"])
def test_choices_of_a_person_are_not_parameters(name):
    with pytest.raises(TypeError, match=name):
        approval(**{name: "x"})


def test_step_is_bound_by_its_item_and_found_again(emulator, task_of):
    task = task_of(item_id=5001, tool_type=TOOL)
    task.run()
    task.click("Approve")

    assert task.run()["instance_id"] == INSTANCE


@pytest.mark.parametrize("flags", [{"hidden_events": "responses"}, {"history_step_id": "step"}, {"history": "absent"}])
def test_choice_is_sent_in_every_position_of_the_contracts_gaps(emulator, task, flags):
    set_flags(emulator, **flags)
    task.run()
    task.click("Approve")

    assert whose(task.run()) == ("airflow", "Kim", "Approve")
