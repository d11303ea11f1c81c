"""The example that exports all Legacy histories before the switch: complete or failed, and continued by another run."""

from __future__ import annotations

import json

import pytest

from tests.support import examples

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_db", "airflow_connections")]
EXAMPLE = "example_procore_before_you_switch"


def terminate(emulator, instance_id: str) -> None:
    emulator.control("POST", f"procore/legacy/instances/{instance_id}/terminate")


def test_second_run_before_the_switch_reads_only_what_moved(emulator, tmp_path):
    terminate(emulator, "568151")
    earlier = tmp_path / "nightly" / "2026-01-01" / "legacy" / "instances.jsonl"
    earlier.parent.mkdir(parents=True)
    earlier.write_text(json.dumps({"instance_id": "568151"}) + "\n")
    folders = {"root": f"file://{tmp_path}/archive", "earlier_exports": f"file://{tmp_path}/nightly"}

    first = examples.run(EXAMPLE, **folders)

    assert {task.state for task in first.get_task_instances()} == {"success"}
    assert examples.result(first, "report")["ready"] is True
    activity = {"activity": "Submit for Approval", "login": "pat@example.com"}
    emulator.control("POST", "procore/legacy/instances/568150/perform", **activity)
    sent = len(emulator.requests())
    second = examples.run(EXAMPLE, **folders)
    export = examples.result(second, "export_histories")
    assert (export["resumed"], export["instances"], export["activities"]) == (2, 2, 1)
    read = [r["query"] for r in emulator.requests()[sent:] if r["path"].endswith("_histories")]
    assert [query["workflow_instance_id"] for query in read] == ["568150"]


@pytest.mark.slow  # one run of the example is enough in make test
def test_export_that_lacks_an_instance_fails_and_the_next_completes(emulator, tmp_path):
    folder = {"root": f"file://{tmp_path}", "instance_ids": [568151]}
    path = "/workflow_activity_histories$"
    emulator.control("POST", "faults", method="GET", path=path, status=403, json={"message": "hidden"})

    states = examples.states(examples.run(EXAMPLE, **folder))

    assert states["verify_files"] == ["success"]
    assert (states["verify_counts"], states["report"]) == (["failed"], ["upstream_failed"])
    assert set(map(str, examples.states(examples.run(EXAMPLE, **folder)).values())) == {"['success']"}
