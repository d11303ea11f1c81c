"""README and docs: their code runs, their links lead somewhere."""

from __future__ import annotations

import ast
import configparser
import importlib
import inspect
import json
import re
import subprocess
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.providers.common.compat.sdk import BaseHook
from airflow.sdk import DAG

from docs.generate import GENERATED
from tests.docs.test_reference import PUBLIC, SOURCES

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "airflow_provider_workflows"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)])
FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[^\n`]*)\n(?P<text>.*?)^ *(?P=ticks) *$", re.M | re.S)


@cache
def fences(document: Path) -> list[tuple[str, str]]:
    """Return language and text of each block, without the indentation that a list gives it."""
    return [
        (found["language"].strip(), re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE))
        for found in FENCE.finditer(document.read_text())
    ]


def blocks(document: Path, *languages: str) -> list[str]:
    return [text for language, text in fences(document) if language in languages]


def written(document: Path) -> list[str]:
    """Return the Python blocks that do not come from an example DAG; other tests run those."""
    by_hand = GENERATED.sub("", document.read_text())
    return [textwrap.dedent(found["text"]) for found in FENCE.finditer(by_hand) if found["language"] == "python"]


def run(text: str, name: str) -> dict[str, Any]:
    module: dict[str, Any] = {}
    exec(compile(text, name, "exec"), module)
    return module


def is_dag(node: ast.AST) -> bool:
    """Return whether a function is decorated with ``@dag(...)``."""
    return isinstance(node, ast.FunctionDef) and any(
        ast.unparse(decorator).startswith("dag") for decorator in node.decorator_list
    )


def pages_with(*languages: str) -> Any:
    """Run a test for each page that has a block of these languages."""
    pages = [page for page in DOCUMENTS if blocks(page, *languages)]
    return pytest.mark.parametrize("document", pages, ids=lambda page: str(page.relative_to(ROOT)))


# --- blocks ---


def test_every_block_is_of_a_kind_that_is_checked():
    checked = {"python", "sh", "console", "json", "toml", "ini", "yaml", "text"}

    kinds = {page.name: {language for language, _ in fences(page)} for page in DOCUMENTS}
    assert {page: unknown for page, found in kinds.items() if (unknown := found - checked)} == {}


@pages_with("python")
def test_python_blocks_parse_and_dags_in_them_run(document):
    for text in blocks(document, "python"):
        ast.parse(text)
    for text in written(document):
        tree = ast.parse(text)
        dags = [node.name for node in tree.body if is_dag(node)]
        module = run(text, document.name) if dags else {}
        assert all(isinstance(module[name](), DAG) for name in dags)


@pages_with("python")
def test_documents_import_existing_names_and_parameters(document):
    for node in (node for text in blocks(document, "python") for node in ast.walk(ast.parse(text))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("airflow_provider_workflows"):
            module = importlib.import_module(node.module)
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []
        called = ast.unparse(node.func).removesuffix(".partial") if isinstance(node, ast.Call) else ""
        if isinstance(PUBLIC.get(called), type):
            passed = {keyword.arg for keyword in node.keywords if keyword.arg}
            assert passed <= accepted(PUBLIC[called]), f"{called} has no {passed - accepted(PUBLIC[called])}"


@cache
def accepted(cls: type) -> set[str]:
    """Return the parameters of a class and of all its bases."""
    inits = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base) and base is not object]
    known = {name for init in inits for name in inspect.signature(init).parameters}
    return known | {"retry_policy"}  # of Airflow 3.3; the documents say so


@pages_with("sh", "console")
def test_commands_in_the_documents_are_shell(document):
    typed = re.findall(r"^\$ (.*)$", "\n".join(blocks(document, "console")), re.MULTILINE)  # the rest is output
    for text in [*blocks(document, "sh"), *typed]:
        checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)  # reads, runs nothing
        assert checked.stderr == ""


def test_settings_in_the_documents_are_read_by_their_readers():
    for document in DOCUMENTS:
        for text in blocks(document, "toml"):
            assert tomllib.loads(text)
        for text in blocks(document, "yaml"):
            assert yaml.safe_load(text)
        for text in blocks(document, "ini"):
            settings = configparser.ConfigParser(interpolation=None)
            settings.read_string(text)
            assert settings.sections()


@pages_with("json", "text")
def test_json_and_uri_forms_of_connections_are_read_by_airflow(document, monkeypatch):
    for text in blocks(document, "json"):
        connection = json.loads(text)
        if isinstance(connection, dict) and "conn_type" in connection:
            monkeypatch.setenv("AIRFLOW_CONN_C", text)
            assert BaseHook.get_connection("c").conn_type in ("procore", "workflowsoft")
    for uri in re.findall(r"^(?:procore|workflowsoft)://\S+$", document.read_text(), re.MULTILINE):
        monkeypatch.setenv("AIRFLOW_CONN_C", uri)
        connection = BaseHook.get_connection("c")
        assert connection.conn_type in uri
        assert json.loads(connection.extra)


# --- links ---


def prose(document: Path) -> str:
    """Return a document without its code."""
    return re.sub(r"`[^`\n]*`", "`code`", FENCE.sub("", document.read_text()))


@cache
def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub and the site give the headings of a document."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*?) *$", FENCE.sub("", document.read_text()), re.MULTILINE):
        text = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        repeated = sum(1 for anchor in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", anchor))
        found.add(f"{slug}-{repeated}" if repeated else slug)
    return found


def links(document: Path) -> Iterator[tuple[str, str]]:
    """Return path and anchor of each link that stays in this repository."""
    for target in re.findall(r"\]\(\s*<?([^)\s>]+)", prose(document)):
        if "://" not in target and not target.startswith("mailto:"):
            path, _, anchor = target.partition("#")
            yield path, anchor


def test_links_between_the_documents_lead_somewhere():
    missing = [
        f"{page.relative_to(ROOT)}: {path}"
        for page in DOCUMENTS
        for path, _ in links(page)
        if not (page.parent / path).exists()
    ]

    assert missing == []


def test_anchors_of_links_are_headings_of_the_page_they_lead_to():
    missing = []
    for document in DOCUMENTS:
        for path, anchor in links(document):
            page = (document.parent / path).resolve() if path else document
            if anchor and page.suffix == ".md" and page.exists() and anchor not in anchors(page):
                missing.append(f"{document.relative_to(ROOT)}: {path}#{anchor}")

    assert missing == []


def test_readme_links_work_outside_of_the_repository():
    readme = ROOT / "README.md"
    source = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)", prose(readme))
    files = [
        found[1] for found in (re.match(rf"{source}/(?:blob|tree)/main/(\S+)", target) for target in targets) if found
    ]

    assert files
    assert [path for path, _ in links(readme)] == []  # a package index shows the page without the repository
    assert [path for path in files if not (ROOT / path).exists()] == []


def test_every_test_that_a_page_names_exists():
    pages = [page for page in DOCUMENTS if DOCS in page.parents]
    named = {name for page in pages for name in re.findall(r"`(tests/[\w/]+(?:\.py)?)[` ]", page.read_text())}

    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_every_picture_has_a_text_that_describes_it():
    assert [page for page in DOCUMENTS if "![](" in page.read_text()] == []


def test_every_page_is_reached_from_the_first():
    reached, left = set(), [DOCS / "index.md"]
    while left:
        page = left.pop()
        reached.add(page)
        pages = {(page.parent / path).resolve() for path, _ in links(page) if path.endswith(".md")}
        left += [page for page in pages if DOCS in page.parents and page.exists() and page not in reached]

    assert {str(page.relative_to(DOCS)) for page in DOCUMENTS if DOCS in page.parents and page not in reached} == set()


# --- what they must say ---


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "AGENTS.md"])
def test_paths_and_functions_named_for_contributors_exist(name):
    quoted = [
        name_part.partition("::") for name_part in re.findall(r"`([\w./:]+)`", FENCE.sub("", (ROOT / name).read_text()))
    ]
    paths = {
        path: next((room / path for room in (PACKAGE, ROOT) if (room / path).exists()), None)
        for path, _, _ in quoted
        if "/" in path or path.endswith(".py")
    }
    missing = [path for path, file in paths.items() if file is None]
    unknown = []
    for path, _, names in quoted:
        for each in names.split(".") if names and path not in missing else []:
            if not re.search(rf"^ *(?:def|class) {each}\b|^{each}\b", paths[path].read_text(), re.MULTILINE):
                unknown.append(f"{path}::{names}")

    assert len(paths) > 5
    assert (missing, unknown) == ([], [])


def test_every_field_of_a_connection_is_documented():
    from airflow_provider_workflows.get_provider_info import get_provider_info

    text = (DOCS / "connections.md").read_text()
    fields = {name for form in get_provider_info()["connection-types"] for name in form["conn-fields"]}

    assert {name for name in fields if f"`{name}`" not in text} == set()


def test_every_setting_of_airflows_configuration_is_documented():
    from airflow_provider_workflows.get_provider_info import get_provider_info

    text = "\n".join(document.read_text() for document in DOCUMENTS)
    options = get_provider_info()["config"]["workflows"]["options"]

    assert {name for name in options if f"[workflows] {name}" not in " ".join(text.split())} == set()


def test_every_statistic_is_documented():
    counted = {name for path in SOURCES for name in re.findall(r'"(workflows\.[a-z_]+)"', path.read_text())}
    text = "\n".join(document.read_text() for document in DOCUMENTS)

    assert counted
    assert {name for name in counted if f"`{name}`" not in text} == set()
