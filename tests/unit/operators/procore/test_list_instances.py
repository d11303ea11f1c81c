"""The list of instances, as input of mapped tasks."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.exceptions import ConfigurationError, NotFound, PermissionDenied, ServerError
from airflow_provider_workflows.operators.procore import ProcoreListInstancesOperator
from tests.unit.operators.procore.test_bulk_start import TOOL, start

pytestmark = pytest.mark.usefixtures("airflow_connections", "no_delays")


def listing(**parameters) -> ProcoreListInstancesOperator:
    return ProcoreListInstancesOperator(task_id="list", **{"tool_type": TOOL, **parameters})


def lists(emulator) -> list[dict]:
    return [r for r in emulator.requests() if r["path"].endswith("/workflows/instances")]


def start_instance(emulator, item_id: str, **where) -> str:
    return emulator.control("POST", "procore/instances", **{"tool_type": TOOL, "item_id": item_id, **where})["id"]


def test_instances_are_listed_with_the_fields_of_the_list(emulator, store):
    (row,) = listing().execute({"task_state_store": store})

    assert row == {
        "instance_id": "700001",
        "item_id": "5001",
        "tool_type": TOOL,
        "project_id": "1001",
        "state": None,
        "step": None,
        "started_at": row["started_at"],
        "ended_at": None,
        "updated_at": row["updated_at"],
    }
    assert row["started_at"] is not None


def test_every_filter_goes_into_the_query(emulator):
    listing(
        tool_type="correspondence",
        tool_subtype=-123456789,
        item_id=5001,
        assignee=90004,
        active=False,
        overdue=True,
        include_internal=True,
    ).execute({})

    (sent,) = lists(emulator)
    assert sent["query"] == {
        "filters[tool_type]": "correspondence",
        "filters[tool_subtype]": "-123456789",
        "filters[item_id]": "5001",
        "filters[assignee_id]": "90004",
        "filters[active]": "false",
        "filters[overdue]": "true",
        "include_internal": "true",
        "per_page": "100",
    }


def test_no_filter_is_sent_that_was_not_set(emulator):
    listing().execute({})

    always = {"filters[tool_type]": TOOL, "per_page": "100"}
    assert [request["query"] for request in lists(emulator)] == [
        {**always, "filters[active]": active} for active in ("true", "false")
    ]


def test_me_is_the_connections_user(emulator):
    start_instance(emulator, "11")
    emulator.control("POST", "procore/instances/700001/respond", login="integration@example.com", option="Approve")

    rows = listing(assignee="me").execute({})

    assert lists(emulator)[0]["query"]["filters[assignee_id]"] == "90001"
    assert [row["item_id"] for row in rows] == ["11"]


def test_several_tools_and_projects_are_polled_at_their_levels(emulator):
    start_instance(emulator, "11", project_id="1002")
    start_instance(emulator, "81", tool_type="prequalification", project_id=None)

    rows = listing(tool_type=[TOOL, "generic_tool_item"], project_id=["1001", 1002]).execute({})
    default = listing(tool_type=(TOOL, "prequalification")).execute({})

    assert [(row["item_id"], row["project_id"]) for row in rows] == [("5001", "1001"), ("11", "1002")]
    assert [(row["item_id"], row["project_id"]) for row in default] == [("5001", "1001"), ("81", "company")]
    assert len(lists(emulator)) == 2 * (4 + 2)  # the active ones and the ended ones


@pytest.mark.parametrize("bulk_history", ["present", "absent", "no_instance_ids"])
def test_only_instances_in_the_requested_states_are_listed(emulator, bulk_history):
    emulator.control("PATCH", "flags", bulk_history=bulk_history)
    start_instance(emulator, "11")
    start_instance(emulator, "12")
    emulator.control("POST", "procore/instances/700002/block", reason="x")
    emulator.control("POST", "procore/instances/700003/terminate")

    rows = listing(states=["blocked"]).execute({})
    several = listing(states=("blocked", "terminated")).execute({})

    assert [(row["instance_id"], row["state"], row["step"]) for row in rows] == [("700002", "blocked", "Budget Check")]
    assert [(row["instance_id"], row["state"]) for row in several] == [("700002", "blocked"), ("700003", "terminated")]


def test_an_instance_that_may_not_be_read_is_left_out(emulator):
    other = start_instance(emulator, "11")
    emulator.control("POST", "faults", path="/instances/700001/history$", times=99, status=403, json={})
    emulator.control("POST", "faults", path="/bulk_history$", times=99, status=403, json={})

    assert [row["instance_id"] for row in listing(states="in_progress").execute({})] == [other]


@pytest.mark.parametrize(("status", "error"), [(403, PermissionDenied), (404, NotFound), (500, ServerError)])
def test_unreadable_histories_are_not_an_empty_list(emulator, status, error):
    start_instance(emulator, "11")
    emulator.control("POST", "faults", path="history$", times=999, status=status, json={})

    with pytest.raises(error):
        listing(states="in_progress").execute({})


def test_limit_returns_the_oldest(emulator):
    for number in range(3):
        emulator.control("POST", "clock", advance=60)
        start_instance(emulator, f"{20 - number}")

    rows = listing(limit=2).execute({})

    assert [row["item_id"] for row in rows] == ["5001", "20"]


def test_batches_are_as_small_as_requested_and_as_few_as_possible(emulator, monkeypatch):
    for number in range(6):
        start_instance(emulator, str(10 + number))

    assert [len(batch) for batch in listing(batch_size=3).execute({})] == [3, 3, 1]
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    assert [len(batch) for batch in listing(batch_size=1).execute({})] == [4, 3]
    assert [len(batch) for batch in listing(batch_size=1, limit=2).execute({})] == [1, 1]


def test_nothing_is_an_empty_list_with_and_without_batches(emulator):
    assert listing(item_id="4711").execute({}) == listing(item_id="4711", batch_size=3).execute({}) == []


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"tool_type": []}, "tool_type"),
        ({"tool_type": [TOOL, ""]}, "tool_type"),
        ({"tool_type": None}, "tool_type"),
        ({"tool_subtype": ""}, "tool_subtype"),
        ({"project_id": []}, "project_id"),
        ({"project_id": ["1001", ""]}, "project_id"),
        ({"item_id": ""}, "item_id"),
        ({"assignee": "None"}, "assignee"),
        ({"states": "stuck"}, "states: unknown state stuck"),
        ({"limit": 0}, "limit"),
        ({"limit": "7"}, "limit"),
        ({"limit": True}, "limit"),
        ({"batch_size": -1}, "batch_size"),
        ({"company_id": "acme"}, "company_id"),
    ],
)
def test_a_bad_parameter_of_a_list_is_named_before_sending(emulator, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        listing(**parameters).execute({})
    assert emulator.requests() == []


@pytest.mark.parametrize(("status", "error"), [(403, PermissionDenied), (404, NotFound), (500, ServerError)])
def test_a_list_that_is_rejected_is_not_an_empty_one(emulator, status, error):
    emulator.control("POST", "faults", path="/workflows/instances$", times=9, status=status, json={"error": "no"})

    with pytest.raises(error):
        listing().execute({})


def test_an_empty_set_of_states_is_a_mistake(emulator):
    with pytest.raises(ConfigurationError, match="states is an empty list"):
        listing(states=[]).execute({})


def test_assignee_is_set_by_login_and_an_unknown_one_is_named(emulator):
    assert [row["item_id"] for row in listing(assignee="integration@example.com").execute({})] == ["5001"]
    with pytest.raises(ConfigurationError, match="assignee: no user .* 'nobody@example.com'"):
        listing(assignee="nobody@example.com").execute({})


def test_an_instance_that_is_found_twice_is_one_row(emulator):
    rows = listing(tool_type=[TOOL, "PurchaseOrderContract"], project_id=["1001", 1001]).execute({})

    assert [row["instance_id"] for row in rows] == ["700001"]


def test_instance_without_any_history_in_bulk_is_read_by_itself(emulator):
    emulator.control("POST", "procore/instances/700001/block", reason="x")
    emulator.control(
        "POST",
        "faults",
        method="POST",
        path="/bulk_history$",
        status=200,
        json={"data": [{"item_id": "5001", "instances": []}]},
    )

    assert [row["instance_id"] for row in listing(states=["blocked"]).execute({})] == ["700001"]


@pytest.mark.parametrize("build", [listing, lambda **parameters: start("1", **parameters)], ids=["list", "start"])
def test_a_misspelt_tool_is_named_even_with_a_project(emulator, build):
    with pytest.raises(ConfigurationError, match=r"tool_type 'purchase_order'.*purchase_order_contract"):
        build(tool_type="purchase_order", project_id="1001").execute({})
    assert [effect for effect in emulator.effects() if effect["via"] == "api"] == []
