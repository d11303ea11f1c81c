"""The reference: every public class has a section with an example that is run, and no parameter is left out."""

from __future__ import annotations

import ast
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
    parameters = accepted(cls)
    templated = parameters & set(getattr(cls, "template_fields", ()))
    section = re.search(r"<!-- generated: (?:parameters|members) .*?<!-- end of", SECTIONS.get(name, ""), re.DOTALL)
    table = section[0].split("\n### ")[0] if section else ""
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (yes)? ?\|$", table, re.MULTILINE))

    assert parameters - set(described) == set()
    assert {field for field in templated if "(templated)" not in described[field]} == set()
    if rows:
        assert set(rows) == parameters
    if rows and hasattr(cls, "template_fields"):
        assert {field for field, is_templated in rows.items() if is_templated} == templated


SAMPLES = [
    pytest.param(sample, returned, id=name)
    for page in sorted(REFERENCE.glob("*.md"))
    for name, section in re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    for sample, returned in re.findall(
        r"^A result:\n\n```python\n(.*?)```.*?^(Returns .*?)$", section, re.M | re.DOTALL
    )
]


@pytest.mark.parametrize(("sample", "returned"), SAMPLES)
def test_sample_of_a_result_has_the_keys_that_are_returned(sample, returned):
    value = ast.literal_eval(sample)

    keys = (value[0] if isinstance(value, list) else value).keys()
    assert keys <= set(re.findall(r"\w+", returned))


def accepted(cls: type) -> set[str]:
    """Return the parameters that a class of the package takes, without those of Airflow."""
    found: set[str] = set()
    for base in cls.__mro__:
        if base.__module__.startswith("airflow_provider_workflows.") and "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            found |= {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
                break
    return found - {"self"} - getattr(cls, "not_taken", frozenset())
