"""The routes of Procore Legacy Workflows v1."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.datastructures import FormData, UploadFile

from ..procore.gateway import as_json, check_access, page_of
from ..procore.schemas import GatewayError
from ..state import COMPANY, PROJECTS, EmulatorState, Rejection
from . import schemas
from .instances import Attachments, Instance, ProcoreLegacy
from .response_formats import history, permanent_log, show, termination_log

BODY_IDS = ("workflow_activity_id", "workflow_instance_id", "workflow_user_role_id", "performed_by_id")
NESTED_ATTACHMENTS = "workflow_activity_history[attachments][]"

ObjectType = Annotated[str | None, Query(alias="filters[workflowed_object_type]")]
ObjectId = Annotated[int | None, Query(alias="filters[workflowed_object_id]")]


def routes(state: EmulatorState, legacy: ProcoreLegacy) -> APIRouter:
    async def signed_in(request: Request, company_id: int | None = None) -> None:
        check_access(state, request)
        if company_id is None:
            raise Rejection(400, {"message": "company_id is missing", "code": 400})
        if str(company_id) != COMPANY["id"]:
            raise Rejection(403, {"message": "Access denied", "code": 403})

    def find(
        instance_id: int | None, object_type: str | None, object_id: int | None, *, for_history: bool = False
    ) -> Instance:
        if object_type is not None and object_id is not None and state.flags["legacy_filters"] == "honoured":
            found = next(iter(legacy.of_object(object_type, object_id)), None)
        else:
            found = legacy.instances.get(instance_id) if instance_id is not None else None
        # The history of a stuck instance stays as it is.
        if found is None or (is_gone(found) and not (for_history and found.is_stuck)):
            raise Rejection(404, {"errors": "Not Found"})
        return found

    def is_gone(found: Instance) -> bool:
        if found.upgraded_at is not None:
            return bool(state.flags["legacy_left_behind"] == "not_found")
        return found.has_ended and bool(state.flags["legacy_ended"] == "not_found")

    router = APIRouter(
        prefix="/rest/v1.0",
        dependencies=[Depends(signed_in)],
        responses={status: {"model": GatewayError} for status in (400, 401, 403, 404, "default")},
        tags=["Procore legacy"],
    )

    @router.get("/workflow_instances", response_model=list[schemas.LegacyInstance])
    async def list_instances(
        request: Request,
        response: Response,
        object_type: ObjectType = None,
        object_id: ObjectId = None,
        project_id: int | None = None,
        page: int = 1,
        per_page: int = 100,
    ) -> Any:
        if state.flags["legacy_list"] == "forbidden":
            raise Rejection(403, {"message": "You do not have access to the workflows of this company", "code": 403})
        some = legacy.of_object(object_type, object_id)
        # Inlined has_ended, because 100,000 property calls would slow a page down.
        found = [i for i in some if i.terminated_at is None and (i.state.activities or i.moves_to is not None)]
        if legacy.upgraded and state.flags["legacy_left_behind"] in ("not_found", "terminated"):
            found = [instance for instance in found if instance.upgraded_at is None]
        base_url = _base(request)
        shown = page_of(request, response, found, page, per_page)
        return as_json(response, [show(legacy, instance, base_url, is_listed=True) for instance in shown])

    @router.get("/workflow_instances/{id}", response_model=schemas.LegacyInstance)
    async def show_instance(
        request: Request, id: int, object_type: ObjectType = None, object_id: ObjectId = None
    ) -> Any:
        return show(legacy, find(id, object_type, object_id), _base(request))

    @router.get(
        "/workflow_activity_histories",
        response_model=list[schemas.LegacyHistory],
        response_model_exclude_unset=True,
    )
    async def list_histories(
        request: Request,
        response: Response,
        workflow_instance_id: int | None = None,
        object_type: ObjectType = None,
        object_id: ObjectId = None,
        sort: Literal["created_at", "-created_at"] | None = None,
        page: int = 1,
        per_page: int = 100,
    ) -> Any:
        if workflow_instance_id is None and (object_type is None or object_id is None):
            raise Rejection(400, {"message": "workflow_instance_id is missing", "code": 400})
        if state.flags["legacy_filters"] == "ignored":
            rows = list(legacy.history.values())
        else:
            rows = list(find(workflow_instance_id, object_type, object_id, for_history=True).history)
        newest_first = sort == "-created_at" or (sort is None and state.flags["legacy_history_order"] == "newest_first")
        rows.sort(key=lambda row: (row.at, row.id), reverse=newest_first)
        return [history(legacy, row) for row in page_of(request, response, rows, page, per_page)]

    @router.get(
        "/workflow_activity_histories/{id}",
        response_model=schemas.LegacyHistory,
        response_model_exclude_unset=True,
    )
    async def show_history(id: int, workflow_instance_id: int | None = None) -> Any:
        row = legacy.history.get(id)
        if row is None or workflow_instance_id not in (None, row.instance_id):
            raise Rejection(404, {"errors": "Not Found"})
        return history(legacy, row)

    @router.post(
        "/workflow_activity_histories",
        response_model=schemas.LegacyHistory,
        response_model_exclude_unset=True,
        status_code=201,
    )
    async def perform_activity(request: Request, workflow_instance_id: int | None = None) -> Any:
        body, attachments = await _activity_body(request, is_plain=state.flags["legacy_attachments"] == "plain")
        ids = {name: _whole_number(body.get(name)) for name in BODY_IDS}
        wrong = [name for name, number in ids.items() if not number]
        if wrong or workflow_instance_id is None:
            names = wrong or ["workflow_instance_id"]
            raise Rejection(400, {"errors": {name: ["is missing or not a number"] for name in names}})
        if ids["workflow_instance_id"] != workflow_instance_id:
            raise Rejection(400, {"errors": {"workflow_instance_id": ["does not match the query"]}})
        row = legacy.perform(
            find(workflow_instance_id, None, None),
            ids["workflow_activity_id"],
            ids["workflow_user_role_id"],
            str(ids["performed_by_id"]),
            body.get("comments"),
            attachments,
            "api",
        )
        return history(legacy, row)

    all_routes = APIRouter()
    all_routes.include_router(router)
    all_routes.include_router(_permanent_log_routes(state, legacy))
    return all_routes


def _permanent_log_routes(state: EmulatorState, legacy: ProcoreLegacy) -> APIRouter:
    """Return the routes of the permanent logs. Their path names the company or project, the query only the object."""
    router = APIRouter(
        prefix="/rest/v1.0",
        responses={
            400: {"model": schemas.PermanentLogError | GatewayError},
            **{status: {"model": GatewayError} for status in (401, 403, 404, "default")},
        },
        tags=["Procore legacy"],
    )

    def logs(object_type: str | None, object_id: int | None, project_id: str | None) -> list[dict[str, Any]]:
        filters = {"workflowed_object_type": object_type, "workflowed_object_id": object_id}
        missing = [name for name, value in filters.items() if value is None]
        if missing:
            raise Rejection(400, dict.fromkeys(missing, "is missing"))
        kind = state.flags["permanent_logs"]
        of_object = [
            instance
            for instance in ([] if kind == "none" else legacy.of_object(object_type, object_id))
            if project_id in (None, instance.project_id)
        ]
        rows = [permanent_log(legacy, row) for instance in of_object for row in instance.history]
        ended = [instance for instance in of_object if instance.terminated_at is not None and kind == "all_events"]
        return rows + [termination_log(legacy, instance) for instance in ended]

    async def of_company(request: Request, company_id: int) -> None:
        check_access(state, request)
        if str(company_id) != COMPANY["id"]:
            raise Rejection(403, {"message": "Access denied", "code": 403})

    async def of_project(request: Request, project_id: int) -> None:
        check_access(state, request)
        if str(project_id) not in PROJECTS:
            raise Rejection(404, {"errors": "Not Found"})

    async def permanent_logs(
        request: Request,
        response: Response,
        object_type: ObjectType = None,
        object_id: ObjectId = None,
        page: int = 1,
        per_page: int = 100,
    ) -> Any:
        project_id = request.path_params.get("project_id")  # None at company level
        return page_of(request, response, logs(object_type, object_id, project_id), page, per_page)

    for level, check in (("/companies/{company_id}", of_company), ("/projects/{project_id}", of_project)):
        where = f"{level}/workflow_permanent_logs"
        router.get(where, response_model=list[schemas.PermanentLog], dependencies=[Depends(check)])(permanent_logs)

    return router


async def _activity_body(request: Request, *, is_plain: bool) -> tuple[dict[str, Any], Attachments]:
    if "multipart" in request.headers.get("Content-Type", ""):
        return _multipart_activity(await request.form(), "attachments[]" if is_plain else NESTED_ATTACHMENTS)
    try:
        whole = await request.json()
        body = dict(whole["workflow_activity_history"])
        return body, Attachments(
            tuple(str(name) for name in body.get("attachments", [])),
            prostore_file_ids=_stored_files(list(body.get("prostore_file_ids", []))),
        )
    except (ValueError, KeyError, TypeError):
        raise Rejection(400, {"message": "param is missing: workflow_activity_history", "code": 400}) from None


def _multipart_activity(form: FormData, field_of_files: str) -> tuple[dict[str, Any], Attachments]:
    body: dict[str, Any] = {}
    uploads: list[UploadFile] = []
    stored: list[Any] = []
    for name, value in form.multi_items():
        inner = name.removeprefix("workflow_activity_history[").removesuffix("[]").removesuffix("]")
        if isinstance(value, UploadFile):
            uploads += [value] if name == field_of_files else []
        elif inner == "prostore_file_ids":
            stored.append(value)
        else:
            body[inner] = value
    names = tuple(upload.filename or "" for upload in uploads)
    sizes = tuple(upload.size or 0 for upload in uploads)
    return body, Attachments(names, sizes, _stored_files(stored))


def _stored_files(ids: list[Any]) -> tuple[int, ...]:
    if not all(map(_whole_number, ids)):
        raise Rejection(400, {"errors": {"prostore_file_ids": ["must be numbers"]}})
    return tuple(map(_whole_number, ids))


def _whole_number(value: Any) -> int:
    """Read an id that is a JSON integer or a form field of digits. Return 0 for anything else."""
    return int(value) if isinstance(value, (int, str)) and str(value).isdecimal() else 0


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")
