"""The examples of Workflowsoft for several instances: each writes once, and a second run writes nothing."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.support.examples import once_and_in_full, result, run, states

ENRICH = "example_workflowsoft_enrich"
DATA_QUALITY = "example_workflowsoft_data_quality"
BOTH = "example_both_products"
MODES = ("consumed_on_read", "listed_until_completed")

pytestmark = pytest.mark.usefixtures("airflow_db", "airflow_connections")


@pytest.fixture
def _mode(deferrable, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", deferrable)


@pytest.fixture
def connect(emulator, set_connection) -> Callable[..., None]:
    """Return a function that sets the connection and the emulator to one way of reading."""

    def set_both(mode: str, shape: str = "object") -> None:
        emulator.control("PATCH", "flags", new_integrations=mode, new_integration_shape=shape)
        connection = emulator.connection("workflowsoft")
        connection["extra"] |= {"new_integrations": mode}
        set_connection("workflowsoft_default", connection)

    return set_both


def start(emulator, diagram: str, **fields) -> str:
    """Start a process as a person; return the id of the integration instance that opens."""
    started = emulator.control("POST", "workflowsoft/processes", diagram=diagram, fields=fields)
    return str(started["integration_instance_id"])


def done(emulator, action: str) -> list[str]:
    """Return the instances that the connection's user changed."""
    own = [e for e in emulator.effects() if e["action"] == action and e["via"] == "api"]
    return sorted(e["target"]["integration_instance_id"] for e in own)


def instance(emulator, instance_id: str) -> dict:
    (found,) = [
        row for row in emulator.control("GET", "state")["workflowsoft"] if row["integration_instance_id"] == instance_id
    ]
    return found


# --- enrich ---


@pytest.mark.usefixtures("_mode")
@once_and_in_full(deferrable=("True", "False"), shape=("list", "object"), mode=MODES)
def test_each_vendor_is_registered_once(emulator, connect, mode, shape, again):
    connect(mode, shape)
    names = ["Example Supplies", "North Crane Hire", "Shady Goods"]
    ids = [start(emulator, "Vendor onboarding", Vendor=name) for name in names]

    # A server that lists an instance until it is completed may show only one at a time.
    runs = 3 if (mode, shape) == ("listed_until_completed", "object") else 1
    reports = [result(run(ENRICH), "report") for _ in range(runs)]

    assert sorted(instance_id for report in reports for instance_id in report["registered"]) == ids[:2]
    assert [instance_id for report in reports for instance_id in report["rejected"]] == ids[2:]
    assert done(emulator, "write_fields") == done(emulator, "complete") == ids
    assert instance(emulator, ids[0])["fields"] == {
        "Vendor": '"Example Supplies"',
        "Vendor number": "70017",
        "Rating": '"A"',
        "External id": '"3f2b1c9e-7d54-4b0a-9a1e-5c6d7e8f9a0b"',
        "Valid until": '"2027-12-31"',
        "Score": "0.93",
        "Location": '{"lat": 1.5, "lon": 2}',
    }
    assert [instance(emulator, instance_id)["completions"][0]["custom_action"] for instance_id in ids] == [
        "__AUTO__",
        "__AUTO__",
        "Reject",
    ]

    if not again:
        return
    second = run(ENRICH, constants={"WAIT_SECONDS": 1})

    assert str(second.state) == "success"
    assert states(second)["wait_for_vendors"] == states(second)["register_vendor"] == ["skipped"]
    assert done(emulator, "write_fields") == done(emulator, "complete") == ids


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_unknown_vendor_is_left_open_and_completed_later(emulator, connect, mode):
    connect(mode, "list")
    unknown = start(emulator, "Vendor onboarding", Vendor="New Vendor")
    known = start(emulator, "Vendor onboarding")

    first = run(ENRICH)

    assert str(first.state) == "success"
    assert states(first)["register_vendor"] == ["skipped", "success"]
    assert result(first, "report") == {"registered": [known], "rejected": [], "left_open": [unknown]}
    polls = len(emulator.requests())

    vendor = {"number": 7, "rating": "B", "external_id": None, "valid_until": None, "score": 0.5}
    run(ENRICH, constants={"VENDORS": {"New Vendor": vendor}}, integration_instance_id=unknown)

    assert not [r for r in emulator.requests()[polls:] if r["path"].endswith("/new-integrations")]
    assert done(emulator, "complete") == sorted([unknown, known])
    assert instance(emulator, unknown)["fields"]["Vendor number"] == "7"


@pytest.mark.slow
def test_each_vendor_that_fails_creates_a_task(emulator, connect):
    connect("consumed_on_read")
    ids = [start(emulator, "Vendor onboarding") for _ in range(3)]
    for failing in ids[:2]:
        emulator.control(
            "POST", "faults", method="PATCH", path=f"{failing}/action$", status=403, json={"Message": "no"}
        )

    failed = run(ENRICH)

    assert str(failed.state) == "failed"
    assert sorted(states(failed)["register_vendor"]) == ["failed", "failed", "success"]
    assert done(emulator, "complete") == ids[2:]
    tasks = emulator.control("GET", "state")["workflowsoft_tasks"]
    described = [(task["title"], task["created_by"], task["assigned_to"]) for task in tasks]
    assert described == [("A vendor could not be registered", "11", "12")] * 2


# --- data quality ---


@once_and_in_full()
def test_bad_rows_open_one_issue(emulator, again):
    own = {"REPORTED": f"reported_{uuid.uuid4().hex}"}
    first = run(DATA_QUALITY, constants=own)

    assert str(first.state) == "success"
    (process,) = emulator.control("GET", "state")["workflowsoft"]
    assert process["fields"] == {
        "Check": '"Orders have an amount"',
        "Failed rows": "2",
        "Details": f'"{DATA_QUALITY}/{first.run_id}/open_a_data_issue/-1"',
        "Owner comment": None,
    }
    assert emulator.control("GET", "state")["workflowsoft_processes"][0]["started_by"] == "11"
    (task,) = emulator.control("GET", "state")["workflowsoft_tasks"]
    assert task["title"] == "Orders have an amount: 2 do not"
    assert task["description"] == "Please correct the orders A-1002, A-1003."
    assert (task["created_by"], task["assigned_to"]) == ("11", "12")

    if not again:
        return
    before = len(emulator.effects())
    second = run(DATA_QUALITY, constants=own)

    assert str(second.state) == "success"
    assert states(second)["open_a_data_issue"] == states(second)["ask_the_steward"] == ["skipped"]
    assert len(emulator.effects()) == before


@pytest.mark.slow
def test_later_rows_open_an_issue_of_their_own(emulator):
    own = {"REPORTED": f"reported_{uuid.uuid4().hex}"}
    run(DATA_QUALITY, constants=own)
    later = [{"order": "B-1", "amount": None, "loaded_at": "2026-01-03T03:00:00Z"}]

    run(DATA_QUALITY, constants={**own, "ORDERS": later})

    tasks = emulator.control("GET", "state")["workflowsoft_tasks"]
    assert [task["description"] for task in tasks] == [
        "Please correct the orders A-1002, A-1003.",
        "Please correct the orders B-1.",
    ]


@pytest.mark.slow
def test_good_rows_open_nothing(emulator):
    fine = run(
        DATA_QUALITY, constants={"ORDERS": [{"order": "A-1", "amount": 1.0, "loaded_at": "2030-01-01T00:00:00Z"}]}
    )

    assert str(fine.state) == "success"
    assert states(fine)["find_bad_rows"] == ["success"]
    assert states(fine)["open_a_data_issue"] == ["skipped"]
    assert emulator.effects() == []


# --- both products ---


@contextlib.contextmanager
def director(emulator, option: str) -> Iterator[None]:
    """Let Dana respond to the purchase orders that wait for her alone, with a remark."""
    leave = threading.Event()

    def work() -> None:
        while not leave.wait(0.1):
            for row in emulator.control("GET", "state")["procore"]:
                if row["waits_for"] == ["dana@example.com"]:
                    where = f"procore/instances/{row['id']}/respond"
                    emulator.control("POST", where, login="dana@example.com", option=option, comment="As discussed.")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    leave.set()
    thread.join()


@pytest.mark.usefixtures("_mode")
@once_and_in_full(
    deferrable=("True", "False"),
    mode=MODES,
    outcome=(("Approve", "Approved", "__AUTO__", "running"), ("Reject", "Rejected", "Reject", "ended")),
)
def test_decision_in_procore_is_written_back_once(emulator, connect, mode, outcome, again):
    option, decision, custom_action, process = outcome
    connect(mode)
    items = ["5002", "5003"] if again else ["5002"]
    requests = [start(emulator, "Purchase request", **{"Purchase order id": int(item)}) for item in items]

    with director(emulator, option):
        for number in range(len(items)):
            assert str(run(BOTH).state) == "success"
            assert done(emulator, "complete") == requests[: number + 1]

    for instance_id in requests:
        handled = instance(emulator, instance_id)
        assert {name: handled["fields"][name] for name in ("Decision", "Decided by", "Remarks")} == {
            "Decision": f'"{decision}"',
            "Decided by": '"dana@example.com"',
            "Remarks": '"As discussed."',
        }
        assert handled["fields"]["Decided at"].endswith('Z"')
        assert [completion["custom_action"] for completion in handled["completions"]] == [custom_action]
    assert {row["state"] for row in emulator.control("GET", "state")["workflowsoft_processes"]} == {process}
    assert done(emulator, "complete") == done(emulator, "write_fields") == requests
    started = [e["target"]["item_id"] for e in emulator.effects() if e["action"] == "start"]
    assert started == items
    responses = [(e["target"]["item_id"], e["by"]) for e in emulator.effects() if e["action"] == "respond"]
    assert responses == [(item, by) for item in items for by in ("90001", "90004")]


@pytest.mark.slow
def test_terminated_workflow_is_written_back_as_rejection(emulator, connect):
    connect("consumed_on_read")
    request = start(emulator, "Purchase request")

    def end() -> None:
        while not (waiting := [i for i in emulator.control("GET", "state")["procore"] if i["item_id"] == "5002"]):
            time.sleep(0.1)
        while waiting[0]["waits_for"] != ["dana@example.com"]:
            time.sleep(0.1)
            waiting = [i for i in emulator.control("GET", "state")["procore"] if i["item_id"] == "5002"]
        emulator.control("POST", f"procore/instances/{waiting[0]['id']}/terminate")

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    ended = run(BOTH)
    thread.join(30)

    assert str(ended.state) == "success"
    fields = instance(emulator, request)["fields"]
    assert (fields["Decision"], fields["Decided by"]) == ('"Rejected"', None)
    assert "ended in Procore without a decision" in fields["Remarks"]


@pytest.mark.slow
def test_request_for_an_order_in_progress_changes_nothing(emulator, connect):
    connect("consumed_on_read")
    start(emulator, "Purchase request", **{"Purchase order id": 5001})

    failed = run(BOTH)

    assert states(failed)["start_the_approval"] == ["failed"]
    assert [effect["action"] for effect in emulator.effects()] == ["start_process", "deliver"]
