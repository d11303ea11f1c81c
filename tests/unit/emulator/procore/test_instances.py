"""The state machine and the routes of Procore Workflows v2."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.unit.emulator.conftest import COMPANY, PROJECT, Client

INSTANCES = f"{PROJECT}/workflows/instances"
INSTANCE = f"{INSTANCES}/700001"
TOOL = "purchase_order_contract"
FILTER = {"filters[tool_type]": TOOL}


def step_of(procore: Client, instance: str = INSTANCE) -> dict[str, Any]:
    found: dict[str, Any] = procore.get(instance)["data"]["current_step_occurrence"]
    return found


def respond_with(procore: Client, option: str, comment: str | None = None, status: int = 204, **changed: Any) -> Any:
    """Respond to the current step of the instance of the default seed."""
    step = step_of(procore) or {"id": "1", "available_response_options": []}
    options = {o["name"]: o["id"] for o in step["available_response_options"]}
    response = {
        "current_step_occurrence_id": step["id"],
        "selected_response_option_id": options.get(option, "1"),
        "comment": comment,
        "attachments": {},
        **changed,
    }
    return procore.post(f"{INSTANCE}/responses", {"response": response}, status=status)


def respond_as(emulator: Any, login: str, option: str, instance: str = "700001") -> None:
    emulator.control("POST", f"procore/instances/{instance}/respond", login=f"{login}@example.com", option=option)


def history_of(procore: Client) -> dict[str, Any]:
    found: dict[str, Any] = procore.get(f"{INSTANCE}/history")["data"]
    return found


def step_names(procore: Client) -> list[str]:
    return [event["details"].get("name", event["type"]) for event in history_of(procore)["history"]]


def reasons(rejected: dict[str, Any]) -> list[str]:
    return [detail["reason_code"] for detail in rejected["error"]["details"]]


# --- the way of an instance ---


def test_seed_waits_at_budget_check_for_the_integration_user(procore):
    shown = procore.get(INSTANCE)["data"]

    assert (shown["item_id"], shown["tool_type"], shown["ended_at"]) == ("5001", TOOL, None)
    step = shown["current_step_occurrence"]
    assert step["name"] == "Budget Check"
    assert [o["assignee"]["login"] for o in step["response_occurrences"]] == ["integration@example.com"]
    assert [(o["name"], o["response_type"]) for o in step["available_response_options"]] == [
        ("Approve", "approve"),
        ("Return", "return"),
        ("Reject", "reject"),
    ]
    assert shown["workflow_manager"]["login"] == "pat@example.com"
    assert len({u["id"] for u in shown["all_assignees"]}) == 3


def test_approval_goes_through_the_conditional_to_the_end(emulator, procore):
    respond_with(procore, "Approve", "Within budget")
    assert step_of(procore)["name"] == "Director Approval"
    respond_as(emulator, "dana", "Approve")

    shown = procore.get(INSTANCE)["data"]
    assert shown["current_step_occurrence"] is None
    assert shown["ended_at"] is not None
    assert step_names(procore) == [
        "WorkflowStarted",
        "Budget Check",
        "Over 10,000?",
        "Director Approval",
        "Approved",
    ]
    history = history_of(procore)
    assert (history["status"], history["current_step_index"]) == ("complete", None)
    end = history["history"][-1]
    assert (end["type"], end["details"]["end_type"], end["details"]["status"]) == ("EndStep", "success", "Approved")
    budget_check = history["history"][1]["details"]
    assert budget_check["overall_response"] == "Approve"
    assert [(r["login"], r["response"], r["comment"]) for r in budget_check["responses"]] == [
        ("integration@example.com", "Approve", "Within budget")
    ]
    effects = [(e["action"], e["by"], e["via"], e["detail"]["option"]) for e in emulator.effects()]
    assert effects == [("respond", "90001", "api", "Approve"), ("respond", "90004", "user", "Approve")]


def test_a_rejection_ends_the_instance(procore):
    respond_with(procore, "Reject")

    assert step_names(procore)[-1] == "Rejected"
    assert history_of(procore)["history"][-1]["details"]["end_type"] == "failure"


def test_a_returned_step_is_another_step_occurrence(emulator, procore):
    first = step_of(procore)
    respond_with(procore, "Return")
    assert step_of(procore)["name"] == "Correct Order"
    respond_as(emulator, "pat", "resubmit")

    again = step_of(procore)
    assert (again["name"], again["step_uuid"]) == (first["name"], first["step_uuid"])
    assert again["id"] != first["id"]
    assert again["response_occurrences"][0]["submitted_at"] is None

    respond_with(procore, "Approve")
    respond_as(emulator, "dana", "Return")
    assert step_of(procore)["name"] == "Budget Check"
    assert len({event["details"].get("id") for event in history_of(procore)["history"]}) == 7


def test_the_item_status_follows_the_steps(emulator, procore):
    def status() -> str:
        found: str = emulator.control("GET", "state")["procore"][0]["item_status"]
        return found

    seen = [status()]
    respond_with(procore, "Approve")
    seen.append(status())
    respond_as(emulator, "dana", "Reject")
    seen.append(status())

    assert seen == ["Under Review", "Pending Director", "Rejected"]


@pytest.mark.parametrize(("login", "option", "ended"), [("rita", "Approve", False), ("rita", "Reject", True)])
def test_step_of_several_responders_waits_for_all_or_a_rejection(emulator, procore, login, option, ended):
    started = procore.post(INSTANCES, {"tool_type": "generic_tool_item", "item_id": "7"}, status=201)["data"]["id"]
    respond_as(emulator, login, option, started)

    assert (procore.get(f"{INSTANCES}/{started}")["data"]["ended_at"] is not None) == ended
    if not ended:
        respond_as(emulator, "integration", "Approve", started)
        assert procore.get(f"{INSTANCES}/{started}")["data"]["ended_at"] is not None


# --- responding ---


def test_identical_resubmission_is_a_no_op_and_another_conflicts(emulator, procore):
    emulator.control("PATCH", "flags", transition="delayed", transition_delay=60)
    respond_with(procore, "Approve", "Good")
    respond_with(procore, "Approve", "Good")

    assert reasons(respond_with(procore, "Approve", "Better", status=422)) == ["already_responded"]
    assert reasons(respond_with(procore, "Reject", "Good", status=422)) == ["already_responded"]
    assert len(emulator.effects()) == 1


def test_a_delayed_transition_happens_when_its_time_has_come(emulator, procore):
    emulator.control("PATCH", "flags", transition="delayed", transition_delay=60)
    respond_with(procore, "Approve")

    assert step_of(procore)["response_occurrences"][0]["submitted_at"] is not None
    assert history_of(procore)["status"] == "processing"
    emulator.control("POST", "clock", advance=61)
    assert step_of(procore)["name"] == "Director Approval"


@pytest.mark.parametrize(("named", "late"), [("when_it_moves", 60), ("when_decided", 0)])
def test_delayed_transition_has_the_time_that_the_flag_names(emulator, procore, named, late):
    flags = {"transition": "delayed", "transition_delay": 60, "transition_time": named}
    emulator.control("PATCH", "flags", **flags)
    respond_with(procore, "Approve")
    emulator.control("POST", "clock", advance=61)

    assert step_of(procore)["name"] == "Director Approval"
    first, second = (event["details"] for event in history_of(procore)["history"] if event["type"] == "ResponseStep")
    moved_at = datetime.fromisoformat(first["ended_at"].replace("Z", "+00:00"))
    decided_at = datetime.fromisoformat(first["responses"][0]["responded_at"].replace("Z", "+00:00"))
    assert (moved_at - decided_at).total_seconds() == late
    assert second["started_at"] == first["ended_at"]


def test_no_one_responds_to_a_step_that_is_about_to_move(emulator, procore):
    emulator.control("PATCH", "flags", transition="delayed", transition_delay=60)
    started = procore.post(INSTANCES, {"tool_type": "generic_tool_item", "item_id": "7"}, status=201)["data"]["id"]
    respond_as(emulator, "rita", "Reject", started)

    with pytest.raises(RuntimeError, match="stale_step"):
        respond_as(emulator, "integration", "Approve", started)


def test_a_termination_overtakes_a_delayed_transition(emulator, procore):
    emulator.control("PATCH", "flags", transition="delayed", transition_delay=60)
    respond_with(procore, "Approve")
    procore.post(f"{INSTANCE}/terminate")
    emulator.control("POST", "clock", advance=61)

    assert history_of(procore)["status"] == "terminated"
    assert "Director Approval" not in step_names(procore)


@pytest.mark.parametrize("status", [422, 404])
def test_a_step_that_is_over_is_rejected_with_either_status(emulator, procore, status):
    emulator.control("PATCH", "flags", stale_step=status)
    over = step_of(procore)["id"]
    respond_with(procore, "Approve")

    rejected = respond_with(procore, "Approve", status=status, current_step_occurrence_id=over)

    assert reasons(rejected) == ["stale_step"]


@pytest.mark.parametrize("status", [403, 422])
def test_a_user_who_is_not_an_assignee_is_rejected(emulator, procore, status):
    emulator.control("PATCH", "flags", non_assignee=str(status))
    respond_with(procore, "Return")

    assert reasons(respond_with(procore, "Resubmit", status=status)) == ["not_an_assignee"]
    assert len(emulator.effects()) == 1


@pytest.mark.parametrize("status", [422, 404, 403])
def test_an_ended_instance_rejects_with_every_status(emulator, procore, status):
    emulator.control("PATCH", "flags", ended_instance=str(status))
    respond_with(procore, "Reject")

    assert reasons(respond_with(procore, "Approve", status=status)) == ["instance_ended"]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"attachments": None}, 400),
        ({"attachments": {"upload_ids": "1"}}, 400),
        ({"selected_response_option_id": "no"}, 422),
    ],
)
def test_a_malformed_response_is_rejected(emulator, procore, changed, status):
    respond_with(procore, "Approve", status=status, **changed)
    assert emulator.effects() == []


def test_a_response_without_its_wrapper_is_rejected(procore):
    rejected = procore.post(f"{INSTANCE}/responses", {"attachments": {}}, status=400)

    assert rejected["error"]["details"][0]["source"] == "body.response"


def test_attachments_are_shown_in_the_history(procore):
    respond_with(procore, "Approve", attachments={"prostore_file_ids": ["a1"]})

    shown = history_of(procore)["history"][1]["details"]["responses"][0]["attachments"]
    assert [row["id"] for row in shown] == ["a1"]


# --- listing ---


def start_many(emulator: Any, count: int) -> list[str]:
    return [
        emulator.control("POST", "procore/instances", tool_type=TOOL, item_id=f"i{number}")["id"]
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("place", "find"),
    [
        ("body_meta_next_cursor", lambda response: response.json()["meta"]["next_cursor"]),
        ("body_pagination_next_cursor", lambda response: response.json()["pagination"]["next_cursor"]),
        ("body_links_next", lambda response: response.json()["links"]["next"]),
        ("link_header", lambda response: response.links.get("next", {}).get("url")),
    ],
)
def test_cursor_comes_back_where_the_flag_says_and_lists_all(emulator, procore, place, find):
    emulator.control("PATCH", "flags", cursor_place=place)
    expected = ["700001", *start_many(emulator, 4)]

    response = procore.send("GET", INSTANCES, params={**FILTER, "per_page": "2"})
    seen = [row["id"] for row in response.json()["data"]]
    while following := find(response):
        if following.startswith("http"):
            response = procore.send("GET", following)
        else:
            response = procore.send("GET", INSTANCES, params={**FILTER, "per_page": "2", "cursor": following})
        seen += [row["id"] for row in response.json()["data"]]

    assert seen == expected


def test_a_cursor_misses_nothing_when_rows_before_it_leave(emulator, procore):
    started = start_many(emulator, 3)
    query = {**FILTER, "filters[active]": "true", "per_page": "2"}
    cursor = procore.get(INSTANCES, **query)["meta"]["next_cursor"]
    emulator.control("POST", "procore/instances/700001/terminate")

    rest = procore.get(INSTANCES, **query, cursor=cursor)["data"]

    assert [row["id"] for row in rest] == started[1:]


@pytest.mark.parametrize("query", [{"page": "2"}, {}])
def test_pages_by_number_have_their_headers(emulator, procore, query):
    start_many(emulator, 4)
    if not query:
        emulator.control("PATCH", "flags", instances_paging="page_only")

    response = procore.send("GET", INSTANCES, params={**FILTER, "per_page": "2", **query})

    assert (response.headers["Total"], response.headers["Per-Page"]) == ("5", "2")
    expected = {"first", "prev", "next", "last"} if query else {"first", "next", "last"}
    assert set(response.links) == expected
    assert "page=3" in response.links["last"]["url"]
    assert list(response.json()) == ["data"]


def test_ten_rows_are_the_default_and_a_hundred_the_most(emulator, procore):
    start_many(emulator, 10)

    assert len(procore.get(INSTANCES, **FILTER)["data"]) == 10
    assert len(procore.get(INSTANCES, **FILTER, per_page="100")["data"]) == 11
    for wrong in ({"per_page": "101"}, {"per_page": "0"}, {"page": "0"}, {"per_page": "many"}):
        procore.get(INSTANCES, status=400, **FILTER, **wrong)


def test_a_list_needs_the_tool_type_and_either_a_cursor_or_a_page(procore):
    assert reasons(procore.get(INSTANCES, status=400)) == ["missing_parameter"]
    procore.get(INSTANCES, status=400, **FILTER, cursor="a", page="1")
    procore.get(INSTANCES, status=400, **FILTER, cursor="unknown")


@pytest.mark.parametrize(("flag", "moves"), [("moves", True), ("start_only", False)])
def test_updated_at_moves_with_each_step_or_with_the_end_only(emulator, procore, flag, moves):
    emulator.control("PATCH", "flags", updated_at=flag)

    def updated() -> str:
        [listed] = procore.get(INSTANCES, **FILTER)["data"]
        shown = procore.get(INSTANCE)["data"]
        assert listed["updated_at"] == shown["updated_at"]
        when: str = shown["updated_at"]
        return when

    started = procore.get(INSTANCE)["data"]["started_at"]
    assert updated() == started
    emulator.control("POST", "clock", advance=60)
    respond_with(procore, "Approve")
    assert (updated() > started) == moves
    emulator.control("POST", "clock", advance=60)
    respond_as(emulator, "dana", "Approve")
    assert updated() == procore.get(INSTANCE)["data"]["ended_at"] > started


def test_shared_values_change_for_one_instance_only(emulator, procore):
    ids = emulator.control("POST", "procore/instances/many", count=2)["ids"]
    first, second = (f"{INSTANCES}/{instance_id}" for instance_id in ids)
    before = {**procore.get(second)["data"], "history": procore.get(f"{second}/history")["data"]}

    step = step_of(procore, first)
    added = {"required": False, "reason": "other", "assignee_ids": ["90005"], "step_occurrence_id": step["id"]}
    procore.post(f"{first}/additional_assignees", added)
    option = step["available_response_options"][1]["id"]
    response = {"current_step_occurrence_id": step["id"], "selected_response_option_id": option, "attachments": {}}
    procore.post(f"{first}/responses", {"response": response}, status=204)
    groups = procore.get(f"{PROJECT}/workflows/presets/401")["data"]["responsible_group_memberships"]
    memberships = [{"uuid": group["responsible_group_uuid"], "login_ids": ["90003"]} for group in groups]
    update = {"responsible_group_memberships": memberships}
    procore.patch(f"{PROJECT}/workflows/presets/401/assignees", update)

    assert [occurrence["assignee"]["id"] for occurrence in step_of(procore, first)["response_occurrences"]] == ["90002"]
    assert {**procore.get(second)["data"], "history": procore.get(f"{second}/history")["data"]} == before


def test_replacement_spares_instances_with_a_response(emulator, procore):
    ids = emulator.control("POST", "procore/instances/many", count=2, tool_type="generic_tool_item")["ids"]
    respond_as(emulator, "rita", "Approve", ids[0])
    replacement = {
        "replacement_type": "permanent",
        "old_assignee_id": "90003",
        "new_assignee_ids": ["90005"],
        "modify_project_roles": False,
        "reason": "other",
    }
    procore.post(f"{COMPANY}/workflows/bulk_replace_requests", replacement, status=202)

    occurrences = [
        [
            occurrence["assignee"]["id"]
            for occurrence in step_of(procore, f"{INSTANCES}/{instance}")["response_occurrences"]
        ]
        for instance in ids
    ]
    assert occurrences == [["90001", "90003"], ["90001", "90005"]]
    assert [i["id"] for i in procore.get(INSTANCES, **{"filters[tool_type]": "generic_tool_item"})["data"]] == ids


def test_every_filter_narrows_the_list(emulator, long_lived_tokens, procore):
    pending_with_own_user, ended, for_dana = start_many(emulator, 3)
    respond_as(emulator, "integration", "Reject", ended)
    emulator.control("POST", "clock", advance=4 * 24 * 3600)
    respond_as(emulator, "integration", "Approve", for_dana)

    def ids(**filters: str) -> list[str]:
        query = {f"filters[{name}]": value for name, value in filters.items()}
        return [row["id"] for row in procore.get(INSTANCES, **FILTER, **query)["data"]]

    assert ids() == ["700001", pending_with_own_user, ended, for_dana]
    assert ids(active="true") == ["700001", pending_with_own_user, for_dana]
    assert ids(active="false") == [ended]
    assert ids(assignee_id="90001") == ["700001", pending_with_own_user]
    assert ids(assignee_id="90004", active="true") == [for_dana]
    assert ids(overdue="true") == ["700001", pending_with_own_user]
    assert ids(item_id="i1") == [ended]
    assert ids(tool_subtype="5") == []
    assert procore.get(INSTANCES, **{"filters[tool_type]": "generic_tool_item"})["data"] == []


def test_tools_and_templates_are_listed(procore):
    tools = {tool["type"]: tool["provider"] for tool in procore.get(f"{COMPANY}/workflows/tools")["data"]}
    assert tools == {
        TOOL: "Project",
        "generic_tool_item": "Project",
        "correspondence": "Project",
        "prequalification": "Company",
        "commitment_change_order": "Project",
        "requisition": "Project",
        "submittal": "Project",
    }
    response = procore.send("GET", f"{COMPANY}/workflows/templates", params={"per_page": "1"})
    assert [template["name"] for template in response.json()["data"]] == ["Purchase Order Approval"]
    assert response.headers["Total"] == "7"


# --- starting, terminating, restarting ---


def test_an_instance_is_started_once_per_item(emulator, procore):
    body = {"tool_type": TOOL, "item_id": "9", "template_id": "301"}
    started = procore.post(INSTANCES, body, status=201)["data"]

    assert started["created_by"]["login"] == "integration@example.com"
    assert reasons(procore.post(INSTANCES, body, status=400)) == ["active_instance_exists"]
    assert [effect["action"] for effect in emulator.effects()] == ["start"]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"template_id": "999"}, 404),
        ({"preset_id": "999"}, 404),
        ({"tool_type": "unheard_of"}, 404),
        ({"tool_type": "prequalification"}, 400),
        ({"item_id": None}, 400),
    ],
)
def test_an_instance_that_cannot_be_started_is_rejected(emulator, procore, changed, status):
    procore.post(INSTANCES, {"tool_type": TOOL, "item_id": "9", **changed}, status=status)
    assert emulator.effects() == []


def test_a_companys_tool_lives_at_company_level_only(emulator, procore):
    at_company = f"{COMPANY}/workflows/instances"
    body = {"tool_type": "prequalification", "item_id": "9"}
    started = procore.post(at_company, body, status=201)["data"]["id"]

    assert [row["id"] for row in procore.get(at_company, **{"filters[tool_type]": "prequalification"})["data"]]
    procore.get(f"{at_company}/{started}")
    procore.get(f"{INSTANCES}/{started}", status=404)
    procore.get(f"{at_company}/700001", status=404)
    procore.get(f"{at_company}/700001", status=404, project_id="1001")
    procore.post(at_company, {"tool_type": TOOL, "item_id": "9"}, status=400)


def test_terminating_twice_is_once(emulator, procore):
    first = procore.post(f"{INSTANCE}/terminate")["data"]
    second = procore.post(f"{INSTANCE}/terminate")["data"]

    assert first["ended_at"] == second["ended_at"] is not None
    history = history_of(procore)
    assert (history["status"], history["history"][-1]["type"]) == ("terminated", "WorkflowTerminated")
    assert [effect["action"] for effect in emulator.effects()] == ["terminate"]


def test_restarting_twice_gives_the_same_new_instance(emulator, procore):
    first = procore.post(f"{INSTANCE}/restart", {"restart_mode": "defaults"})["data"]
    second = procore.post(f"{INSTANCE}/restart")["data"]

    assert first["id"] == second["id"] != "700001"
    assert procore.get(INSTANCE)["data"]["ended_at"] is not None
    assert [effect["action"] for effect in emulator.effects()] == ["terminate", "restart"]


def test_an_item_never_has_two_active_instances_after_a_restart(procore):
    procore.post(f"{INSTANCE}/terminate")
    procore.post(INSTANCES, {"tool_type": TOOL, "item_id": "5001"}, status=201)

    assert reasons(procore.post(f"{INSTANCE}/restart", status=400)) == ["active_instance_exists"]


# --- history ---


def test_history_shows_overdue_and_blocked_until_the_next_step(emulator, long_lived_tokens, procore):
    assert history_of(procore)["status"] == "in_progress"
    assert history_of(procore)["current_step_index"] == 1
    emulator.control("POST", "clock", advance=4 * 24 * 3600)
    assert history_of(procore)["status"] == "overdue"
    emulator.control("POST", "procore/instances/700001/block", reason="No assignee", retriable=True)
    blocked = history_of(procore)
    assert (blocked["status"], blocked["blocked_reason"]) == ("blocked", "No assignee")
    assert blocked["blocked_is_retriable"] is True
    respond_with(procore, "Approve")
    assert history_of(procore)["status"] == "in_progress"


def test_history_may_have_only_events_or_be_absent(emulator, procore):
    emulator.control("PATCH", "flags", history="events_only")
    assert list(history_of(procore)) == ["history"]
    emulator.control("PATCH", "flags", history="absent")
    procore.get(f"{INSTANCE}/history", status=404)


def test_the_histories_of_items_are_newest_first_and_may_be_absent(emulator, procore):
    procore.post(f"{INSTANCE}/terminate")
    new = procore.post(INSTANCES, {"tool_type": TOOL, "item_id": "5001"}, status=201)["data"]["id"]
    bulk = {"tool_type": TOOL, "item_ids": ["5001", "unknown"]}

    histories = procore.get(f"{INSTANCES}/history", tool_type=TOOL, item_id="5001")["data"]
    assert [history["instance_id"] for history in histories] == [new, "700001"]
    many = procore.post(f"{INSTANCES}/bulk_history", bulk)["data"]
    assert [(row["item_id"], len(row["instances"])) for row in many] == [("5001", 2), ("unknown", 0)]
    assert many[0]["instances"] == histories

    emulator.control("PATCH", "flags", bulk_history="no_instance_ids")
    many = procore.post(f"{INSTANCES}/bulk_history", bulk)["data"]
    assert all("instance_id" not in history for history in many[0]["instances"])
    emulator.control("PATCH", "flags", bulk_history="not_allowed")
    procore.post(f"{INSTANCES}/bulk_history", bulk, status=405)
    emulator.control("PATCH", "flags", bulk_history="absent", item_history="absent")
    procore.post(f"{INSTANCES}/bulk_history", bulk, status=404)
    procore.get(f"{INSTANCES}/history", status=404, tool_type=TOOL, item_id="5001")


@pytest.mark.parametrize("status", [400, 413, 504])
def test_more_items_than_fit_into_a_batch_are_rejected(emulator, procore, status):
    def batch(size: int) -> dict[str, Any]:
        return {"tool_type": TOOL, "item_ids": ["1"] * size}

    emulator.control("PATCH", "flags", bulk_history_too_many=status)
    assert reasons(procore.post(f"{INSTANCES}/bulk_history", batch(101), status=status)) == ["too_many_items"]
    procore.post(f"{INSTANCES}/bulk_history", batch(100))
    emulator.control("PATCH", "flags", bulk_history_limit=3)
    procore.post(f"{INSTANCES}/bulk_history", batch(4), status=status)


def test_an_item_without_instances_has_no_histories(procore):
    assert procore.get(f"{INSTANCES}/history", tool_type=TOOL, item_id="unknown")["data"] == []


def test_a_hidden_instance_is_not_to_be_seen(emulator, procore):
    step = step_of(procore)
    emulator.control("POST", "procore/instances/700001/hide")

    assert procore.get(INSTANCES, **FILTER)["data"] == []
    procore.get(INSTANCE, status=404)
    procore.get(f"{INSTANCE}/history", status=404)
    options = step["available_response_options"]
    response = {
        "current_step_occurrence_id": step["id"],
        "selected_response_option_id": options[0]["id"],
        "attachments": {},
    }
    procore.post(f"{INSTANCE}/responses", {"response": response}, status=404)
    procore.get(f"{INSTANCES}/history", status=403, tool_type=TOOL, item_id="5001")
    procore.post(f"{INSTANCES}/bulk_history", {"tool_type": TOOL, "item_ids": ["1", "5001"]}, status=403)
    procore.post(f"{INSTANCES}/bulk_history", {"tool_type": TOOL, "item_ids": ["1"]})
    emulator.control("POST", "procore/instances/700001/hide", hidden=False)
    assert procore.get(INSTANCES, **FILTER)["data"]


@pytest.mark.parametrize(("side", "status"), [("visible", 200), ("403", 403), ("404", 404)])
def test_project_that_the_user_may_not_see_is_rejected(emulator, procore, side, status):
    emulator.control("PATCH", "flags", second_project=side)

    procore.get(INSTANCES.replace("/1001/", "/1002/"), status=status, **FILTER)
    assert procore.get(INSTANCES, **FILTER)["data"]


def test_history_shows_who_is_responsible_for_a_step(procore):
    [group] = history_of(procore)["history"][1]["details"]["responsible_groups"]

    assert (group["name"], group["type"]) == ("Integration", "responsible_role")
    assert (group["responses_required"], group["login_ids"]) == ("one", ["90001"])


# --- correspondence ---


def test_letter_needs_its_subtype_and_is_stamped_before_review(procore):
    letter = {"tool_type": "correspondence", "item_id": "1"}
    assert reasons(procore.post(INSTANCES, letter, status=400)) == ["missing_parameter"]
    procore.post(INSTANCES, {**letter, "tool_subtype": "-5"}, status=404)
    started = procore.post(INSTANCES, {**letter, "tool_subtype": "-123456789"}, status=201)["data"]
    assert (started["tool_subtype"], started["current_step_occurrence"]["name"]) == ("-123456789", "Letter Review")
    events = procore.get(f"{INSTANCES}/{started['id']}/history")["data"]["history"]
    assert [event["type"] for event in events] == ["WorkflowStarted", "Action", "ResponseStep"]

    kind = {"filters[tool_type]": "correspondence"}
    assert reasons(procore.get(INSTANCES, status=400, **kind)) == ["missing_parameter"]
    rows = procore.get(INSTANCES, **kind, **{"filters[tool_subtype]": "-123456789"})["data"]
    assert [row["tool_subtype"] for row in rows] == ["-123456789"]
    assert procore.get(INSTANCES, **kind, **{"filters[tool_subtype]": "-5"})["data"] == []


# --- more assignees, blocked instances ---


def add_to_step(procore: Client, status: int = 200, **changed: Any) -> Any:
    body = {
        "step_occurrence_id": step_of(procore)["id"],
        "required": True,
        "reason": "original_assignee_on_vacation",
        "assignee_ids": ["90005"],
        **changed,
    }
    return procore.post(f"{INSTANCE}/additional_assignees", body, status=status)


def test_an_added_assignee_can_respond(emulator, procore):
    shown = add_to_step(procore, comment="Until Monday")["data"]
    add_to_step(procore)

    occurrences = shown["current_step_occurrence"]["response_occurrences"]
    assert [(o["assignee"]["id"], o["assignee"]["required"]) for o in occurrences] == [("90001", True), ("90005", True)]
    assert "90005" in {user["id"] for user in shown["all_assignees"]}
    [added] = history_of(procore)["history"][1]["details"]["additional_assignees"]
    assert (added["id"], added["reason"]) == ("90005", "original_assignee_on_vacation")
    assert added["added_at"].endswith("Z")
    respond_as(emulator, "lee", "Approve")
    assert step_of(procore)["name"] == "Director Approval"
    [effect, _] = emulator.effects()
    assert (effect["action"], effect["detail"]) == (
        "add_assignees",
        {"assignee_ids": ["90005"], "reason": "original_assignee_on_vacation"},
    )


def test_a_commenter_decides_nothing(emulator, procore):
    add_to_step(procore, role_type="commenter", required=False)
    respond_as(emulator, "lee", "Reject")

    assert step_of(procore)["name"] == "Budget Check"


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"assignee_ids": ["90005", "90009"]}, 422),
        ({"step_occurrence_id": "1"}, 404),
        ({"reason": "because"}, 400),
        ({"role_type": "reader"}, 400),
        ({"required": None}, 400),
    ],
)
def test_assignees_that_cannot_be_added_are_rejected(emulator, procore, changed, status):
    emulator.control("PATCH", "flags", stale_step=404)
    add_to_step(procore, status, **changed)

    assert emulator.effects() == []
    assert len(step_of(procore)["response_occurrences"]) == 1


def test_a_step_of_all_waits_only_for_a_required_addition(emulator, procore):
    def ended(required: bool, item_id: str) -> bool:
        body = {"tool_type": "generic_tool_item", "item_id": item_id}
        started = procore.post(INSTANCES, body, status=201)["data"]
        path = f"{INSTANCES}/{started['id']}"
        addition = {
            "step_occurrence_id": started["current_step_occurrence"]["id"],
            "required": required,
            "reason": "other",
            "assignee_ids": ["90005"],
        }
        procore.post(f"{path}/additional_assignees", addition)
        for login in ("rita", "integration"):
            respond_as(emulator, login, "Approve", started["id"])
        return procore.get(path)["data"]["ended_at"] is not None

    assert not ended(True, "1")
    assert ended(False, "2")


def test_a_refresh_lifts_a_block_that_can_be_retried(emulator, procore):
    assert reasons(procore.post(f"{INSTANCE}/refresh", status=422)) == ["not_blocked"]
    emulator.control("POST", "procore/instances/700001/block", reason="No assignee", refreshes=2)

    procore.post(f"{INSTANCE}/refresh")
    assert history_of(procore)["status"] == "blocked"
    procore.post(f"{INSTANCE}/refresh")
    assert history_of(procore)["status"] == "in_progress"
    refreshed = [e["detail"] for e in emulator.effects() if e["action"] == "refresh"]
    assert refreshed == [{"lifted": False}, {"lifted": True}]

    emulator.control("POST", "procore/instances/700001/block", reason="No template", retriable=False)
    assert reasons(procore.post(f"{INSTANCE}/refresh", status=422)) == ["not_retriable"]


def test_terminating_may_be_disabled(emulator, procore):
    emulator.control("PATCH", "flags", terminate_enabled="off")

    assert reasons(procore.post(f"{INSTANCE}/terminate", status=403)) == ["terminate_disabled"]
    assert emulator.effects() == []
