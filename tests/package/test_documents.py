"""README and docs: their code runs, their links lead somewhere."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import BaseHook
from airflow.sdk import DAG

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(), re.DOTALL)


def test_the_dag_in_the_readme_is_a_dag_of_about_fifteen_lines():
    (text,) = blocks(ROOT / "README.md", "python")
    module: dict = {}
    exec(compile(text, "README.md", "exec"), module)

    dag = module["approve_purchase_orders"]()

    assert isinstance(dag, DAG)
    assert [task.task_id for task in dag.topological_sort()] == ["waiting", "order", "answer", "outcome"]
    assert len(text.splitlines()) <= 16


def test_the_first_example_of_workflowsoft_is_a_dag():
    module: dict = {}
    exec(compile(blocks(ROOT / "docs" / "workflowsoft.md", "python")[0], "workflowsoft.md", "exec"), module)

    dag = module["register_vendors"]()

    assert [task.task_id for task in dag.topological_sort()] == ["waiting", "register"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_in_the_documents_is_python(document):
    for text in blocks(document, "python"):
        ast.parse(text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_json_and_uri_forms_of_connections_are_read_by_airflow(document, monkeypatch):
    for text in blocks(document, "json"):
        monkeypatch.setenv("AIRFLOW_CONN_C", text)
        assert BaseHook.get_connection("c").conn_type in ("procore", "workflowsoft")
    for uri in re.findall(r"^(?:procore|workflowsoft)://\S+$", document.read_text(), re.MULTILINE):
        monkeypatch.setenv("AIRFLOW_CONN_C", uri)
        connection = BaseHook.get_connection("c")
        assert connection.conn_type in uri
        assert json.loads(connection.extra)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_the_documents_lead_somewhere(document):
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text())

    missing = [t for t in targets if "://" not in t and not (document.parent / t).exists()]
    assert missing == []


def test_the_documents_say_that_minting_is_undocumented():
    assert "undocumented by the vendor" in (ROOT / "docs" / "connections.md").read_text()


def test_every_switch_of_the_emulator_is_documented_with_its_values():
    from airflow_provider_workflows.emulator.world import SWITCHES

    text = (ROOT / "docs" / "emulator.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE))

    assert documented == {name: switch.allowed for name, switch in SWITCHES.items()}


def test_every_field_of_a_connection_is_documented():
    from airflow_provider_workflows.get_provider_info import get_provider_info

    text = (ROOT / "docs" / "connections.md").read_text()
    fields = {name for form in get_provider_info()["connection-types"] for name in form["conn-fields"]}

    assert {name for name in fields if f"`{name}`" not in text} == set()


def test_every_setting_of_airflows_configuration_is_documented():
    from airflow_provider_workflows.get_provider_info import get_provider_info

    text = "\n".join(document.read_text() for document in DOCUMENTS)
    options = get_provider_info()["config"]["workflows"]["options"]

    assert {name for name in options if f"[workflows] {name}" not in " ".join(text.split())} == set()
