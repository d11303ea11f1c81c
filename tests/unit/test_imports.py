"""What importing costs a DAG file, and which way imports point."""

from __future__ import annotations

import ast
import functools
import json
import os
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

from tests.support.versions import AIRFLOW

pytestmark = pytest.mark.compat

PACKAGE = Path(__file__).parents[2] / "airflow_provider_workflows"
NAME = PACKAGE.name
PARSED = [
    f"{NAME}.plugin",  # which every task process imports
    *sorted(
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
        for room in ("operators", "sensors", "triggers", "assets", "decorators", "notifications")
        for file in (PACKAGE / room).rglob("*.py")
        if file.stem != "__init__"
    ),
]
# What a DAG file imports that uses all products; a space separates modules that are imported together.
TOGETHER = " ".join(
    f"{NAME}.{room}.{product}"
    for product in ("procore", "procore_legacy", "workflowsoft")
    for room in ("operators", "sensors")
)
PARSED.append(TOGETHER)
HEAVY = {"requests", "pyarrow", "fastapi", "duckdb", "matplotlib", "holidays", "jinja2"}
MAX_SECONDS = 0.015  # of processor time, on a machine as quick as REFERENCE
REFERENCE = 0.0085  # seconds that such a machine takes to import the modules below
MAX_MEGABYTES = 4.0
# Imports the Airflow modules that this package needs, then measures in a fork what each module of it adds.
MEASURE = """
import importlib, json, os, sys, time
modules, airflow_modules, most_seconds, reference, most_megabytes = json.load(sys.stdin)
def importing_others():
    start = time.process_time()
    import imaplib, mailbox, pdb, pydoc, tarfile, xml.dom.minidom
    return time.process_time() - start
for name in airflow_modules:
    importlib.import_module(name)
from airflow.providers.common.compat.sdk import (  # what compat.sdk looks up lazily is Airflow's too
    AirflowFailException, AirflowSensorTimeout, AirflowSkipException, BaseOperator, BaseOperatorLink,
    BaseSensorOperator, PokeReturnValue, conf)
page = os.sysconf("SC_PAGESIZE")
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * page / 2**20
for module in modules:
    for _ in range(10):  # again only after a miss: a busy machine can be slow at any moment, not at every one
        sys.stdout.flush()
        if os.fork() == 0:
            before, memory, start = set(sys.modules), resident(), time.process_time()
            for name in module.split():
                imported = importlib.import_module(name)
                # Operators are loaded when they are first used; no DAG file uses those of all products.
                for public in () if " " in module else getattr(imported, "__all__", ()):
                    if public.endswith(("Operator", "Sensor")):
                        getattr(imported, public)
            seconds = time.process_time() - start
            added = {name.partition(".")[0] for name in set(sys.modules) - before}
            megabytes, speed = resident() - memory, importing_others()
            print(json.dumps([module, seconds, megabytes, sorted(added), speed]))
            sys.stdout.flush()
            os._exit(seconds / max(1.0, speed / reference) > most_seconds or megabytes > most_megabytes)
        if os.wait()[1] == 0:
            break
"""


def source_of(module: str) -> Path | None:
    """Return the file of a module of this package, or None."""
    path = PACKAGE.parent / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


@functools.cache
def imported(module: str) -> list[str]:
    """Return what a module imports when it is imported itself, not inside functions or for types only."""
    file = source_of(module)
    names: list[str] = []
    for node in ast.parse(file.read_text()).body if file else []:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [
                node.module,
                *(f"{node.module}.{a.name}" for a in node.names if source_of(f"{node.module}.{a.name}")),
            ]
    return names


def all_imported(module: str) -> set[str]:
    """Return everything a module imports, also through other modules of this package."""
    found: set[str] = set()
    todo = [module]
    while todo:
        for name in imported(todo.pop()):
            if name not in found:
                found.add(name)
                if name.startswith(NAME):
                    todo.append(name)
    return found


def measured(modules: list[str]) -> dict[str, list[tuple[float, float, set[str], float]]]:
    """Return seconds, megabytes, new packages of each module and the machine's speed, of up to ten measures."""
    airflow_modules = sorted(
        {name for module in PARSED for name in all_imported(module) if name.startswith("airflow.")}
    )
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        input=json.dumps([modules, airflow_modules, MAX_SECONDS, REFERENCE, MAX_MEGABYTES]),
        # Without compiled bytecode the measure would be of the compiler.
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, list[tuple[float, float, set[str], float]]] = {}
    for line in done.stdout.splitlines():
        module, seconds, megabytes, added, speed = json.loads(line)
        found.setdefault(module, []).append((seconds, megabytes, set(added), speed))
    return found


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc, which this system lacks")
@pytest.mark.skipif(AIRFLOW < (3, 3), reason="older Airflow releases load more of their modules")
def test_import_loads_nothing_heavy_and_little_memory():
    every = " ".join(PARSED)
    found = measured([TOGETHER, every])

    assert {package for _, _, added, _ in found[every] for package in added} & HEAVY == set()
    assert min(megabytes for _, megabytes, _, _ in found[TOGETHER]) <= MAX_MEGABYTES


@pytest.mark.slow  # beside other tests the processor's caches are too busy for milliseconds
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc, which this system lacks")
@pytest.mark.skipif(AIRFLOW < (3, 3), reason="older Airflow releases load more of their modules")
def test_import_costs_a_dag_file_next_to_nothing():
    every = measured(PARSED)
    # Each measure beside the machine's speed at the same moment, because the speed changes.
    costs = {
        module: min(seconds / max(1.0, speed / REFERENCE) for seconds, _, _, speed in found)
        for module, found in every.items()
    }
    megabytes = {module: min(megabytes for _, megabytes, _, _ in found) for module, found in every.items()}

    assert {module: cost for module, cost in costs.items() if cost > MAX_SECONDS} == {}
    assert {module: most for module, most in megabytes.items() if most > MAX_MEGABYTES} == {}


# What a room may import beside itself and the exceptions.
ALLOWED = {
    "client": {"requests", "error_texts", "json_text", "__version__"},
    "diagnostics": {
        *("airflow", "requests", "client", "hooks", "operators", "rules", "get_provider_info", "version_compat"),
    },
    "rules": {"error_texts", "json_text"},
    "links": {"airflow"},
    "hooks": {"airflow", "requests", "client", "rules", "version_compat", "get_provider_info"},
    "polling": {"hooks", "client", "rules", "settings", "version_compat"},
    "triggers": {"airflow", "hooks", "polling", "rules", "settings", "version_compat"},
    "sensors": {"airflow", "hooks", "rules", "settings", "version_compat", "links", "operators", "polling", "triggers"},
    "operators": {
        "airflow",
        "pyarrow",
        "hooks",
        "rules",
        "settings",
        "version_compat",
        "links",
        "polling",
        "triggers",
        "reports",
        "files",
    },
    "files": {"airflow", "pyarrow", "rules"},
    "reports": {"airflow", "files", "rules"},
    "assets": {"airflow", "rules", "triggers", "version_compat"},
    "decorators": {"airflow", "files", "operators", "rules", "sensors", "triggers", "version_compat"},
    "plugin": {"airflow", "fastapi", "polling", "rules", "settings", "version_compat"},
    "notifications": {"airflow", "hooks", "polling", "rules", "version_compat"},
    "emulator": {"fastapi"},
}
OBSERVED = {"airflow", "requests", "fastapi", "pyarrow"}


def rooms_imported(file: Path) -> set[str]:
    """Return the rooms and observed packages that a module imports anywhere, in functions and for types too."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(file.relative_to(PACKAGE.parent).parent.parts)
            base = resolve_name("." * node.level + (node.module or ""), package)
            names += [f"{base}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {name[1] for name in parts if name[0] == NAME} | {name[0] for name in parts} & OBSERVED


@pytest.mark.parametrize("room", sorted(folder.parent.name for folder in PACKAGE.glob("*/__init__.py")))
def test_imports_point_one_way(room):
    own = {room} if room == "emulator" else {room, "exceptions"}  # the emulator must be able to disagree
    wrong = {file.name: rooms_imported(file) - ALLOWED[room] - own for file in (PACKAGE / room).rglob("*.py")}

    assert {name: rooms for name, rooms in wrong.items() if rooms} == {}


def files_imported(file: Path) -> set[Path]:
    """Return the package's files that one of them imports when it runs: in functions too, but not for types only."""
    tree = ast.parse(file.read_text())
    for_types = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    package = ".".join(file.relative_to(PACKAGE.parent).parent.parts)
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {source for name in names if (source := source_of(name)) is not None and source.name != "__init__.py"}


def cycle_in(graph: dict[Path, set[Path]]) -> list[str]:
    """Return the names along a cycle of a graph, or an empty list."""
    done: set[Path] = set()

    def walk(node: Path, trail: list[Path]) -> list[Path]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        done.add(node)
        return next((found for other in sorted(graph[node]) if (found := walk(other, [*trail, node]))), [])

    cycle = next((found for node in sorted(graph) if (found := walk(node, []))), [])
    return [str(path.relative_to(PACKAGE)) for path in cycle]


def test_no_file_imports_itself_through_others():
    graph = {file: files_imported(file) - {file} for file in PACKAGE.rglob("*.py")}
    first, other = PACKAGE / "cli.py", PACKAGE / "retries.py"

    assert cycle_in(graph) == []
    assert cycle_in({first: {other}, other: {first}}) == ["cli.py", "retries.py", "cli.py"]
