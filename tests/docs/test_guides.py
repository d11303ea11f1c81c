"""The pages that people read: their DAGs are tested, their errors are real, and their code does what they say."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_provider_workflows import exceptions
from tests.support.examples import run_source

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDES = sorted(path for path in (DOCS / "guides").glob("*.md") if path.stem != "index")
TROUBLES = (DOCS / "troubleshooting.md").read_text()
ERRORS = re.findall(r"^### (\w+)$", TROUBLES, re.MULTILINE)
QUOTED = re.compile(r"`([^`\n]+)`")


def python_in(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


# --- guides ---


@pytest.fixture(scope="module")
def run_by_tests() -> set[str]:
    """The example DAGs that a test runs: those that it names in the rooms where DAGs are run."""
    rooms = [room for room in (ROOT / "tests").iterdir() if room.is_dir() and room.name != "package"]
    named: set[str] = set()
    for file in (file for room in rooms for file in room.rglob("test_*.py")):
        named |= set(re.findall(r'"(example_\w+)(?:\.py)?"', file.read_text()))
    return named


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_a_guide_shows_a_dag_that_a_test_runs(guide, run_by_tests):
    shown = re.findall(r"<!-- generated: code (example_\w+)\.py", guide.read_text())

    assert shown
    assert [name for name in shown if not (ROOT / "example_dags" / f"{name}.py").exists()] == []
    assert [name for name in shown if name not in run_by_tests] == []


# --- troubleshooting ---


def texts_of_the_code() -> list[str]:
    """Return every text of the package, with a gap where a value goes."""
    texts = []
    for file in (ROOT / "airflow_provider_workflows").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def section(name: str) -> str:
    return TROUBLES.split(f"\n### {name}\n")[1].split("\n## ")[0].split("\n### ")[0]


def quoted_messages(text: str) -> list[str]:
    """Return the messages that a text quotes: those with blanks in them, which no name of a setting has."""
    lines = (line for line in text.split("\n```") if not line.startswith(("sh\n", "text\n")))
    found = [text for part in lines for text in QUOTED.findall(part.replace("\n", " "))]
    return [text for text in found if " " in text and not re.search(r"[=\[]|^(airflow-workflows|GET|POST) ", text)]


def test_every_error_class_has_a_section_and_vice_versa():
    classes = {name for name in exceptions.__all__ if isinstance(getattr(exceptions, name), type)}

    assert sorted(ERRORS) == sorted(classes)


def test_every_message_that_is_listed_is_one_of_the_code():
    texts = texts_of_the_code()
    messages = quoted_messages(TROUBLES)

    def is_quoted(message: str) -> bool:
        parts = [re.escape(part.strip()) for part in message.split("...") if part.strip()]
        pattern = re.compile(".*".join(parts), re.DOTALL)
        return any(pattern.search(text) for text in texts)

    assert len(messages) > 40
    assert [message for message in messages if not is_quoted(message)] == []


# --- the code of the pages ---


def command_of_the_person(page: str) -> tuple[str, dict]:
    """Return the control route and the body of the first curl of a page, which acts as a user."""
    path, body = re.findall(
        r"curl -X POST http://127.0.0.1:8099/_emulator/(\S+).*?-d '(.*?)'", (DOCS / page).read_text(), re.S
    )[0]
    return path, json.loads(body)


@pytest.mark.usefixtures("airflow_connections", "airflow_db")
@pytest.mark.parametrize(
    ("page", "dag_id", "action"),
    [
        pytest.param("quickstart.md", "approve_purchase_orders", "respond", marks=pytest.mark.slow),
        ("quickstart-legacy.md", "submit_purchase_order", "perform_activity"),
        ("quickstart-workflowsoft.md", "register_vendors", "complete"),
    ],
)
def test_quickstart_runs_with_its_own_commands(emulator, tmp_path, monkeypatch, page, dag_id, action):
    (source,) = python_in(page)
    path, body = command_of_the_person(page)
    ended = threading.Event()

    def act_as_the_user() -> None:
        while not ended.wait(0.1):
            with contextlib.suppress(RuntimeError):  # until it is the person's turn
                emulator.control("POST", path, **body)
                return

    with ThreadPoolExecutor() as people:
        people.submit(act_as_the_user)
        try:
            run = run_source(dag_id, source, monkeypatch, tmp_path)
        finally:
            ended.set()

    assert str(run.state) == "success"
    assert [e["action"] for e in emulator.effects() if e["via"] == "api"].count(action) == 1


@pytest.mark.usefixtures("airflow_connections", "airflow_db")
def test_quickstart_and_the_tests_of_the_testing_page_pass(emulator, tmp_path, monkeypatch):
    (quickstart,) = python_in("quickstart.md")
    (tmp_path / "approve_purchase_orders.py").write_text(quickstart)
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "approve_purchase_orders", raising=False)

    for text in python_in("testing.md"):
        module: dict = {}
        exec(compile(text, "testing.md", "exec"), module)
        for name in [name for name in module if name.startswith("test_")]:
            emulator.control("POST", "reset", seed="default")
            module[name](emulator)
