"""The weekly run on the next Airflow: only a failure on a release fails it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.versions import report_failure

WORKFLOW = Path(__file__).parents[2] / ".github" / "workflows" / "next.yml"


@pytest.mark.parametrize(
    ("airflow", "level", "code"),
    [("3.4.0b2", "warning", 0), ("3.4.0rc1", "warning", 0), ("3.4.0", "error", 1), ("3.4.1", "error", 1)],
)
def test_failure_fails_the_weekly_run_on_a_release_only(airflow, level, code, capsys):
    assert report_failure(airflow) == code
    assert capsys.readouterr().out.startswith(f"::{level}::")


def test_weekly_run_decides_only_after_failed_tests():
    (job,) = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    *_, tests, decision = job["steps"]

    assert tests["continue-on-error"] is True
    assert tests["run"].split() == ["make", "matrix-3.4"]
    assert decision["if"] == f"steps.{tests['id']}.outcome == 'failure'"
    assert decision["run"].endswith("-m tests.support.versions")
