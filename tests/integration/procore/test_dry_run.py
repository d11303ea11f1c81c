"""The example that sends nothing at first: what its report lists is what the real run sends."""

from __future__ import annotations

import json

import pytest

from tests.support.examples import once_and_in_full, result, run, states

EXAMPLE = "example_procore_dry_run"

pytestmark = pytest.mark.usefixtures("airflow_db", "airflow_connections")


def sent(emulator) -> list[tuple[str, dict]]:
    reading = ("/oauth/token", "/bulk_history")
    changes = [r for r in emulator.requests() if r["method"] != "GET" and not r["path"].endswith(reading)]
    return [(request["path"], request["body"]) for request in changes]


@once_and_in_full()
def test_report_of_the_dry_run_is_what_the_real_run_sends(emulator, again):
    first = run(EXAMPLE)

    report = result(first, "report_what_would_be_sent")
    assert [(row["item_id"], row["option"]) for row in report] == [("5001", "Approve")]
    assert states(first)["report_what_was_sent"] == ["skipped"]
    assert sent(emulator) == []
    assert emulator.effects() == []

    if again:
        real = run(EXAMPLE, dry_run=False)

        assert states(real)["report_what_would_be_sent"] == ["skipped"]
        assert result(real, "report_what_was_sent") == [{"item_id": "5001", "option": "Approve", "confirmed": True}]
        (call,) = report[0]["calls"]
        assert sent(emulator) == [(call["path"], call["body"])]


@pytest.mark.slow
def test_connection_overrides_the_parameter_of_the_run(emulator, set_connection):
    connection = emulator.connection("procore")
    connection["extra"]["dry_run"] = True
    set_connection("procore_default", connection)

    done = run(EXAMPLE, dry_run=False)

    assert str(done.state) == "success"
    assert len(result(done, "report_what_would_be_sent")) == 1
    assert "Approve" not in json.dumps(sent(emulator))
    assert emulator.effects() == []
