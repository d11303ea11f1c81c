"""What the workflows of the code host may do, and which code of others they run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
PINNED = re.compile(r"uses: (\./\S+|[\w.-]+(?:/[\w.-]+)+@[0-9a-f]{40} # v\d+\.\d+\.\d+)$")

pytestmark = pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)


def test_each_action_is_pinned_by_the_commit_of_a_release(file):
    uses = [line.strip().removeprefix("- ") for line in file.read_text().splitlines() if "uses:" in line]

    assert uses
    assert [line for line in uses if not PINNED.fullmatch(line)] == []


def test_each_job_has_permissions_and_stores_no_credentials(file):
    workflow = yaml.safe_load(file.read_text())

    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"]
        for step in job.get("steps", []):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
            assert "${{" not in step.get("run", "")  # a value in a script could be a script
