"""The generated parts of the pages are current, and the sides of every open question are tested."""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path

import pytest

from airflow_provider_workflows.diagnostics.open_questions import open_questions
from benchmarks import report
from docs import generate, navigation

ROOT = Path(__file__).parents[2]
PAGES = [page for page in generate.pages() if generate.GENERATED.search(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_generated_parts_are_current(page):
    assert page.read_text() == generate.generated(page), "run make generate"


def test_llms_txt_is_current():
    assert (generate.DOCS / "llms.txt").read_text() == navigation.llms_txt(), "run make generate"


def test_every_page_is_in_the_navigation_once():
    listed = [page for pages in navigation.sections().values() for page in pages]
    pages = {page.relative_to(generate.DOCS).with_suffix("").as_posix() for page in generate.DOCS.rglob("*.md")}

    assert sorted(listed) == sorted(pages - {"index"})


def test_chart_shows_the_stored_results():
    results = json.loads((ROOT / report.RESULTS).read_text())

    assert (ROOT / report.CHART).read_text() == report.chart(results)


@pytest.mark.parametrize("row", open_questions(), ids=lambda row: row.question[:60])
def test_open_question_names_the_tests_of_its_sides(row):
    assert row.tests
    for test in row.tests:
        file, _, name = test.partition("::")
        assert name in functions_of(file), test


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
