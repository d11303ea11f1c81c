"""The generated tables are current, and every open question has a flag whose sides are tested."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from airflow_provider_workflows.emulator.behaviour_flags import BEHAVIOUR_FLAGS
from docs import generate

ROOT = Path(__file__).parents[2]
QUESTIONS = generate.questions()


@pytest.mark.parametrize("page", generate.pages(), ids=lambda page: page.stem)
def test_generated_tables_are_current(page):
    assert page.read_text() == generate.pages()[page], "run make generate"


@pytest.mark.parametrize("row", QUESTIONS, ids=lambda row: row["question"][:60])
def test_open_question_names_sides_flags_and_tests(row):
    assert len(row["sides"]) >= 2
    assert row["flags"]
    assert set(row["flags"]) <= set(BEHAVIOUR_FLAGS)
    assert row["tests"]
    for test in row["tests"]:
        file, _, name = test.partition("::")
        assert name in functions_of(file), test


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
