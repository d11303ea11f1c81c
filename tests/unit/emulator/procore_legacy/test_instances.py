"""The state machine and the routes of Procore's legacy workflows (v1)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.emulator.conftest import Client

INSTANCES = "/rest/v1.0/workflow_instances"
HISTORIES = "/rest/v1.0/workflow_activity_histories"
SUBMIT = {
    "workflow_activity_id": 29945,
    "workflow_instance_id": 568150,
    "workflow_user_role_id": 14301,
    "performed_by_id": 90001,
    "comments": "Please review",
}
OBJECT = {"filters[workflowed_object_type]": "PurchaseOrderContract", "filters[workflowed_object_id]": "1953145"}


def perform(legacy: Client, status: int = 201, **changed: Any) -> Any:
    body = {name: value for name, value in {**SUBMIT, **changed}.items() if value is not None}
    query = {"workflow_instance_id": changed.get("workflow_instance_id", 568150)}
    return legacy.post(HISTORIES, {"workflow_activity_history": body}, status=status, params=query)


def respond_as(emulator: Any, login: str, activity: str, instance: int = 568150) -> None:
    where = f"procore/legacy/instances/{instance}/perform"
    emulator.control("POST", where, login=f"{login}@example.com", activity=activity)


def state_of(legacy: Client, instance: int = 568150) -> str:
    found: str = legacy.get(f"{INSTANCES}/{instance}")["current_workflow_state"]["name"]
    return found


def test_the_seed_is_the_guides_instance_in_its_start_state(legacy):
    shown = legacy.get(f"{INSTANCES}/568150")

    assert shown["current_workflow_state"] == {
        "id": 18706,
        "name": "Start",
        "status": "Draft",
        "ball_in_court": [{"name": "Airflow Integration"}],
    }
    [activity] = shown["current_workflow_activities"]
    assert (activity["id"], activity["name"]) == (29945, "Submit for Approval")
    assert activity["workflow_user_role"]["id"] == 14301
    ids = {name: SUBMIT[name] for name in list(SUBMIT)[:3]}
    assert activity["perform_activity"]["data"] == {"workflow_activity_history": ids}
    assert shown["workflow"]["id"] == 3293
    assert shown["permissions"]["can_respond"] is True


def test_approval_ends_in_a_state_without_activities(emulator, legacy):
    perform(legacy)
    assert state_of(legacy) == "Pending Approval"
    respond_as(emulator, "rita", "approve")

    shown = legacy.get(f"{INSTANCES}/568150")
    assert shown["current_workflow_state"]["status"] == "Approved"
    assert (shown["current_workflow_activities"], shown["becomes_overdue_at"]) == ([], None)
    assert [row["id"] for row in legacy.get(INSTANCES)] == [568151]
    done = [(e["action"], e["via"], e["by"], e["detail"]["activity"]) for e in emulator.effects()]
    assert done == [
        ("perform_activity", "api", "90001", "Submit for Approval"),
        ("perform_activity", "user", "90003", "Approve"),
    ]


def test_a_denial_goes_back_to_the_start_as_another_occurrence(emulator, legacy):
    before = legacy.get(f"{INSTANCES}/568150")["current_state_set_at"]
    perform(legacy)
    emulator.control("POST", "clock", advance=3600)
    respond_as(emulator, "rita", "Deny")

    assert state_of(legacy) == "Start"
    assert legacy.get(f"{INSTANCES}/568150")["current_state_set_at"] > before
    assert perform(legacy)["workflow_state_name"] == "Start"


def test_a_state_of_two_roles_moves_when_both_have_performed(emulator, legacy):
    accept = {"workflow_activity_id": 29950, "workflow_instance_id": 568151}
    perform(legacy, **accept)
    assert state_of(legacy, 568151) == "Joint Review"
    perform(legacy, status=400, **accept)
    respond_as(emulator, "rita", "Accept", 568151)

    assert state_of(legacy, 568151) == "Accepted"
    assert len(emulator.effects()) == 2


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"workflow_activity_id": 29947, "workflow_user_role_id": 14304}, 400),
        ({"workflow_user_role_id": 14304}, 400),
        ({"performed_by_id": 90003}, 403),
        ({"performed_by_id": 1}, 403),
        ({"performed_by_id": None}, 400),
        ({"performed_by_id": "pat"}, 400),
        ({"workflow_instance_id": 1}, 404),
    ],
    ids=["other state", "other role", "not of the role", "no user", "missing", "no number", "no instance"],
)
def test_what_cannot_be_performed_is_rejected(emulator, legacy, changed, status):
    perform(legacy, status=status, **changed)
    assert emulator.effects() == []


def test_a_malformed_body_or_query_is_rejected(legacy):
    ids = {"workflow_instance_id": "568150"}
    legacy.post(HISTORIES, {"activity": SUBMIT}, status=400, params=ids)
    legacy.post(HISTORIES, ["activity"], status=400, params=ids)
    legacy.post(HISTORIES, {"workflow_activity_history": SUBMIT}, status=400)
    legacy.post(HISTORIES, {"workflow_activity_history": SUBMIT}, status=400, params={"workflow_instance_id": "1"})
    assert "no company" not in legacy.get(INSTANCES, status=400, company_id="many")["message"]
    legacy.get(INSTANCES, status=403, company_id="1")
    legacy.query = {}
    assert "company_id" in legacy.get(INSTANCES, status=400)["message"]


def test_an_activity_with_files_comes_as_multipart(emulator, legacy):
    fields = [(f"workflow_activity_history[{name}]", (None, str(value))) for name, value in SUBMIT.items()]
    files = [
        *fields,
        ("workflow_activity_history[attachments][]", ("quote.pdf", b"%PDF")),
        ("workflow_activity_history[attachments][]", ("site plan.png", b"PNG")),
        ("workflow_activity_history[prostore_file_ids][]", (None, "77")),
    ]

    response = legacy.send("POST", HISTORIES, params={"workflow_instance_id": "568150"}, files=files)

    assert response.status_code == 201
    assert response.json()["comments"] == "Please review"
    assert [file["name"] for file in response.json()["file_attachments"]] == [
        "quote.pdf",
        "site plan.png",
        "prostore-77",
    ]
    assert response.json()["attachments"][1] == "https://storage.example.com/site%20plan.png"
    (effect,) = emulator.effects()
    assert effect["detail"]["attachments"] == [{"name": "quote.pdf", "size": 4}, {"name": "site plan.png", "size": 3}]
    assert effect["detail"]["prostore_file_ids"] == [77]


def test_a_file_in_a_field_of_another_name_is_not_attached(legacy):
    fields = [(f"workflow_activity_history[{name}]", (None, str(value))) for name, value in SUBMIT.items()]
    files = [*fields, ("attachment", ("quote.pdf", b"%PDF"))]

    response = legacy.send("POST", HISTORIES, params={"workflow_instance_id": "568150"}, files=files)

    assert response.json()["attachments"] == []


def test_stored_files_are_named_by_their_ids(emulator, legacy):
    perform(legacy, status=400, prostore_file_ids=["a"])
    assert emulator.effects() == []

    assert len(perform(legacy, prostore_file_ids=[77, 78])["attachments"]) == 2
    assert emulator.effects()[0]["detail"]["prostore_file_ids"] == [77, 78]


def test_a_user_learns_which_activities_can_be_performed(emulator):
    with pytest.raises(RuntimeError, match="Submit for Approval \\(Project Manager\\)"):
        respond_as(emulator, "rita", "Submit for Approval")
    emulator.control("POST", "procore/legacy/instances/568150/terminate")
    with pytest.raises(RuntimeError, match="activities: none"):
        respond_as(emulator, "pat", "Submit for Approval")
    with pytest.raises(RuntimeError, match="404"):
        respond_as(emulator, "pat", "Submit for Approval", 1)


def test_a_terminated_instance_shows_its_user_and_no_actions(emulator, legacy):
    for _ in range(2):
        emulator.control("POST", "procore/legacy/instances/568150/terminate", login="pat@example.com")

    shown = legacy.get(f"{INSTANCES}/568150")
    assert shown["terminated_at"] is not None
    assert shown["terminated_by"] == {"id": 90002, "login": "pat@example.com", "name": "Pat Manager"}
    assert shown["current_workflow_activities"] == []
    perform(legacy, status=400)
    assert [row["id"] for row in legacy.get(INSTANCES)] == [568151]
    assert [effect["action"] for effect in emulator.effects()] == ["terminate"]


def test_a_person_starts_an_instance(emulator, legacy):
    started = emulator.control("POST", "procore/legacy/instances", workflow="Joint Review Workflow", object_id=77)
    assert state_of(legacy, int(started["id"])) == "Joint Review"
    another = emulator.control("POST", "procore/legacy/instances")
    assert state_of(legacy, int(another["id"])) == "Start"
    assert another["object_id"] not in ("77", "1953145", "1953146")
    assert [effect["action"] for effect in emulator.effects()] == ["start", "start"]
    with pytest.raises(RuntimeError, match="Purchase Order Approval Workflow"):
        emulator.control("POST", "procore/legacy/instances", workflow="No such workflow")


def test_an_instance_is_found_by_its_object(legacy):
    for name in ("Contract", "PurchaseOrderContract", "purchase_order_contract"):
        of_object = {**OBJECT, "filters[workflowed_object_type]": name}
        assert [row["id"] for row in legacy.get(INSTANCES, **of_object)] == [568150]
        assert legacy.get(f"{INSTANCES}/568151", **of_object)["id"] == 568150
    other = {**OBJECT, "filters[workflowed_object_type]": "WorkOrderContract"}
    assert legacy.get(INSTANCES, **other) == []
    legacy.get(f"{INSTANCES}/568150", status=404, **other)
    legacy.get(f"{INSTANCES}/568150", status=404, **{**OBJECT, "filters[workflowed_object_id]": "1"})
    legacy.get(f"{INSTANCES}/1", status=404)


def test_listing_may_be_forbidden_while_showing_is_not(emulator, legacy):
    listed = legacy.get(INSTANCES)
    emulator.control("PATCH", "flags", legacy_list="forbidden")

    for query in ({}, OBJECT):
        assert legacy.get(INSTANCES, status=403, **query)["code"] == 403
    assert [legacy.get(f"{INSTANCES}/{row['id']}") for row in listed] == listed
    assert legacy.get(f"{INSTANCES}/0", **OBJECT) == listed[0]
    perform(legacy)
    assert len(legacy.get(HISTORIES, workflow_instance_id="568150")) == 1


def test_instances_of_one_object_are_all_listed(emulator, legacy):
    again = emulator.control("POST", "procore/legacy/instances", object_id=1953145)

    assert [row["id"] for row in legacy.get(INSTANCES, **OBJECT)] == [568150, int(again["id"])]
    assert legacy.get(f"{INSTANCES}/0", **OBJECT)["id"] == 568150


# --- what no document says ---


def set_flags(emulator: Any, **flags: str) -> None:
    emulator.control("PATCH", "flags", **flags)


def test_delayed_transition_lists_no_activity_meanwhile(emulator, legacy):
    set_flags(emulator, legacy_transition="delayed")
    perform(legacy)

    between = legacy.get(f"{INSTANCES}/568150")
    assert (between["current_workflow_state"]["name"], between["current_workflow_activities"]) == ("Start", [])
    assert [row["id"] for row in legacy.get(INSTANCES)] == [568150, 568151]
    perform(legacy, status=400)
    emulator.control("POST", "clock", advance=2)
    after = legacy.get(f"{INSTANCES}/568150")
    assert after["current_workflow_state"]["name"] == "Pending Approval"
    assert after["current_state_set_at"] > between["current_state_set_at"]


def test_terminated_instance_does_not_move_on_later(emulator, legacy):
    set_flags(emulator, legacy_transition="delayed")
    perform(legacy)
    emulator.control("POST", "procore/legacy/instances/568150/terminate")
    emulator.control("POST", "clock", advance=2)

    assert state_of(legacy) == "Start"


def test_ended_instance_polls_as_the_flag_says(emulator, legacy):
    emulator.control("POST", "procore/legacy/instances/568150/terminate")

    assert legacy.get(f"{INSTANCES}/568150")["current_workflow_activities"] == []
    set_flags(emulator, legacy_ended="activities_listed")
    assert len(legacy.get(f"{INSTANCES}/568150")["current_workflow_activities"]) == 1
    perform(legacy, status=400)
    set_flags(emulator, legacy_ended="not_found")
    legacy.get(f"{INSTANCES}/568150", status=404)


def upgrade(emulator: Any, **where: Any) -> dict[str, list[str]]:
    """Upgrade a tool; by default that of the purchase orders in project 1001, which has a default preset in v2."""
    found: dict[str, list[str]] = emulator.control("POST", "procore/legacy/upgrade", **where)
    return found


def without_v2_workflow(emulator: Any) -> None:
    emulator.control("POST", "procore/presets/401", default=False)


def listed_ids(legacy: Client) -> list[int]:
    return [row["id"] for row in legacy.get(INSTANCES)]


@pytest.mark.parametrize("has_workflow", [True, False])
def test_instance_of_an_upgraded_tool_is_as_the_flag_says(emulator, legacy, has_workflow):
    perform(legacy)
    if not has_workflow:
        without_v2_workflow(emulator)
    upgrade(emulator)

    def shown_by(side: str) -> tuple[str, bool, int, int, list[int]]:
        set_flags(emulator, legacy_left_behind=side)
        shown = legacy.get(f"{INSTANCES}/568150")
        state, activities = shown["current_workflow_state"], shown["current_workflow_activities"]
        assignees = len(state["ball_in_court"])
        return state["name"], shown["terminated_at"] is not None, len(activities), assignees, listed_ids(legacy)

    both = [568150, 568151]
    assert shown_by("unchanged") == ("Pending Approval", False, 2, 1, both)
    assert shown_by("terminated") == ("Pending Approval", True, 0, 0, [])
    assert shown_by("draft") == ("Draft", False, 0, 0, both)
    set_flags(emulator, legacy_left_behind="not_found")
    legacy.get(f"{INSTANCES}/568150", status=404)
    assert listed_ids(legacy) == []


@pytest.mark.parametrize("has_workflow", [True, False])
@pytest.mark.parametrize("side", ["unchanged", "terminated", "draft", "not_found"])
def test_upgraded_instance_accepts_no_activity(emulator, legacy, side, has_workflow):
    if not has_workflow:
        without_v2_workflow(emulator)
    upgrade(emulator)
    set_flags(emulator, legacy_left_behind=side)

    perform(legacy, status=404 if side == "not_found" else 400)
    with pytest.raises(RuntimeError, match="422"):
        respond_as(emulator, "pat", "submit for approval")
    with pytest.raises(RuntimeError, match="422"):
        emulator.control("POST", "procore/legacy/instances/568150/terminate")
    assert [effect["action"] for effect in emulator.effects()] == ["upgrade"]


def test_upgrade_removes_the_history_of_moved_instances(emulator, legacy):
    row = perform(legacy)
    assert upgrade(emulator) == {"moved": ["568150", "568151"], "stuck": []}

    assert legacy.get(HISTORIES, workflow_instance_id="568150") == []
    legacy.get(f"{HISTORIES}/{row['id']}", status=404, workflow_instance_id="568150")
    assert legacy.get("/rest/v1.0/companies/4264807/workflow_permanent_logs", **OBJECT) == []
    started = {"tool_type": "purchase_order_contract", "item_id": "1953145", "project_id": "1001"}
    assert emulator.control("POST", "procore/instances", **started)["id"]


@pytest.mark.sample(3)
@pytest.mark.parametrize("side", ["unchanged", "terminated", "draft", "not_found"])
def test_upgrade_leaves_the_history_of_stuck_instances(emulator, legacy, side):
    perform(legacy)
    without_v2_workflow(emulator)
    assert upgrade(emulator) == {"moved": [], "stuck": ["568150", "568151"]}

    set_flags(emulator, legacy_left_behind=side)
    assert len(legacy.get(HISTORIES, workflow_instance_id="568150")) == 1


def test_upgrade_changes_nothing_of_ended_instances(emulator, legacy):
    perform(legacy)
    respond_as(emulator, "rita", "approve")
    emulator.control("POST", "procore/legacy/instances/568151/terminate")
    before = [legacy.get(f"{INSTANCES}/{number}") for number in (568150, 568151)]

    assert upgrade(emulator) == {"moved": [], "stuck": []}

    set_flags(emulator, legacy_left_behind="not_found")
    assert [legacy.get(f"{INSTANCES}/{number}") for number in (568150, 568151)] == before
    assert len(legacy.get(HISTORIES, workflow_instance_id="568150")) == 2


def test_upgrade_is_of_one_tool_in_one_project(emulator, legacy):
    where = "procore/legacy/instances"
    elsewhere = emulator.control("POST", where, project_id="1002")["id"]
    invoice = emulator.control("POST", where, workflow="Invoice Approval Workflow")["id"]
    foreign = emulator.control("POST", where, workflow="Invoice Approval Workflow", project_id="1002")["id"]

    upgrade(emulator)
    assert legacy.get(f"{INSTANCES}/{elsewhere}")["project"]["id"] == 1002
    assert legacy.get(f"{INSTANCES}/{invoice}")["workflow"]["class_name"] == "Requisition"
    assert upgrade(emulator, tool_type="requisition", project_id="1002") == {"moved": [], "stuck": [foreign]}
    upgraded = {row["id"]: row["upgraded"] for row in emulator.control("GET", "state")["procore_legacy"]}
    assert upgraded == {"568150": "moved", "568151": "moved", elsewhere: None, invoice: None, foreign: "stuck"}
    for again in ({"path": where}, {"path": f"{where}/many", "count": 1}, {"path": "procore/legacy/upgrade"}):
        with pytest.raises(RuntimeError, match="422"):
            emulator.control("POST", again.pop("path"), **again)
    with pytest.raises(RuntimeError, match="requisition"):
        upgrade(emulator, tool_type="drawing")


def test_upgrade_stops_a_transition_that_is_under_way(emulator, legacy):
    set_flags(emulator, legacy_transition="delayed")
    perform(legacy)
    upgrade(emulator)
    emulator.control("POST", "clock", advance=10)

    assert state_of(legacy) == "Start"


def test_performed_activity_stays_listed_where_the_flag_says(emulator, legacy):
    set_flags(emulator, legacy_open_activities="until_state_moves")
    accept = {"workflow_activity_id": 29950, "workflow_instance_id": 568151}
    perform(legacy, **accept)

    assert len(legacy.get(f"{INSTANCES}/568151")["current_workflow_activities"]) == 2
    perform(legacy, **accept)
    assert len(emulator.effects()) == 2


def test_ignored_filters_show_all_instances_and_histories(emulator, legacy):
    set_flags(emulator, legacy_filters="ignored")
    perform(legacy)

    assert [row["id"] for row in legacy.get(INSTANCES, **OBJECT)] == [568150, 568151]
    assert len(legacy.get(HISTORIES, workflow_instance_id="568151")) == 1
    legacy.get(f"{INSTANCES}/0", status=404, **OBJECT)


def test_time_type_and_status_of_an_instance_are_as_the_flag_says(emulator, legacy):
    shown = legacy.get(f"{INSTANCES}/568150")
    assert shown["current_state_set_at"]
    assert shown["workflowed_object_type"] == "Contract"
    set_flags(emulator, legacy_state_set_at="null", legacy_object_type="class", legacy_status="object")

    shown = legacy.get(f"{INSTANCES}/568150")
    assert shown["current_state_set_at"] is None
    assert shown["workflowed_object_type"] == "PurchaseOrderContract"
    assert shown["current_workflow_state"]["status"] == "Order: Draft"
    assert legacy.get(INSTANCES)[0]["current_workflow_state"]["status"] == "Draft"


def test_rejected_activity_has_the_flagged_status(emulator, legacy):
    set_flags(emulator, legacy_rejection="422")
    perform(legacy, status=422, workflow_activity_id=29947)


def test_files_go_into_the_field_of_the_flag(emulator, legacy):
    set_flags(emulator, legacy_attachments="plain")
    fields = [(f"workflow_activity_history[{name}]", (None, str(value))) for name, value in SUBMIT.items()]
    names = ("workflow_activity_history[attachments][]", "attachments[]")
    files = [*fields, *((name, (f"{number}.pdf", b"%PDF")) for number, name in enumerate(names))]

    response = legacy.send("POST", HISTORIES, params={"workflow_instance_id": "568150"}, files=files)

    assert [file["name"] for file in response.json()["file_attachments"]] == ["1.pdf"]


def test_permanent_logs_contain_what_the_flag_selects(emulator, legacy):
    perform(legacy)
    emulator.control("POST", "procore/legacy/instances/568150/terminate")
    legacy.query = {}

    def activities() -> list[str]:
        return [row["activity"] for row in legacy.get(LOGS[0], **OBJECT)]

    assert activities() == ["Submit for Approval"]
    set_flags(emulator, permanent_logs="all_events")
    assert activities() == ["Submit for Approval", "Terminated"]
    set_flags(emulator, permanent_logs="none")
    assert activities() == []


@pytest.mark.parametrize(
    ("ids", "shown"),
    [("login_information", (90003, None)), ("own_beside", (1090003, 90003)), ("own", (1090003, None))],
)
def test_directory_names_users_by_the_flagged_ids(emulator, legacy, ids, shown):
    set_flags(emulator, directory_ids=ids)

    (rita,) = legacy.get(PEOPLE, **{"filters[search]": "rita@"})

    assert (rita["id"], rita.get("login_information_id")) == shown


# --- histories ---


def test_histories_come_in_the_flagged_order_unless_sorted(emulator, legacy):
    perform(legacy)
    emulator.control("POST", "clock", advance=86400 // 24)
    respond_as(emulator, "rita", "Deny")

    def activities(**query: str) -> list[str]:
        rows = legacy.get(HISTORIES, workflow_instance_id="568150", **query)
        return [row["workflow_activity_name"] for row in rows]

    assert activities() == ["Submit for Approval", "Deny"]
    emulator.control("PATCH", "flags", legacy_history_order="newest_first")
    assert activities() == ["Deny", "Submit for Approval"]
    assert activities(sort="created_at") == ["Submit for Approval", "Deny"]
    assert activities(sort="-created_at") == ["Deny", "Submit for Approval"]
    legacy.get(HISTORIES, status=400, workflow_instance_id="568150", sort="name")


def test_a_history_row_is_shown_by_its_id_and_listed_by_its_object(legacy):
    row = perform(legacy)

    assert row["id"] == 1586809
    assert row["performed_by_name"] == "Airflow Integration"
    assert legacy.get(f"{HISTORIES}/1586809", workflow_instance_id="568150") == row
    assert legacy.get(HISTORIES, **OBJECT) == [row]
    legacy.get(f"{HISTORIES}/1586809", status=404, workflow_instance_id="568151")
    assert "workflow_instance_id" in legacy.get(HISTORIES, status=400)["message"]


def test_a_history_row_may_lack_names_and_name_another_user(emulator, legacy):
    emulator.control("PATCH", "flags", performed_by="overridden")
    row = perform(legacy)
    assert (row["performed_by_id"], row["performed_by_name"]) == (1498096, "Another User")

    emulator.control("PATCH", "flags", history_names="without")
    bare = legacy.get(f"{HISTORIES}/{row['id']}")
    assert not [name for name in bare if name.endswith("_name") or "state" in name]


def test_lists_come_in_pages(legacy):
    response = legacy.send("GET", INSTANCES, params={"per_page": "1"})

    assert [row["id"] for row in response.json()] == [568150]
    assert (response.headers["Total"], response.headers["Per-Page"]) == ("2", "1")
    following = legacy.send("GET", response.links["next"]["url"])
    assert [row["id"] for row in following.json()] == [568151]
    assert "next" not in following.links
    assert legacy.send("GET", INSTANCES).headers["Per-Page"] == "100"
    assert legacy.send("GET", INSTANCES, params={"per_page": "2000"}).status_code == 200
    legacy.get(INSTANCES, status=400, per_page="2001")


# --- permanent logs ---

LOGS = ["/rest/v1.0/companies/4264807/workflow_permanent_logs", "/rest/v1.0/projects/1001/workflow_permanent_logs"]


@pytest.mark.parametrize("logs", LOGS)
def test_the_permanent_log_of_an_object_shows_what_was_performed(emulator, legacy, logs):
    legacy.query = {}
    assert legacy.get(logs, **OBJECT) == []
    legacy.query = {"company_id": "4264807"}
    row = perform(legacy, prostore_file_ids=[77])
    emulator.control("POST", "clock", advance=86400 // 24)
    respond_as(emulator, "rita", "Deny")
    legacy.query = {}

    submitted, denied = legacy.get(logs, **OBJECT)

    where = "https://storage.example.com/prostore-77"
    assert submitted == {
        "id": row["id"],
        "activity": "Submit for Approval",
        "attachments": [{"id": 1, "name": "prostore-77", "url": where, "filename": "prostore-77"}],
        "ball_in_court_duration": "0 days",
        "comments": "Please review",
        "created_at": row["created_at"],
        "performed_by": "Airflow Integration",
        "user_role": "Project Manager",
    }
    assert (denied["activity"], denied["performed_by"], denied["attachments"]) == ("Deny", "Rita Reviewer", [])
    assert legacy.get(logs, **{**OBJECT, "filters[workflowed_object_id]": "1"}) == []
    page = legacy.send("GET", logs, params={**OBJECT, "per_page": "1", "page": "2"})
    assert (page.json(), page.headers["Total"], page.headers["Per-Page"]) == ([denied], "2", "1")


@pytest.mark.parametrize("logs", LOGS)
def test_a_permanent_log_needs_its_object(legacy, logs):
    legacy.query = {}
    rejected = legacy.get(logs, status=400)
    assert set(rejected) == {"workflowed_object_type", "workflowed_object_id"}
    rejected = legacy.get(logs, status=400, **{"filters[workflowed_object_type]": "Contract"})
    assert set(rejected) == {"workflowed_object_id"}
    legacy.get(logs, status=400, **OBJECT, per_page="2001")


def test_a_permanent_log_of_another_company_or_project_is_rejected(legacy, anonymous):
    legacy.query = {}
    legacy.get("/rest/v1.0/companies/1/workflow_permanent_logs", status=403, **OBJECT)
    legacy.get("/rest/v1.0/projects/1/workflow_permanent_logs", status=404, **OBJECT)
    for logs in LOGS:
        anonymous.get(logs, status=401, **OBJECT)


# --- the people of a company ---

PEOPLE = "/rest/v1.3/companies/4264807/users"


def test_people_are_found_by_a_part_of_login_or_name(legacy, anonymous):
    everybody = [user["id"] for user in legacy.get(PEOPLE)]
    assert everybody[:4] == [90001, 90002, 90003, 90004]
    assert legacy.get(PEOPLE, **{"filters[search]": "RITA@"}) == [
        {
            "id": 90003,
            "login": "rita@example.com",
            "email_address": "rita@example.com",
            "name": "Rita Reviewer",
            "is_active": True,
        }
    ]
    assert legacy.get(PEOPLE, **{"filters[search]": "nobody"}) == []
    page = legacy.send("GET", PEOPLE, params={"per_page": "3", "page": "2"})
    assert [user["id"] for user in page.json()] == everybody[3:6]
    assert page.headers["Total"] == str(len(everybody))
    legacy.get(PEOPLE, status=400, page="0")
    legacy.get("/rest/v1.3/companies/1/users", status=403)
    anonymous.get(PEOPLE, status=401)
