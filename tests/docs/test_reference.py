"""The reference: every public class has a section with an example that is run, and no parameter is left out."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from docs.generate import code

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PACKAGE = ROOT / "airflow_provider_workflows"
SOURCES = sorted(PACKAGE.rglob("*.py"))
# What the reference lists: module and name of everything that is public.
LISTED = [
    (f"airflow_provider_workflows.{module}", name)
    for row in re.findall(r"^\| \[.*", (REFERENCE / "index.md").read_text(), re.MULTILINE)
    for names, modules, _ in [row.strip("| ").split(" | ")]
    for name in re.findall(r"`([A-Za-z]\w+)`", re.sub(r"`@[\w.]+`", "", names))
    for module in re.findall(r"^`([a-z_.]+)`", modules)
]
NO_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PUBLIC: dict[str, Any] = {name: getattr(importlib.import_module(module), name) for module, name in LISTED}
SECTIONS = {
    heading.removeprefix("@task."): section
    for page in REFERENCE.glob("*.md")
    for level in ("#", "##")
    for heading, section in re.findall(
        rf"^{level} (\S+)\n(.*?)(?=^{level} |\Z)", NO_CODE.sub("", page.read_text()), re.MULTILINE | re.DOTALL
    )
}
ROOMS = (
    "operators",
    "sensors",
    "decorators",
    "notifications",
    "assets.procore",
    "assets.workflowsoft",
)
WITH_EXAMPLE = [
    (module, name)
    for module, name in LISTED
    if module.removeprefix("airflow_provider_workflows.").startswith(ROOMS) and name in SECTIONS
]


def test_every_public_class_is_listed():
    listed = {name for _, name in LISTED}

    missing = {
        f"{module.__name__}.{name}"
        for module in map(importlib.import_module, modules())
        for name, member in vars(module).items()
        if isinstance(member, type) and member.__module__ == module.__name__ and not name.startswith("_")
        if re.search("(Operator|Sensor|Trigger|Notifier)$", name) and not is_base(member)
        if name not in listed
    }

    assert missing == set()


def modules() -> list[str]:
    paths = [path for room in ("operators", "sensors", "notifications") for path in (PACKAGE / room).rglob("*.py")]
    paths += (PACKAGE / "triggers").glob("*_events.py")
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths if path.stem != "__init__"]


def is_base(cls: type) -> bool:
    """Return whether other public classes derive from one."""
    return any(not sub.__name__.startswith("_") for sub in cls.__subclasses__())


def test_every_public_class_has_a_section_with_its_parameters():
    without = {
        name
        for module, name in LISTED
        if re.search("(Operator|Sensor|Trigger|Notifier|Hook|Policy)$", name)
        or f"@task.{name}" in (REFERENCE / "index.md").read_text()
        if not re.search(
            rf"<!-- generated: (parameters|members) {module.partition('.')[2]}\.{name} -->", SECTIONS.get(name, "")
        )
    }

    assert without == set()


@pytest.mark.parametrize(("module", "name"), WITH_EXAMPLE, ids=lambda part: part.rpartition(".")[2])
def test_a_section_shows_its_class_in_an_example_that_a_test_runs(module, name):
    text = SECTIONS[name]
    included = re.findall(r"^<!-- generated: code (\w+)\.py (\w+) -->$", text, re.MULTILINE)
    shown = [(dag_id, code(f"{dag_id}.py", mark)) for dag_id, mark in included]
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    assert any(re.search(used_as(name), code) for _, code in shown)
    assert [dag_id for dag_id, _ in shown if dag_id not in tests] == []


def used_as(name: str) -> str:
    """Return how a DAG writes a class, decorator or function."""
    return rf"@(task\.)?{name}\b|\b{name}\(" if name.islower() else name


@pytest.mark.parametrize(
    "name", [name for name, item in PUBLIC.items() if inspect.isclass(item) and not issubclass(item, Exception)]
)
def test_every_parameter_is_described_and_marked_if_templated(name):
    cls = PUBLIC[name]
    own = [base for base in cls.__mro__ if base.__module__.startswith("airflow_provider_workflows")]
    docstrings = [inspect.cleandoc(vars(base).get("__doc__") or "") for base in own]
    fields = [field for text in docstrings for field in re.split(r"^(?=:\w)", text, flags=re.MULTILINE)]
    described = {found[1]: field for field in reversed(fields) if (found := re.match(r":param (\w+):", field))}
    parameters = {
        parameter.name
        for base in own
        for parameter in inspect.signature(vars(base).get("__init__", lambda: None)).parameters.values()
        if parameter.name != "self" and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }

    assert parameters - set(described) == set()
    assert {
        parameter for parameter in parameters if name in SECTIONS and f"| `{parameter}` |" not in SECTIONS[name]
    } == set()
    templated = parameters & set(getattr(cls, "template_fields", ()))
    assert {field for field in templated if "(templated)" not in described[field]} == set()
