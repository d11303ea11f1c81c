"""Links to Airflow's own pages: from a task to the Approvals page and its report, and from a comment to its run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

APPROVALS_PAGE = "plugin/workflows-approvals"


class ApprovalsLink(BaseOperatorLink):
    """Open the Approvals page with the waits of the task's DAG (Airflow 3.1+)."""

    name = "Approvals"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        # Airflow calls this on the worker after each run of the task, and stores the link as an XCom.
        from airflow.plugins_manager import AirflowPlugin

        if not hasattr(AirflowPlugin, "external_views"):  # before Airflow 3.1 plugins have no pages
            return ""
        # Without a base URL the address is relative to Airflow's pages.
        return f"{base_url() or ''}{APPROVALS_PAGE}?dag_id={quote(ti_key.dag_id, safe='')}"


class ReportLink(BaseOperatorLink):
    """Open the page of a cycle-time report, if the operator knows an address for browsers."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        return getattr(operator, "report_link", "")


def base_url() -> str | None:
    """Return the address of Airflow's pages from ``[api] base_url``, ending with a slash, or None if it is not set."""
    address = (conf.get("api", "base_url", fallback=None) or "").strip()
    return f"{address.rstrip('/')}/" if address.startswith(("https://", "http://")) else None


def run_footer(context: Mapping[str, Any]) -> str:
    """Return the lines that name a task instance, the same in each try, and link to it if the address is known."""
    ti = context["ti"]
    is_mapped = ti.map_index is not None and ti.map_index >= 0
    footer = f"Airflow: DAG {ti.dag_id}, run {ti.run_id}, task {ti.task_id}{f'[{ti.map_index}]' if is_mapped else ''}"
    address = base_url()
    if address is None:
        return footer
    dag, run, task = (quote(name, safe="") for name in (ti.dag_id, ti.run_id, ti.task_id))
    return f"{footer}\n{address}dags/{dag}/runs/{run}/tasks/{task}{f'/mapped/{ti.map_index}' if is_mapped else ''}"


def with_footer(comment: str | None, footer: str | None) -> str | None:
    """Return a comment with its footer; the footer alone if there is no comment."""
    return "\n\n".join(text for text in (comment, footer) if text) if footer else comment
