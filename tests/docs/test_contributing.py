"""The files for contributors agree with the Makefile and with .ci/run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = {*re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE), *re.findall(r"matrix-3\.\d", MAKEFILE)}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(set((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")) - {ROOT / ".github/ISSUE_TEMPLATE/config.yml"})


def commands(workflow: Path) -> list[str]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def targets(text: str) -> set[str]:
    """Return the targets of all `make` commands in a text."""
    lines = re.findall(r"\bmake ([^#;`|\n]+)", text.replace("\\\n", " "))
    words = [word for line in lines for word in line.split()]
    return {word for word in words if "=" not in word and not word.startswith(("-", "'", "tests/"))}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_github_runs_what_anybody_can_run(workflow):
    ran = "\n".join(commands(workflow)).replace("${{ matrix.airflow }}", "3.0")

    assert all(command == ".ci/run" or command.startswith("make ") for command in commands(workflow))
    assert targets(ran) <= TARGETS
    assert ".ci/run" in commands(workflow)


def test_github_runs_the_whole_matrix_and_checks_wheel_and_documentation():
    ci = ROOT / ".github" / "workflows" / "ci.yml"
    versions = yaml.safe_load(ci.read_text())["jobs"]["matrix"]["strategy"]["matrix"]["airflow"]

    assert [f"matrix-{version}" for version in versions] == re.search(r"^MATRIX := (.*)$", MAKEFILE, re.M)[1].split()
    assert {"make docs", "make wheel"} <= set(commands(ci))


@pytest.mark.parametrize("file", [".ci/run", "CONTRIBUTING.md", "README.md"])
def test_every_target_that_is_named_exists(file):
    assert targets((ROOT / file).read_text()) - {"test`"} <= TARGETS


def test_ci_runs_only_what_the_readme_or_the_help_names():
    documented = targets((ROOT / "README.md").read_text()) | targets((ROOT / "CONTRIBUTING.md").read_text())

    assert targets((ROOT / ".ci" / "run").read_text()) <= documented


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_of_the_kind_that_github_shows(form):
    content = yaml.safe_load(form.read_text())
    asked = [part for part in content["body"] if part["type"] != "markdown"]

    assert set(content) <= {"name", "description", "title", "labels", "body"}
    assert {part["type"] for part in asked} <= {"input", "textarea", "dropdown", "checkboxes"}
    assert all(re.fullmatch(r"[\w-]+", part["id"]) and part["attributes"]["label"] for part in asked)
    assert len({part["id"] for part in asked}) == len(asked)


def test_the_hooks_before_a_commit_are_the_checks_of_ci():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = " ".join(hook["entry"] for hook in hooks)

    assert all(tool in entries for tool in ("ruff check", "ruff format", "mypy"))
