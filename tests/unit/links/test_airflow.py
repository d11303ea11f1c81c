"""Links to Airflow's own pages."""

from __future__ import annotations

from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_workflows.links.airflow import APPROVALS_PAGE, ApprovalsLink, ReportLink, run_footer, with_footer
from airflow_provider_workflows.plugin import ApprovalsPlugin
from tests.support.versions import AIRFLOW

pytestmark = pytest.mark.compat

KEY = SimpleNamespace(dag_id="my dag/1")
TI = {"dag_id": "orders", "run_id": "manual__2026-05-04T10:00:00+00:00", "task_id": "respond"}


@pytest.fixture(params=[None, "https://air.example/base", "https://air.example/base/"])
def base(request, monkeypatch) -> str | None:
    """The address of Airflow's pages as it is configured."""
    if request.param is None:
        monkeypatch.delenv("AIRFLOW__API__BASE_URL", raising=False)
    else:
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", request.param)
    return request.param


def test_approvals_link_shows_the_waits_of_the_tasks_dag(base):
    link = ApprovalsLink().get_link(object(), ti_key=KEY)

    if AIRFLOW < (3, 1):
        assert link == ""
        return
    parts = urlsplit(link)
    assert parse_qs(parts.query) == {"dag_id": ["my dag/1"]}
    assert parts._replace(query="").geturl() == ("https://air.example/base/" if base else "") + APPROVALS_PAGE


@pytest.mark.skipif(AIRFLOW < (3, 1), reason="before Airflow 3.1 plugins have no pages")
def test_approvals_link_leads_to_the_page_of_the_plugin():
    page, _ = ApprovalsPlugin.external_views

    assert f"plugin/{page['url_route']}" == APPROVALS_PAGE


@pytest.mark.parametrize("map_index", [-1, 3])
def test_footer_names_and_links_the_task_instance(base, map_index):
    lines = run_footer({"ti": SimpleNamespace(**TI, map_index=map_index, try_number=2)}).splitlines()

    assert lines[0] == f"Airflow: DAG orders, run {TI['run_id']}, task respond{'[3]' if map_index == 3 else ''}"
    path = "dags/orders/runs/manual__2026-05-04T10%3A00%3A00%2B00%3A00/tasks/respond"
    mapped = "/mapped/3" if map_index == 3 else ""
    assert lines[1:] == ([f"https://air.example/base/{path}{mapped}"] if base else [])


def test_footer_is_the_same_in_every_try():
    tries = [SimpleNamespace(**TI, map_index=-1, try_number=number) for number in (1, 2)]

    assert len({run_footer({"ti": ti}) for ti in tries}) == 1


@pytest.mark.parametrize(
    ("comment", "footer", "sent"),
    [(None, None, None), ("a", None, "a"), ("", None, ""), (None, "f", "f"), ("a", "f", "a\n\nf")],
)
def test_footer_comes_after_the_comment(comment, footer, sent):
    assert with_footer(comment, footer) == sent


def test_report_link_is_empty_until_the_address_is_known():
    assert ReportLink().get_link(SimpleNamespace(), ti_key=KEY) == ""
    assert ReportLink().get_link(SimpleNamespace(report_link="https://x/r.html"), ti_key=KEY) == "https://x/r.html"
