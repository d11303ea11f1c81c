"""The figures in the page on scaling are those of the run whose results are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import report

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / report.PAGE).read_text()


@pytest.fixture(scope="module")
def results():
    return json.loads((ROOT / report.RESULTS).read_text())


def test_the_tables_show_the_results(results):
    shown = PAGE.partition(report.BEGIN)[2].partition(report.END)[0]

    assert shown.strip() == report.tables(results).strip()


def test_the_chart_shows_the_results(results):
    assert (ROOT / report.CHART).read_text() == report.chart(results)
