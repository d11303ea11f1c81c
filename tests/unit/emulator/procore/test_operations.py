"""Starting many instances, and replacing an assignee everywhere, in Procore Workflows v2."""

from __future__ import annotations

import csv
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import requests

from tests.unit.emulator.conftest import COMPANY, Client
from tests.unit.emulator.procore.test_instances import INSTANCE, INSTANCES, TOOL, history_of, reasons, step_of
from tests.unit.emulator.procore.test_presets import presets_of

BULK = f"{INSTANCES}/bulk_create"
REQUESTS = f"{COMPANY}/workflows/bulk_replace_requests"
REPLACEMENT = {
    "replacement_type": "permanent",
    "old_assignee_id": "90001",
    "new_assignee_ids": ["90005", "90006"],
    "modify_project_roles": False,
    "reason": "other",
}


def items(*item_ids: str, preset_id: str = "401") -> dict[str, Any]:
    return {"tool_type": TOOL, "items": [{"item_id": item_id, "preset_id": preset_id} for item_id in item_ids]}


def operation(procore: Client, operation_id: str) -> dict[str, Any]:
    found: dict[str, Any] = procore.get(f"{COMPANY}/async_operations/{operation_id}")["data"]
    return found


def ordered(procore: Client, body: dict[str, Any], **arguments: Any) -> str:
    accepted = procore.post(BULK, body, status=202, **arguments)["data"]
    assert accepted["operation_type"] == "workflows_instance_bulk_create"
    return accepted["operation_id"]


# --- starting many ---


def test_many_instances_are_started_and_the_failures_are_reported(emulator, procore):
    done = operation(procore, ordered(procore, items("1", "2")))
    part = operation(procore, ordered(procore, items("2", "3")))
    failed = operation(procore, ordered(procore, items("4", preset_id="999")))

    assert [item["item_id"] for item in done["result"]["completed_items"]] == ["1", "2"]
    assert (done["status"], done["error"], done["created_by_id"]) == ("done", None, "90001")
    assert part["status"] == "partial_done"
    [failure] = part["result"]["failed_items"]
    assert (failure["item_id"], failure["step"]) == ("2", "create")
    assert "active" in failure["message"]
    assert (failed["status"], failed["result"]["completed_items"]) == ("failed", [])
    assert [effect["action"] for effect in emulator.effects()] == ["start"] * 3
    for item in done["result"]["completed_items"]:
        assert procore.get(f"{INSTANCES}/{item['instance_id']}")["data"]["item_id"] == item["item_id"]


def test_a_preset_that_is_not_valid_starts_nothing(emulator, procore):
    emulator.control("POST", "procore/presets/401", valid=False)

    assert operation(procore, ordered(procore, items("1")))["status"] == "failed"


def test_an_operation_takes_its_time(emulator, procore):
    emulator.control("PATCH", "flags", operation_delay=60)
    operation_id = ordered(procore, items("1"))

    created = operation(procore, operation_id)
    assert (created["status"], created["result"], created["started_at"]) == ("created", None, None)
    emulator.control("POST", "clock", advance=31)
    assert operation(procore, operation_id)["status"] == "in_progress"
    assert emulator.effects() == []
    emulator.control("POST", "clock", advance=30)
    done = operation(procore, operation_id)
    assert (done["status"], len(emulator.effects())) == ("done", 1)
    assert done["completed_at"] > done["started_at"]


@pytest.mark.parametrize("idempotency", ["ignored", "honoured"])
def test_the_same_token_is_the_same_operation_where_it_counts(emulator, procore, idempotency):
    emulator.control("PATCH", "flags", idempotency=idempotency)
    token = {"Idempotency-Token": "once"}

    first = ordered(procore, items("1"), headers=token)
    assert (ordered(procore, items("1"), headers=token) == first) == (idempotency == "honoured")
    assert ordered(procore, items("2")) != first
    assert len(emulator.effects()) == 2


@pytest.mark.parametrize(("compares", "status"), [("422", 422), ("ignored", 202)])
def test_a_token_with_another_body_is_rejected_by_flag(emulator, procore, compares, status):
    emulator.control("PATCH", "flags", idempotency_other_body=compares)
    token = {"Idempotency-Token": "once"}
    first, other = items("1"), items("2")

    for body, expected in ((first, 202), (other, status), (first, 202)):
        procore.post(BULK, body, status=expected, headers=token)
    procore.post(BULK, other, status=202)


@pytest.mark.parametrize(("compares", "status"), [("422", 422), ("ignored", 204)])
def test_a_response_whose_token_came_with_another_body(emulator, procore, compares, status):
    emulator.control("PATCH", "flags", idempotency_other_body=compares)
    step = step_of(procore)
    response = {
        "current_step_occurrence_id": step["id"],
        "selected_response_option_id": "no such option",
        "attachments": {},
    }
    token = {"Idempotency-Token": "once"}

    procore.post(f"{INSTANCE}/responses", {"response": response}, status=422, headers=token)
    response["selected_response_option_id"] = step["available_response_options"][0]["id"]
    procore.post(f"{INSTANCE}/responses", {"response": response}, status=status, headers=token)


def test_an_operation_is_visible_after_the_seconds_of_the_flag(emulator, procore):
    emulator.control("PATCH", "flags", operation_visible_after=60)
    operation_id = ordered(procore, items("1"))

    procore.get(f"{COMPANY}/async_operations/{operation_id}", status=404)
    emulator.control("POST", "clock", advance=60)
    assert operation(procore, operation_id)["status"] == "done"


def test_the_status_of_an_operation_comes_in_the_case_of_the_flag(emulator, procore):
    emulator.control("PATCH", "flags", background_status_case="upper")

    assert operation(procore, ordered(procore, items("1", "5001")))["status"] == "PARTIAL_DONE"


def test_a_response_under_the_same_token_is_taken_once(emulator, procore):
    emulator.control("PATCH", "flags", idempotency="honoured")
    step = step_of(procore)
    response = {
        "current_step_occurrence_id": step["id"],
        "selected_response_option_id": step["available_response_options"][0]["id"],
        "attachments": {},
    }
    token = {"Idempotency-Token": "once"}

    for _ in range(2):  # the second one comes when the step is over
        procore.post(f"{INSTANCE}/responses", {"response": response}, status=204, headers=token)
    procore.post(f"{INSTANCE}/responses", {"response": response}, status=422)
    assert len(emulator.effects()) == 1


@pytest.mark.parametrize("status", ["422", "400", "413"])
def test_a_bulk_create_of_more_items_than_it_takes_is_rejected(emulator, procore, status):
    emulator.control("PATCH", "flags", bulk_start_limit=2, bulk_start_too_many=status)

    procore.post(BULK, items("1", "2", "3"), status=int(status))
    ordered(procore, items("1", "2"))
    assert len(emulator.effects()) == 2


def test_a_bulk_create_that_makes_no_sense_is_rejected(emulator, procore):
    procore.post(BULK, {"tool_type": TOOL, "items": []}, status=422)
    procore.post(BULK, {"tool_type": TOOL}, status=400)
    procore.post(BULK, {"tool_type": "correspondence", "items": [{"item_id": "1"}]}, status=400)
    procore.post(f"{COMPANY}/workflows/instances/bulk_create", items("1"), status=400)
    procore.get(f"{COMPANY}/async_operations/1", status=404)
    assert emulator.effects() == []


# --- replacing an assignee ---


def requested(procore: Client, status: int = 202, **changed: Any) -> Any:
    response = procore.post(REQUESTS, {**REPLACEMENT, **changed}, status=status)
    return response["data"]["bulk_replace_request_id"] if status == 202 else response


def test_an_assignee_is_replaced_in_presets_and_running_instances(emulator, procore):
    request_id = requested(procore)

    shown = procore.get(f"{REQUESTS}/{request_id}")["data"]
    assert (shown["status"], shown["old_assignee"]["id"]) == ("completed", "90001")
    assert [user["id"] for user in shown["new_assignees"]] == ["90005", "90006"]
    for preset in ("401", "402"):
        assert presets_of(emulator)[preset]["groups"]["Integration"] == ["lee@example.com", "nora@example.com"]
    assert [o["assignee"]["id"] for o in step_of(procore)["response_occurrences"]] == ["90005", "90006"]
    [update] = history_of(procore)["history"][1]["details"]["assignee_updates"]
    assert update["original_assignee"]["login"] == "integration@example.com"
    [effect] = emulator.effects()
    assert (effect["action"], effect["detail"]["instances"]) == ("bulk_replace", ["700001"])
    assert procore.send("GET", f"{REQUESTS}/{request_id}/errors").text.splitlines() == ["project_id,preset_id,message"]


def test_a_replacement_may_be_for_some_projects_and_tools(emulator, procore):
    requested(procore, project_ids=["1002"], tools=[{"type": TOOL}])

    presets = presets_of(emulator)
    assert presets["402"]["groups"]["Integration"] == ["lee@example.com", "nora@example.com"]
    assert presets["401"]["groups"]["Integration"] == ["integration@example.com"]
    assert presets["403"]["groups"]["Reviewers"] == ["integration@example.com", "rita@example.com"]
    assert [o["assignee"]["id"] for o in step_of(procore)["response_occurrences"]] == ["90001"]


def test_user_who_cannot_be_assigned_replaces_no_one(emulator, procore):
    request_id = requested(procore, new_assignee_ids=["90009"], project_ids=["1001"])

    assert procore.get(f"{REQUESTS}/{request_id}")["data"]["status"] == "failed"
    response = procore.send("GET", f"{REQUESTS}/{request_id}/errors")
    assert response.headers["Content-Type"].startswith("text/csv")
    errors = list(csv.DictReader(response.text.splitlines()))
    assert [(error["project_id"], error["preset_id"]) for error in errors] == [
        ("1001", "401"),
        ("1001", "403"),
        ("1001", "405"),
        ("1001", "391"),
        ("1001", "392"),
        ("1001", "393"),
    ]
    assert emulator.effects() == []
    changed = {**REPLACEMENT, "new_assignee_ids": ["90005"]}
    procore.change("PUT", f"{REQUESTS}/{request_id}", changed, 202)
    assert procore.get(f"{REQUESTS}/{request_id}")["data"]["status"] == "completed"


def test_a_temporary_replacement_starts_ends_and_can_be_stopped(emulator, long_lived_tokens, procore):
    def day(number: int) -> str:
        return (today + timedelta(days=number)).isoformat()

    def status(request_id: str) -> str:
        found: str = procore.get(f"{REQUESTS}/{request_id}")["data"]["status"]
        return found

    today = datetime.now(timezone.utc).date() + timedelta(days=1)
    emulator.control("POST", "clock", set=f"{day(0)}T00:00:00Z")
    temporary = {"replacement_type": "temporary", "end_date": day(4)}
    first = requested(procore, **temporary, start_date=day(2))
    assert (status(first), emulator.effects()) == ("upcoming", [])
    emulator.control("POST", "clock", set=f"{day(2)}T12:00:00Z")
    assert (status(first), len(emulator.effects())) == ("active", 1)
    emulator.control("POST", "clock", set=f"{day(5)}T00:00:00Z")
    assert status(first) == "expired"
    procore.change("DELETE", f"{REQUESTS}/{first}", status=422)

    second = requested(procore, **{**temporary, "end_date": day(9)}, start_date=day(0))
    for _ in range(2):
        procore.change("DELETE", f"{REQUESTS}/{second}", status=202)
    assert status(second) == "stopped"
    assert [effect["action"] for effect in emulator.effects()].count("stop_bulk_replace") == 1


def test_a_replacement_is_processed_until_its_operation_is_finished(emulator, procore):
    emulator.control("PATCH", "flags", operation_delay=60)
    accepted = procore.post(REQUESTS, REPLACEMENT, status=202)["data"]

    path = f"{REQUESTS}/{accepted['bulk_replace_request_id']}"
    assert procore.get(path)["data"]["status"] == "processing"
    procore.change("PUT", path, REPLACEMENT, 422)
    emulator.control("POST", "clock", advance=60)
    assert procore.get(path)["data"]["status"] == "completed"
    assert operation(procore, accepted["operation_id"])["status"] == "done"


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"replacement_type": "for_ever"}, 400),
        ({"reason": None}, 400),
        ({"new_assignee_ids": []}, 422),
        ({"old_assignee_id": "1"}, 422),
        ({"replacement_type": "temporary"}, 422),
        ({"replacement_type": "temporary", "start_date": "2999-01-02", "end_date": "2999-01-01"}, 422),
        ({"start_date": "tomorrow"}, 400),
    ],
)
def test_a_replacement_that_makes_no_sense_is_rejected(emulator, procore, changed, status):
    requested(procore, status, **changed)

    assert procore.get(REQUESTS)["data"] == []
    procore.get(f"{REQUESTS}/1", status=404)


def test_every_filter_narrows_the_list_of_replacements(emulator, procore):
    first = requested(procore)
    second = requested(procore, old_assignee_id="90004", new_assignee_ids=["90009"])
    third = requested(
        procore,
        old_assignee_id="90003",
        new_assignee_ids=["90006"],
        replacement_type="temporary",
        start_date="2020-01-01",
        end_date="2999-01-01",
    )

    def ids(**query: str) -> list[str]:
        return [row["id"] for row in procore.get(REQUESTS, **query)["data"]]

    assert ids() == [third, second, first]
    assert ids(sort="created_at", per_page="2") == [first, second]
    assert ids(**{"filters[status]": "failed"}) == [second]
    assert ids(**{"filters[type]": "temporary"}) == [third]
    assert ids(**{"filters[old_assignee_ids]": "90001,90004"}) == [second, first]
    assert ids(**{"filters[new_assignee_ids][]": "90006"}) == [third, first]
    assert ids(**{"filters[updated_by_id]": "90002"}) == []
    assert ids(**{"filters[start_date]": "2019-12-31...2020-01-02"}) == [third]
    assert reasons(procore.get(REQUESTS, status=400, sort="reason")) == ["invalid_parameter"]


def test_a_response_stays_when_its_author_is_replaced(procore):
    started = procore.post(INSTANCES, {"tool_type": "generic_tool_item", "item_id": "7"}, status=201)["data"]
    step = started["current_step_occurrence"]
    response = {
        "current_step_occurrence_id": step["id"],
        "selected_response_option_id": step["available_response_options"][0]["id"],
        "attachments": {},
    }
    procore.post(f"{INSTANCES}/{started['id']}/responses", {"response": response}, status=204)
    requested(procore)

    occurrences = step_of(procore, f"{INSTANCES}/{started['id']}")["response_occurrences"]
    assert [o["assignee"]["id"] for o in occurrences] == ["90001", "90003"]
    procore.post(f"{INSTANCE}/terminate")


def test_list_of_replacements_has_other_rows_or_no_filters(emulator, procore):
    first = requested(procore)
    requested(procore, old_assignee_id="90004", new_assignee_ids=["90006"])
    query = {"filters[old_assignee_ids]": "90001"}

    emulator.control("PATCH", "flags", bulk_replace_rows="ids")
    [row] = procore.get(REQUESTS, **query)["data"]
    assert (row["id"], row["old_assignee_id"], row["new_assignee_ids"]) == (first, "90001", ["90005", "90006"])
    emulator.control("PATCH", "flags", bulk_replace_rows="bare", bulk_replace_filters="ignored")
    rows = procore.get(REQUESTS, **query)["data"]
    assert [sorted(row) for row in rows] == [["id", "status"]] * 2
    assert sorted(procore.get(f"{REQUESTS}/{first}")["data"]) == ["id", "status"]


def test_a_replacement_without_errors_may_have_no_list_of_them(emulator, procore):
    emulator.control("PATCH", "flags", bulk_replace_errors="absent")

    procore.get(f"{REQUESTS}/{requested(procore)}/errors", status=404)
    failed = requested(procore, old_assignee_id="90004", new_assignee_ids=["90009"])
    assert procore.send("GET", f"{REQUESTS}/{failed}/errors").status_code == 200


# --- the other sides of what is not documented ---


def test_a_replacement_can_be_listed_with_times_and_a_cut_reason(emulator, procore):
    emulator.control("PATCH", "flags", bulk_replace_rows="cut")
    days = {"start_date": "2999-01-01", "end_date": "2999-02-01"}
    made = requested(procore, replacement_type="temporary", reason="On parental leave", **days)

    row = procore.get(f"{REQUESTS}/{made}")["data"]

    assert (row["start_date"], row["end_date"]) == ("2999-01-01T00:00:00-08:00", "2999-02-01T23:59:59-08:00")
    assert row["reason"].endswith("...")
    assert "On parental leave".startswith(row["reason"].removesuffix("..."))


def test_the_status_of_a_replacement_has_other_spellings(emulator, procore):
    emulator.control("PATCH", "flags", operation_delay=60)
    path = f"{REQUESTS}/{requested(procore)}"
    shown = {}
    for spelling in ("documented", "upper_case", "more_words"):
        emulator.control("PATCH", "flags", bulk_replace_status=spelling)
        shown[spelling] = procore.get(path)["data"]["status"]

    assert shown == {"documented": "processing", "upper_case": "PROCESSING", "more_words": "queued"}


def test_a_stopped_replacement_shows_later_or_is_gone(emulator, procore):
    days = {"replacement_type": "temporary", "start_date": "2999-01-01", "end_date": "2999-02-01"}
    emulator.control("PATCH", "flags", bulk_replace_stop="later")
    path = f"{REQUESTS}/{requested(procore, **days)}"
    procore.change("DELETE", path, status=202)
    assert [procore.get(path)["data"]["status"] for _ in range(3)] == ["upcoming", "upcoming", "stopped"]

    emulator.control("PATCH", "flags", bulk_replace_stop="gone")
    path = f"{REQUESTS}/{requested(procore, **days)}"
    procore.get(path)
    procore.change("DELETE", path, status=202)
    procore.get(path, status=404)


def test_the_second_stop_of_a_replacement_may_be_rejected(emulator, procore):
    path = (
        REQUESTS
        + "/"
        + requested(procore, replacement_type="temporary", start_date="2999-01-01", end_date="2999-02-01")
    )
    procore.change("DELETE", path, status=202)
    procore.change("DELETE", path, status=202)

    emulator.control("PATCH", "flags", bulk_replace_stop_again="rejected")
    procore.change("DELETE", path, status=422)


def test_the_list_of_errors_has_other_formats_and_routes(emulator, procore):
    path = f"{REQUESTS}/{requested(procore, old_assignee_id='90004', new_assignee_ids=['90009'])}/errors"
    plain = procore.send("GET", path).content

    emulator.control("PATCH", "flags", bulk_replace_csv="no_names")
    assert procore.send("GET", path).content == plain.split(b"\r\n", 1)[1]
    emulator.control("PATCH", "flags", bulk_replace_csv="utf-16")
    assert procore.send("GET", path).content.decode("utf-16").encode() == plain
    emulator.control("PATCH", "flags", bulk_replace_csv="named_columns", bulk_replace_report="forbidden")
    assert procore.send("GET", path).status_code == 403


def test_the_list_of_errors_takes_some_reads_or_is_elsewhere(emulator, procore):
    made = requested(procore, old_assignee_id="90004", new_assignee_ids=["90009"])
    path = f"{REQUESTS}/{made}/errors"
    emulator.control("PATCH", "flags", bulk_replace_report="accepted_first")
    assert [procore.send("GET", path).status_code for _ in range(3)] == [202, 202, 200]

    emulator.control("PATCH", "flags", bulk_replace_report="redirect")
    address = procore.send("GET", path).headers["Location"]
    assert requests.get(address, timeout=10).status_code == 200
    assert requests.get(address, timeout=10, headers={"Authorization": "Bearer x"}).status_code == 400
    assert requests.get(address.partition("?")[0], timeout=10).status_code == 403
