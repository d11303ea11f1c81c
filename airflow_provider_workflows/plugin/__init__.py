"""
Pages inside Airflow's UI: the Approvals page, which lists what the tasks of this provider wait for (Airflow 3.1+).

Every task process imports this module, so it imports nothing but Airflow's base class. The app is built on the first
request that reaches it, which is in the API server.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

URL_PREFIX = "/workflows-approvals"
# Relative, because Airflow can be served below a path.
PAGE = f"{URL_PREFIX[1:]}/"
TASK_TAB = f"{PAGE}task?dag_id={{DAG_ID}}&run_id={{RUN_ID}}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}"
# The tasks that have the tab from Airflow 3.4 on; before, each task of each DAG has it.
WAITING_TASKS = (
    "ProcoreApprovalOperator",
    "ProcoreAsyncOperationSensor",
    "ProcoreBulkReplaceAssigneesOperator",
    "ProcoreBulkStartInstancesOperator",
    "ProcoreInstanceSensor",
    "ProcoreItemSensor",
    "ProcoreLegacyInstanceSensor",
    "ProcoreLegacyPerformActivityOperator",
    "ProcoreResponseRequestedSensor",
    "ProcoreStartInstanceOperator",
    "WorkflowsoftIntegrationSensor",
    "_ResponseDecoratedOperator",  # of @task.procore_response
)
ICONS = {"icon": f"{PAGE}icon.svg", "icon_dark_mode": f"{PAGE}icon-dark.svg"}


class LazyApp:
    """Build the page's app when the first request arrives."""

    def __init__(self) -> None:
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            from airflow_provider_workflows.plugin.app import build_app

            self._app = build_app()
        await self._app(scope, receive, send)


class ApprovalsPlugin(AirflowPlugin):
    """Add the Approvals page to Airflow's navigation, and a tab to the task instances."""

    name = "workflows_approvals"
    # Before Airflow 3.1 a plugin has no pages.
    if hasattr(AirflowPlugin, "external_views"):
        fastapi_apps = [{"app": LazyApp(), "url_prefix": URL_PREFIX, "name": "Approvals"}]
        external_views = [
            {
                "name": "Approvals",
                "href": PAGE,
                "destination": "nav",
                "url_route": "workflows-approvals",
                "category": "browse",
                **ICONS,
            },
            {
                "name": "Approval",
                "href": TASK_TAB,
                "destination": "task_instance",
                "url_route": "workflows-approval",
                "applies_to": {"operator": list(WAITING_TASKS)},
                **ICONS,
            },
        ]
