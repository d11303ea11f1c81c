"""The example that reports where approvals get stuck: each night's page covers all nights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.examples import result, run, states
from tests.support.html_page import read_page, table

TOOL = "purchase_order_contract"
DAY = 24 * 3600

pytestmark = pytest.mark.usefixtures("airflow_db", "airflow_connections")


def respond(emulator, instance_id: str, login: str) -> None:
    emulator.control("POST", f"procore/instances/{instance_id}/respond", login=login, option="Approve")


def test_each_night_reports_all_nights_together(emulator, tmp_path):
    root = tmp_path.as_uri()
    emulator.control("POST", "clock", advance=2 * DAY)
    respond(emulator, "700001", "integration@example.com")

    first = run("example_procore_cycle_time_report", root=root)

    assert {state for each in states(first).values() for state in each} == {"success"}
    before = result(first, "report_cycle_times")
    assert before["open_steps"] >= 1
    assert result(first, "find_slowest_steps")

    emulator.control("POST", "clock", advance=DAY)
    respond(emulator, "700001", "dana@example.com")
    emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="5002")

    second = run("example_procore_cycle_time_report", root=root)

    after = result(second, "report_cycle_times")
    assert (after["instances"], after["ended"]) == (before["instances"] + 1, before["ended"] + 1)
    page = read_page(Path(tmp_path, "report.html").read_text())
    medians = {row["Step"]: row["Median"].partition(" / ")[0] for row in table(page, "Steps")}
    assert (medians["Budget Check"], medians["Director Approval"]) == ("2 d", "24 h")
    assert (tmp_path / "tables" / "step_summary.csv").exists()
