"""The web app of the Approvals page: static files, the rows as JSON and CSV, and the read on request."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.providers.common.compat.sdk import conf
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse

from airflow_provider_workflows.plugin import waits
from airflow_provider_workflows.plugin.read_now import CurrentStates
from airflow_provider_workflows.plugin.waits import ROWS_PER_PAGE, Filters, WaitRow
from airflow_provider_workflows.settings import approvals_page_reads

FOLDER = Path(__file__).parent / "page"
FILES = {
    "page.js": "text/javascript",
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
    "icon-dark.svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NOTHING_TO_SHOW = "This task does not wait for an approval now."
CSV_COLUMNS = (
    *("product", "workflow", "subject", "item_id", "instance_id", "tool_type", "project_id", "item_url", "step"),
    *("assignees", "since", "due", "overdue", "escalation_level", "started_at", "deadline", "poll_interval"),
    *("last_error", "as_of", "note"),
    *("dag_id", "run_id", "task_id", "map_index", "label", "state", "asset", "watcher"),
)
Sort = Literal["since", "due", "step", "person", "dag", "product", "item"]


def build_app(states: CurrentStates | None = None) -> FastAPI:
    """Build the app; Airflow has started by now, so its auth manager exists."""
    app = FastAPI(title="Approvals", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.auth_manager = get_auth_manager()
    app.state.current_states = states or CurrentStates()

    @app.middleware("http")
    async def add_headers(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    app.add_api_route("/", _shell, methods=["GET"])
    app.add_api_route("/task", _shell, methods=["GET"])
    app.add_api_route("/{name}", _file, methods=["GET"])
    app.add_api_route("/api/waits", list_waits, methods=["GET"])
    app.add_api_route("/api/waits.csv", download_waits, methods=["GET"])
    app.add_api_route("/api/task", show_task, methods=["GET"])
    app.add_api_route("/api/read", read_waits_now, methods=["POST"])
    return app


def _shell() -> FileResponse:
    return FileResponse(FOLDER / "index.html", media_type="text/html")


def _file(name: str) -> FileResponse:
    if name not in FILES:
        raise HTTPException(404, "Not found")
    return FileResponse(FOLDER / name, media_type=FILES[name])


def _filters(
    person: str | None = None,
    dag_id: str | None = None,
    product: str | None = None,
    overdue: bool = False,
    search: str = "",
) -> Filters:
    return Filters(person, dag_id or None, product or None, overdue, search.strip())


FiltersDep = Annotated[Filters, Depends(_filters)]


def _visible(request: Request, user: Any, session: Any) -> list[WaitRow]:
    """Read the waits of the DAGs that the user may read."""
    auth_manager = request.app.state.auth_manager
    rows = waits.read_waits(
        session,
        auth_manager.get_authorized_dag_ids(user=user),
        sees_assets=auth_manager.is_authorized_asset(method="GET", user=user),
        now=waits.utc_now(),
    )
    _apply_states(request, rows)
    return rows


def _apply_states(request: Request, rows: list[WaitRow]) -> None:
    now = waits.utc_now()
    for row in request.app.state.current_states.apply(rows):
        row.overdue = waits.is_overdue(row.wait, now)


def list_waits(
    request: Request,
    user: GetUserDep,
    session: SessionDep,
    filters: FiltersDep,
    sort: Sort = "since",
    descending: bool = False,
    page: Annotated[int, Query(ge=1)] = 1,
) -> dict[str, Any]:
    """Return one page of the waits that match, with the figures and choices of the page."""
    visible = _visible(request, user, session)
    of_all_people = [row for row in visible if filters.match(row, any_person=True)]
    rows = waits.sort_rows((row for row in of_all_people if filters.match(row)), sort, descending=descending)
    pages = max(1, -(-len(rows) // ROWS_PER_PAGE))
    page = min(page, pages)
    shown = rows[(page - 1) * ROWS_PER_PAGE : page * ROWS_PER_PAGE]
    waits.add_arguments(session, shown)
    now = waits.utc_now()
    return {
        "as_of": now.isoformat(),
        "page": page,
        "pages": pages,
        "total": len(rows),
        "reads_allowed": approvals_page_reads(),
        "tiles": waits.tiles_of(rows, now),
        "people": waits.people_of(of_all_people),
        "dags": sorted({row.key[0] for row in visible if row.watcher is None}),
        "products": sorted({row.wait.product for row in visible}),
        "rows": [row.to_json() for row in shown],
    }


def download_waits(
    request: Request,
    user: GetUserDep,
    session: SessionDep,
    filters: FiltersDep,
    sort: Sort = "since",
    descending: bool = False,
) -> Response:
    """Return all waits that match as a CSV file."""
    rows = [row for row in _visible(request, user, session) if filters.match(row)]
    waits.add_arguments(session, rows)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    for row in waits.sort_rows(rows, sort, descending=descending):
        values = row.to_json()
        names = [*values["assignees"], *([f"{values['more_assignees']} more"] if values["more_assignees"] else [])]
        values["assignees"] = "; ".join(names)
        writer.writerow(_cell(values[column]) for column in CSV_COLUMNS)
    headers = {"Content-Disposition": 'attachment; filename="approvals.csv"'}
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _cell(value: Any) -> Any:
    """Return a value as a cell that a spreadsheet does not run as a formula."""
    is_formula = isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"}
    return f"'{value}" if is_formula else value


def show_task(
    request: Request,
    user: GetUserDep,
    session: SessionDep,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: str = "-1",
) -> dict[str, Any]:
    """Return the wait of one task instance for its tab."""
    if dag_id not in request.app.state.auth_manager.get_authorized_dag_ids(user=user):
        raise HTTPException(403, "Forbidden")
    # Airflow leaves the placeholder of a task that is not mapped.
    index = -1 if map_index == "{MAP_INDEX}" else _map_index(map_index)
    row = waits.read_wait(session, (dag_id, run_id, task_id, index), now=waits.utc_now())
    if row is not None:
        waits.add_arguments(session, [row])
        _apply_states(request, [row])
    return {
        "row": None if row is None else row.to_json(),
        "message": NOTHING_TO_SHOW if row is None else None,
        "reads_allowed": approvals_page_reads(),
    }


def _map_index(text: str) -> int:
    if not re.fullmatch(r"-1|\d{1,9}", text, re.ASCII):
        raise HTTPException(422, "map_index must be -1 or the index of a mapped task.")
    return int(text)


def read_waits_now(request: Request, user: GetUserDep, session: SessionDep, filters: FiltersDep) -> dict[str, Any]:
    """Read the current state of the waits that match from Procore."""
    _check_origin(request)
    if not approvals_page_reads():
        raise HTTPException(403, "Reading is off. Set [workflows] approvals_page_reads to True to allow it.")
    rows = [row for row in _visible(request, user, session) if filters.match(row) and row.watcher is None]
    waits.add_arguments(session, rows)
    report: dict[str, Any] = request.app.state.current_states.read(rows).to_json()
    return report


def _check_origin(request: Request) -> None:
    """Reject a request that another site sends with the login of the user."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Send application/json.")
    _, _, host = request.headers.get("origin", "").partition("://")
    if not host or host not in {request.headers.get("host"), _base_host()}:
        raise HTTPException(403, "The request comes from another site.")


def _base_host() -> str | None:
    """Return the host by which browsers reach Airflow, which a proxy may have replaced in the header Host."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").netloc or None
