"""What the operator concludes from the history of an instance, also from incomplete rows."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    InvalidRequest,
    PermissionDenied,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
from airflow_provider_workflows.operators.procore_legacy import perform_activity as operators
from tests.conftest import Store
from tests.support.killed import Killed
from tests.unit.operators.procore_legacy.test_perform_activity import (
    INSTANCE,
    JOINT,
    POST,
    perform,
    performed,
    person,
    state_of,
)

pytestmark = pytest.mark.usefixtures("airflow_connections")

HISTORIES = {"method": "GET", "path": "/workflow_activity_histories$"}
SHOW = {"method": "GET", "path": r"/workflow_instances/\d+$"}


def set_flags(emulator, **flags) -> None:
    emulator.control("PATCH", "flags", **flags)


def posts(emulator) -> int:
    return len([r for r in emulator.requests() if r["method"] == "POST" and "histories" in r["path"]])


def pin(instance_id: str = INSTANCE) -> dict:
    """Return the occurrence that an instance is in, as a sensor would pass it."""
    shown = ProcoreLegacyHook().get_instance(instance_id)
    return {"state_id": shown["current_workflow_state"]["id"], "state_set_at": shown["current_state_set_at"]}


def start(emulator, workflow: str) -> str:
    emulator.control("POST", "clock", advance=60)
    return emulator.control("POST", "procore/legacy/instances", workflow=workflow)["id"]


# --- which activity, in which state ---


@pytest.mark.parametrize("names", ["with", "without"])
def test_same_name_in_two_states_is_found_in_the_bound_state(emulator, names):
    instance_id = start(emulator, "Two Approvals Workflow")
    request = {"instance_id": instance_id, "activity": "Approve", **pin(instance_id)}
    first = perform(**request).execute({})
    set_flags(emulator, history_names=names)

    if names == "without":
        with pytest.raises(
            AirflowFailException,
            match=r"OutcomeUnknown.*It is unknown whether.*Give the activity and the role by their ids",
        ):
            perform(**request, on_state_moved="succeed").execute({})
        request = {**request, "activity": "29960"}
    again = perform(**request).execute({})

    assert (again["already_performed"], again["history_id"]) == (True, first["history_id"])
    assert len(performed(emulator)) == 1


@pytest.mark.parametrize("names", ["with", "without"])
def test_retry_without_a_store_knows_its_role_by_name(emulator, names):
    mine = {"instance_id": JOINT, "activity": "Accept", "role": "Project Manager", "retries": 0}
    first = perform(**mine).execute({})
    set_flags(emulator, history_names=names)

    assert perform(**mine).execute({})["history_id"] == first["history_id"]
    assert posts(emulator) == 1


def test_name_is_resolved_by_the_activities_at_binding(emulator, store):
    """A colleague performed it while the task was away; the history has ids only."""
    set_flags(emulator, history_names="without")
    emulator.control("POST", "faults", **POST, status=429, headers={"Retry-After": "3600"})
    with pytest.raises(WorkflowsError):
        perform().execute({"task_state_store": store})
    person(emulator, "Submit for Approval", "pat@example.com")

    assert perform().execute({"task_state_store": store})["performed_by"] == "90002"


# --- a request that was not sent ---


def test_corrected_dag_performs_the_new_activity_after_a_rejection(emulator, store):
    person(emulator, "Submit for Approval", "pat@example.com")
    rita = {"performed_by": "90003"}
    emulator.control("POST", "faults", **POST, status=422, json={"errors": "no"})
    with pytest.raises(InvalidRequest):
        perform(activity="Approve", **rita).execute({"task_state_store": store})

    result = perform(activity="Deny", **rita).execute({"task_state_store": store})

    assert result["activity"] == "Deny"
    assert performed(emulator)[-1] == ("90003", "Deny")


@pytest.mark.parametrize(
    "changed",
    [
        {"activity": "Deny"},
        {"activity": "Approve", "state_id": "18707", "state_set_at": "2020-01-01"},
        {"activity": "Approve", "instance_id": JOINT},
    ],
)
def test_corrected_dag_does_not_report_what_was_sent_as_its_own(emulator, store, dies, changed):
    person(emulator, "Submit for Approval", "pat@example.com")
    dies(ProcoreLegacyHook, "perform_activity", "after")
    with pytest.raises(Killed):
        perform(activity="Approve", performed_by="90003").execute({"task_state_store": store})

    with pytest.raises(AirflowFailException, match=r"ResponseConflict.*performed 'Approve'"):
        perform(**changed, performed_by="90003").execute({"task_state_store": store})
    assert posts(emulator) == 1


@pytest.mark.parametrize("comments", [datetime(2026, 1, 1), ["a"], 1.5, True, "None", "half \ud800"])
def test_an_unsendable_comment_is_not_an_unknown_outcome(emulator, store, comments):
    with pytest.raises(ConfigurationError, match="comments"):
        perform(comments=comments).execute({"task_state_store": store})
    assert emulator.requests() == []

    assert perform(comments=7).execute({"task_state_store": store})["comments"] == "7"


# --- occurrences ---


@pytest.mark.parametrize("value", [None, "soon"])
def test_second_occurrence_without_a_time_is_not_the_first(emulator, store, monkeypatch, value):
    """The instance does not show since when it is in its state; the history shows that it was left."""
    perform().execute({"task_state_store": Store()})
    person(emulator, "Deny")
    show = ProcoreLegacyHook.get_instance
    monkeypatch.setattr(ProcoreLegacyHook, "get_instance", lambda *a: {**show(*a), "current_state_set_at": value})

    result = perform().execute({"task_state_store": store})

    assert result["already_performed"] is False
    assert [what for _, what in performed(emulator)] == ["Submit for Approval", "Deny", "Submit for Approval"]
    person(emulator, "Deny")  # and a retry knows that this is a third occurrence
    assert perform().execute({"task_state_store": store})["already_performed"]
    assert posts(emulator) == 2


def test_occurrences_that_nothing_shows_apart_are_an_error(emulator, store):
    set_flags(emulator, legacy_state_set_at="null", history_names="without")
    perform().execute({"task_state_store": store})  # the first occurrence of all
    person(emulator, "Deny")

    with pytest.raises(UnexpectedResponse, match="two occurrences of the state cannot be distinguished"):
        perform().execute({"task_state_store": Store()})
    assert posts(emulator) == 1


def test_nothing_is_sent_where_the_state_may_have_been_left(emulator, store, monkeypatch):
    mine = {"instance_id": JOINT, "activity": "Accept", "role": "Project Manager", **pin(JOINT)}
    person(emulator, "Accept", "rita@example.com", JOINT)
    set_flags(emulator, history_names="without")
    show = ProcoreLegacyHook.get_instance
    monkeypatch.setattr(ProcoreLegacyHook, "get_instance", lambda *a: {**show(*a), "current_state_set_at": "soon"})

    with pytest.raises(UnexpectedResponse, match="unknown whether instance .* is still in the state.*'soon'"):
        perform(**mine).execute({"task_state_store": store})
    assert posts(emulator) == 0


@pytest.mark.parametrize("shown", ["given", "null"])
def test_time_of_the_state_may_be_null(emulator, store, shown):
    set_flags(emulator, legacy_state_set_at=shown)
    first = perform().execute({"task_state_store": store})

    assert perform().execute({"task_state_store": store}) == {**first, "already_performed": True}
    assert posts(emulator) == 1


@pytest.mark.parametrize(("listed", "performs"), [("until_performed", False), ("until_state_moves", True)])
def test_colleagues_row_counts_once_the_role_is_not_pending(emulator, store, listed, performs):
    set_flags(emulator, legacy_open_activities=listed)
    person(emulator, "Accept", "pat@example.com", JOINT)

    mine = {"instance_id": JOINT, "activity": "Accept", "role": "Project Manager"}
    result = perform(**mine).execute({"task_state_store": store})

    assert result["already_performed"] is not performs
    assert [who for who, _ in performed(emulator)] == ["90002", *(["90001"] if performs else [])]
    again = perform(**mine).execute({"task_state_store": store})
    assert again["already_performed"]
    assert posts(emulator) == performs


@pytest.mark.parametrize("stored", ["stored", "overridden"])
def test_activity_that_stays_open_is_not_sent_again_by_a_retry(emulator, store, stored):
    set_flags(emulator, legacy_open_activities="until_state_moves", performed_by=stored)
    mine = {"instance_id": JOINT, "activity": "Accept", "role": "Project Manager"}
    first = perform(**mine).execute({"task_state_store": store})

    assert perform(**mine).execute({"task_state_store": store}) == {**first, "already_performed": True}
    assert posts(emulator) == 1


def test_recorded_row_with_another_comment_is_a_warning(emulator, store, capsys):
    perform(comments="first").execute({"task_state_store": store})
    capsys.readouterr()

    result = perform(comments="second").execute({"task_state_store": store})

    assert result["comments"] == "first"
    output = capsys.readouterr().out
    (warning,) = [line for line in output.splitlines() if "comment" in line]
    assert "warning" in warning
    assert "first" not in output
    assert "second" not in output
    perform(comments=" first \r\n").execute({"task_state_store": store})
    assert "comment" not in capsys.readouterr().out


# --- bound only when it is the task's to perform ---


def test_task_is_not_bound_while_the_activity_is_not_open(emulator, store):
    with pytest.raises(ConfigurationError, match="'Approve' cannot be performed"):
        perform(activity="Approve", performed_by="90003").execute({"task_state_store": store})
    person(emulator, "Submit for Approval", "pat@example.com")

    assert (
        perform(activity="Approve", performed_by="90003").execute({"task_state_store": store})["activity"] == "Approve"
    )


def test_task_is_not_bound_where_its_user_may_not_perform(emulator, store):
    with pytest.raises(PermissionDenied):
        perform(performed_by="90003").execute({"task_state_store": store})
    person(emulator, "Submit for Approval", "pat@example.com")
    person(emulator, "Deny")

    assert perform().execute({"task_state_store": store})["already_performed"] is False


def test_try_that_dies_once_bound_writes_in_that_occurrence_only(emulator, store, dies):
    dies(ProcoreLegacyHook, "perform_activity", "before")
    dies(Store, "set", "after", about="occurrence")
    with pytest.raises(Killed):
        perform().execute({"task_state_store": store})
    person(emulator, "Submit for Approval", "pat@example.com")
    person(emulator, "Deny")

    assert perform().execute({"task_state_store": store})["performed_by"] == "90002"
    assert posts(emulator) == 0


# --- between two states ---


def test_moment_without_activities_is_read_again(emulator, store):
    set_flags(emulator, legacy_transition="delayed", transition_delay=0.3)
    request = {"on_state_moved": "succeed", "activity": "Approve", **pin()}
    emulator.control(
        "POST", f"procore/legacy/instances/{INSTANCE}/perform", activity="Submit for Approval", login="pat@example.com"
    )

    operator = perform(**request)
    operator.confirm_timeout = 5.0
    assert operator.execute({"task_state_store": store}) is None
    assert state_of(emulator) == "Pending Approval"


@pytest.mark.sample(3)
@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("on_state_moved", ["fail", "skip", "succeed"])
def test_instance_without_activities_has_not_ended(emulator, store, bound, on_state_moved):
    person(emulator, "Submit for Approval", "pat@example.com")
    where = pin() if bound else {}
    set_flags(emulator, legacy_transition="delayed", transition_delay=3600)
    emulator.control("POST", f"procore/legacy/instances/{INSTANCE}/perform", activity="Deny", login="rita@example.com")
    task = {"activity": "Approve", "performed_by": "90003", "on_state_moved": on_state_moved, **where}

    with pytest.raises(WorkflowsError, match="between two states") as gap:
        perform(**task).execute({"task_state_store": store})

    assert gap.value.retryable
    emulator.control("POST", "clock", advance=3600)
    assert state_of(emulator) == "Start"
    if bound:
        outcomes = {"fail": AirflowFailException, "skip": AirflowSkipException}
        if on_state_moved in outcomes:
            with pytest.raises(outcomes[on_state_moved]):
                perform(**task).execute({"task_state_store": store})
        else:
            assert perform(**task).execute({"task_state_store": store}) is None


def test_instance_without_activities_has_ended_once_it_is_quiet(emulator, store):
    person(emulator, "Submit for Approval", "pat@example.com")
    person(emulator, "Approve")
    with pytest.raises(WorkflowsError, match="between two states"):
        perform(activity="Deny", on_state_moved="skip").execute({"task_state_store": store})

    emulator.control("POST", "clock", advance=3600)  # Procore's clock counts, not this machine's
    with pytest.raises(AirflowSkipException):
        perform(activity="Deny", on_state_moved="skip").execute({"task_state_store": store})
    with pytest.raises(AirflowFailException, match="StepMoved"):
        perform(activity="Deny").execute({"task_state_store": store})


def test_colleagues_row_counts_after_the_gap_only(emulator, store):
    """Until the instance lists its activities again, it is unknown whether the role is still pending."""
    set_flags(emulator, legacy_transition="delayed", transition_delay=3600, legacy_open_activities="until_state_moves")
    where = pin()
    emulator.control(
        "POST", f"procore/legacy/instances/{INSTANCE}/perform", activity="Submit for Approval", login="pat@example.com"
    )

    assert perform(**where).execute({"task_state_store": store})["performed_by"] == "90002"
    shown = [r for r in emulator.requests() if r["method"] == "GET" and r["path"].endswith(INSTANCE)]
    assert len(shown) > 2


# --- after an unknown outcome ---


@pytest.mark.sample(3)
@pytest.mark.parametrize("status", [403, 404, 500])
@pytest.mark.parametrize("unreadable", [HISTORIES, SHOW])
def test_lost_response_ends_as_found_or_unknown(emulator, store, status, unreadable):
    emulator.control("POST", "faults", **POST, reset="after")
    emulator.control("POST", "faults", **unreadable, skip=1, times=99, status=status, json={})

    if unreadable is SHOW:  # the history alone shows it
        assert perform().execute({"task_state_store": store})["history_id"]
    else:
        for _ in range(2):  # the try, and a retry
            with pytest.raises(AirflowFailException, match=r"OutcomeUnknown.*may have been performed"):
                perform().execute({"task_state_store": store})
    emulator.control("DELETE", "faults")
    assert perform().execute({"task_state_store": store})["already_performed"]
    assert posts(emulator) == 1


@pytest.mark.sample(3)
@pytest.mark.parametrize("response", [{"status": 500}, {"status": 200, "json": {"errors": "no"}}, {"status": 204}])
@pytest.mark.parametrize("after", [True, False])
def test_undocumented_response_is_resolved_by_reading(emulator, store, response, after):
    emulator.control("POST", "faults", **POST, after=after, **response)

    if after:
        assert perform().execute({"task_state_store": store})["already_performed"] is False
    else:
        with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
            perform().execute({"task_state_store": store})
        with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
            perform().execute({"task_state_store": store})
    assert len(performed(emulator)) == after
    assert posts(emulator) == 1


@pytest.mark.parametrize(
    "other", [{"workflow_activity_id": 1}, {"workflow_instance_id": 1}, {"workflow_user_role_id": 1}]
)
def test_response_about_something_else_is_not_a_success(emulator, store, other):
    row = {"id": 1, "workflow_activity_id": 29945, "workflow_instance_id": int(INSTANCE), **other}
    emulator.control("POST", "faults", **POST, status=201, json=row)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        perform().execute({"task_state_store": store})


def test_earlier_row_in_the_response_is_not_a_success(emulator, store):
    person(emulator, "Submit for Approval", "pat@example.com")
    person(emulator, "Deny", "rita@example.com")
    earlier = ProcoreLegacyHook().list_activity_histories(INSTANCE)[-1]
    row = {"id": int(earlier["id"]), "workflow_activity_id": 29945, "workflow_instance_id": int(INSTANCE)}
    emulator.control("POST", "faults", **POST, status=201, json=row)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        perform().execute({"task_state_store": store})


def test_activity_without_a_role_is_named_and_not_performed(emulator, store, monkeypatch):
    shown = ProcoreLegacyHook().get_instance(INSTANCE)
    for activity in shown["current_workflow_activities"]:
        activity["workflow_user_role"] = None
    monkeypatch.setattr(ProcoreLegacyHook, "get_instance", lambda self, instance_id: shown)

    with pytest.raises(UnexpectedResponse, match="no role in which activity 'Submit for Approval'"):
        perform().execute({"task_state_store": store})
    assert posts(emulator) == 0


def test_row_of_a_colleague_does_not_show_what_a_killed_try_sent(emulator, store, dies):
    set_flags(emulator, legacy_open_activities="until_state_moves")
    person(emulator, "Accept", "pat@example.com", JOINT)
    mine = {"instance_id": JOINT, "activity": "Accept", "role": "Project Manager"}
    dies(ProcoreLegacyHook, "perform_activity", "before")
    with pytest.raises(Killed):
        perform(**mine).execute({"task_state_store": store})

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        perform(**mine).execute({"task_state_store": store})
    assert posts(emulator) == 0


@pytest.mark.parametrize("on_state_moved", ["fail", "skip", "succeed"])
def test_retry_after_a_lost_response_never_says_moved(emulator, store, on_state_moved):
    emulator.control("POST", "faults", **POST, reset="before")
    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        perform().execute({"task_state_store": store})
    emulator.control("POST", f"procore/legacy/instances/{INSTANCE}/terminate", login="pat@example.com")

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        perform(on_state_moved=on_state_moved).execute({"task_state_store": store})


def test_kill_while_reading_after_a_500_sends_nothing_again(emulator, store, monkeypatch):
    emulator.control("POST", "faults", **POST, status=500, after=True)

    def killed(*args, **more):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(operators, "resolve_unknown_outcome", killed)
        with pytest.raises(Killed):
            perform().execute({"task_state_store": store})

    assert perform().execute({"task_state_store": store})["already_performed"]
    assert posts(emulator) == 1


def test_rejection_stays_the_error_where_reading_fails(emulator, store):
    emulator.control("POST", "faults", **POST, status=422, json={"errors": {"comments": ["are too long"]}})
    emulator.control("POST", "faults", **SHOW, skip=1, times=99, status=500, json={})

    with pytest.raises(InvalidRequest, match="too long"):
        perform().execute({"task_state_store": store})


@pytest.mark.parametrize("arrives", [True, False])
def test_without_a_store_the_history_is_what_protects(emulator, dies, arrives):
    """As the documentation says: a killed try that did not arrive is sent again; one that did is found."""
    task = {"retries": 2, **pin()}
    dies(ProcoreLegacyHook, "perform_activity", "after" if arrives else "before")
    with pytest.raises(Killed):
        perform(**task).execute({})

    assert perform(**task).execute({})["already_performed"] is arrives
    assert len(performed(emulator)) == 1


@pytest.mark.parametrize("status", ["400", "422"])
def test_rejection_of_a_moved_state_is_a_moved_state(emulator, store, monkeypatch, capsys, status):
    set_flags(emulator, legacy_rejection=status)
    send = ProcoreLegacyHook.perform_activity

    def send_too_late(hook, *args, **kwargs):
        emulator.control("POST", f"procore/legacy/instances/{INSTANCE}/terminate", login="pat@example.com")
        return send(hook, *args, **kwargs)

    monkeypatch.setattr(ProcoreLegacyHook, "perform_activity", send_too_late)

    assert perform(on_state_moved="succeed").execute({"task_state_store": store}) is None
    output = capsys.readouterr().out
    assert f"returned {status}" in output  # the log says why nothing was performed
    assert "terminated" in output


# --- an instance by its object ---


@pytest.mark.parametrize("filters", ["honoured", "ignored"])
@pytest.mark.parametrize("shown", ["base_class", "class"])
def test_activity_of_an_object_is_performed_on_its_own_instance(emulator, store, filters, shown):
    set_flags(emulator, legacy_filters=filters, legacy_object_type=shown)
    perform(instance_id=JOINT, activity="Accept", role="Reviewer", performed_by="90003").execute({})
    of_object = {"object_type": "PurchaseOrderContract", "activity": "Accept", "role": "Reviewer"}

    again = perform(object_id="1953146", performed_by="90003", **of_object).execute({"task_state_store": store})

    assert (again["instance_id"], again["already_performed"]) == (JOINT, True)
    with pytest.raises(ConfigurationError, match="Submit for Approval"):
        perform(object_id="1953145", performed_by="90003", **of_object).execute({"task_state_store": Store()})
    assert posts(emulator) == 1


def test_object_with_two_instances_is_an_error(emulator, store):
    emulator.control("POST", "procore/legacy/instances", object_id=1953145)

    with pytest.raises(ConfigurationError, match="several workflow instances"):
        perform(object_type="Contract", object_id="1953145").execute({"task_state_store": store})
    assert posts(emulator) == 0


@pytest.mark.parametrize(("ids", "works"), [("login_information", True), ("own_beside", True), ("own", False)])
def test_colleague_is_found_by_each_spelling_of_the_directory(emulator, store, ids, works):
    set_flags(emulator, directory_ids=ids)

    if works:
        assert perform(performed_by="pat@example.com").execute({"task_state_store": store})["performed_by"] == "90002"
    else:  # an id of another kind belongs to no user; the server says so
        with pytest.raises(PermissionDenied, match="performed_by"):
            perform(performed_by="pat@example.com").execute({"task_state_store": store})
        assert performed(emulator) == []


# --- what the log and a cleared task say ---


def test_each_effect_leaves_one_line_with_what_where_and_who(emulator, store, capsys):
    result = perform(comments="a secret comment").execute({"task_state_store": store})

    output = capsys.readouterr().out
    (line,) = [line for line in output.splitlines() if "[info" in line and result["history_id"] in line]
    for text in ("Submit for Approval", INSTANCE, "1953145", "90001", result["state_before"]["set_at"]):
        assert text in line
    assert "a secret comment" not in output


def run_after(moment: datetime) -> dict:
    return {"dag_run": SimpleNamespace(run_after=moment)}


def test_cleared_task_recognises_its_own_row_after_the_state_moved(emulator, store):
    started_at = datetime.now(timezone.utc) - timedelta(minutes=1)
    first = perform().execute({"task_state_store": store, **run_after(started_at)})

    cleared = perform().execute({"task_state_store": Store(), **run_after(started_at)})

    assert (cleared["history_id"], cleared["already_performed"]) == (first["history_id"], True)
    assert posts(emulator) == 1
    person(emulator, "Approve")
    assert perform().execute({"task_state_store": Store()})["history_id"] == first["history_id"]


def test_first_try_does_not_take_another_tasks_row_for_its_own(emulator, store):
    perform().execute({"task_state_store": store})

    with pytest.raises(ConfigurationError, match="cannot be performed"):
        perform().execute({"task_state_store": Store(), "ti": SimpleNamespace(try_number=1)})
    assert perform().execute({"task_state_store": Store(), "ti": SimpleNamespace(try_number=2)})["already_performed"]


def test_row_of_an_earlier_run_or_before_a_colleague_is_not_own(emulator, store):
    perform().execute({"task_state_store": store})
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)

    with pytest.raises(ConfigurationError, match="cannot be performed"):
        perform().execute({"task_state_store": Store(), **run_after(tomorrow)})
    person(emulator, "Deny")
    person(emulator, "Submit for Approval", "pat@example.com")
    with pytest.raises(ConfigurationError, match="cannot be performed"):
        perform().execute({"task_state_store": Store()})


def test_cleared_task_performs_again_where_it_can(emulator, store):
    perform().execute({"task_state_store": store})
    person(emulator, "Deny")

    assert perform().execute({"task_state_store": Store()})["already_performed"] is False
    assert posts(emulator) == 2


def test_skip_without_a_write_says_in_the_log_why(emulator, store, capsys):
    emulator.control("POST", f"procore/legacy/instances/{INSTANCE}/terminate", login="pat@example.com")

    with pytest.raises(AirflowSkipException):
        perform(on_state_moved="skip").execute({"task_state_store": store})

    (line,) = [line for line in capsys.readouterr().out.splitlines() if "terminated at" in line]
    assert "[info" in line
