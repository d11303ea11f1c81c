"""File uploads to Procore: the unified upload API (v2.1), the older one (v1.1), and the storage for the parts."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.datastructures import UploadFile

from ..state import COMPANY, PROJECTS, EmulatorState, Rejection
from . import schemas
from .common import at_levels, rejection
from .gateway import check_access

MIB = 2**20
MAX_PART_BYTES = 100 * MIB
MIN_PART_BYTES = 5 * MIB  # exclusive, of all parts but the last
MAX_PARTS = 10_000
URL_TTL_SECONDS = 3600
UPLOAD_TTL_SECONDS = 24 * 3600  # of an upload that no response attaches
ULID_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass
class Part:
    secret: str  # the last segment of its newest URL
    size: int | None = None
    sha256: str | None = None
    content: bytes | None = None

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content or b"", usedforsecurity=False).hexdigest()}"'


@dataclass
class Upload:
    id: str
    version: str
    name: str
    content_type: str | None
    parts: list[Part]
    created_at: float
    available_at: float | None = None  # None until all parts are stored
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return b"".join(part.content or b"" for part in self.parts)


class Uploads:
    def __init__(self, state: EmulatorState):
        self.state = state
        self.clear()

    def clear(self) -> None:
        self.by_id: dict[str, Upload] = {}
        self.parts: dict[str, tuple[Upload, Part, float]] = {}  # by the secret of a URL, with the expiry of the URL

    def add(self, version: str, name: str, content_type: str | None, parts: list[Part]) -> Upload:
        upload = Upload(self._ulid(), version, name, content_type, parts, self.state.clock.time())
        self.by_id[upload.id] = upload
        for part in parts:
            self._sign(upload, part)
        return upload

    def sign_again(self, upload: Upload) -> list[Part]:
        """Give each missing part a new URL, if reading an upload shows new URLs, and return these parts."""
        if self.state.flags["upload_new_address"] != "shown":
            return []
        remaining = [part for part in upload.parts if part.content is None]
        for part in remaining:
            part.secret = secrets.token_urlsafe(24)
            self._sign(upload, part)
        return remaining

    def _sign(self, upload: Upload, part: Part) -> None:
        self.parts[part.secret] = (upload, part, self.state.clock.time() + URL_TTL_SECONDS)

    def find(self, upload_id: str, version: str) -> Upload:
        upload = self.by_id.get(upload_id)
        age = 0.0 if upload is None else self.state.clock.time() - upload.created_at
        is_visible = self.state.flags["upload_visible_after"] <= age < UPLOAD_TTL_SECONDS
        if upload is None or upload.version != version or not is_visible:
            raise rejection(404, "not_found", f"Upload {upload_id} was not found.")
        return upload

    def complete(self, upload: Upload, etags: list[str]) -> None:
        """Complete an upload if the ETags are those of the stored parts."""
        if upload.available_at is not None and self.state.flags["upload_completed_again"] == "409":
            raise rejection(409, "already_completed", "The upload is already complete.")
        etag_format = self.state.flags["upload_etags"]
        sent = [etag.strip('"') if etag_format == "either" else etag for etag in etags]
        stored = [part.etag if part.content is not None else "" for part in upload.parts]
        if sent != [etag if etag_format == "as_they_came" else etag.strip('"') for etag in stored] or "" in stored:
            raise rejection(422, "wrong_etags", "The ETags do not match the stored parts.", "part_etags")
        if upload.available_at is None:
            self.finish(upload)

    def finish(self, upload: Upload) -> None:
        upload.available_at = self.state.clock.time() + self.state.flags["operation_delay"]

    def status(self, upload: Upload) -> str:
        if self.state.clock.time() >= upload.created_at + UPLOAD_TTL_SECONDS:
            return "expired"
        if upload.available_at is None:
            return "uploading"
        return "available" if upload.available_at <= self.state.clock.time() else "processing"

    def attachments(self, ids_by_kind: dict[str, list[str]]) -> list[dict[str, str]]:
        """Return the attachments of a response. Its uploads must be available."""
        found = []
        for kind, ids in ids_by_kind.items():
            for attachment_id in ids:
                upload = self.by_id.get(attachment_id)
                if kind == "upload_ids" and (upload is None or self.status(upload) != "available"):
                    raise rejection(
                        422, "upload_not_available", f"Upload {attachment_id} is not available.", "upload_ids"
                    )
                name = attachment_id if kind != "upload_ids" or upload is None else upload.name
                found.append({"id": attachment_id, "name": name, "url": f"https://storage.example.com/{attachment_id}"})
        return found

    def summary(self) -> list[dict[str, Any]]:
        return [
            {
                "id": upload.id,
                "name": upload.name,
                "size": len(upload.content),
                "sha256": hashlib.sha256(upload.content).hexdigest(),
                "status": self.status(upload),
                "content_type": upload.content_type,
            }
            for upload in self.by_id.values()
        ]

    def _ulid(self) -> str:
        number = (int(self.state.clock.time() * 1000) << 80) | secrets.randbits(80)
        return "".join(ULID_DIGITS[number >> shift & 31] for shift in range(125, -1, -5))


def new_part(size: int | None = None, sha256: str | None = None) -> Part:
    return Part(secrets.token_urlsafe(24), size, sha256)


def _check_segments(body: schemas.CreateUpload) -> None:
    sizes = [segment.size for segment in body.segments]
    if not 1 <= len(sizes) <= MAX_PARTS:
        raise rejection(422, "invalid_segments", f"A file must have 1 to {MAX_PARTS} parts.", "segments")
    if sum(sizes) != body.file_size:
        raise rejection(422, "invalid_segments", "The sizes of the parts do not add up to file_size.", "file_size")
    if max(sizes) > MAX_PART_BYTES:
        raise rejection(422, "invalid_segments", "A part must not exceed 100 MiB.", "segments")
    if any(size <= MIN_PART_BYTES for size in sizes[:-1]):
        raise rejection(422, "invalid_segments", "Every part but the last must exceed 5 MiB.", "segments")


# --- routes ---


def routes(state: EmulatorState, uploads: Uploads) -> APIRouter:
    router = APIRouter()
    router.include_router(_unified(state, uploads))
    for level in ("companies", "projects"):
        router.include_router(_older(state, uploads, level))
    router.include_router(_storage(uploads))
    return router


def _check_version(state: EmulatorState, version: str) -> None:
    if state.flags["uploads"] != version:
        raise rejection(404, "not_found", "Not found.")


def _url(request: Request, part: Part) -> str:
    return f"{str(request.base_url).rstrip('/')}/_storage/parts/{part.secret}"


def _unified(state: EmulatorState, uploads: Uploads) -> APIRouter:
    both = APIRouter()

    @both.post("/uploads", response_model=schemas.UploadResponse, response_model_exclude_unset=True, status_code=201)
    async def create_upload(request: Request, body: schemas.CreateUpload) -> dict[str, Any]:
        _check_version(state, "v2.1")
        _check_segments(body)
        parts = [new_part(segment.size, segment.sha256) for segment in body.segments]
        upload = uploads.add("v2.1", body.file_name, body.content_type, parts)
        return {"data": {**shown(upload), "segments": targets(request, parts)}}

    @both.patch(
        "/uploads/{id}",
        response_model=schemas.UploadResponse,
        response_model_exclude_unset=True,
        responses={204: {"description": "The upload is complete."}, 409: {"model": schemas.Error}},
    )
    async def finish_upload(id: str, body: schemas.FinishUpload) -> Any:
        _check_version(state, "v2.1")
        upload = uploads.find(id, "v2.1")
        uploads.complete(upload, body.part_etags)
        if state.flags["upload_completion"] == "204":
            return Response(status_code=204)
        return {"data": {**shown(upload), "status": state.in_background_case("processing")}}

    @both.get("/uploads/{id}", response_model=schemas.UploadResponse, response_model_exclude_unset=True)
    async def show_upload(request: Request, id: str) -> dict[str, Any]:
        _check_version(state, "v2.1")
        upload = uploads.find(id, "v2.1")
        return {"data": {**shown(upload), "segments": targets(request, uploads.sign_again(upload))}}

    def shown(upload: Upload) -> dict[str, Any]:
        status = state.in_background_case(uploads.status(upload))
        return {"upload_id": upload.id, "file_name": upload.name, "status": status}

    def targets(request: Request, parts: list[Part]) -> list[dict[str, Any]]:
        expires_at = state.clock.iso(state.clock.time() + URL_TTL_SECONDS)
        return [{"url": _url(request, part), "url_expires_at": expires_at, "headers": {}} for part in parts]

    return at_levels(state, both=both, version="v2.1")


def _older(state: EmulatorState, uploads: Uploads, level: str) -> APIRouter:
    async def owner(request: Request, id: str) -> None:
        check_access(state, request)
        if state.flags["uploads"] != "v1.1" or (id != COMPANY["id"] if level == "companies" else id not in PROJECTS):
            raise Rejection(404, {"message": "Not found.", "code": 404})

    rejections: dict[int | str, dict[str, Any]] = {
        **{status: {"model": schemas.Error | schemas.GatewayError} for status in (400, 404, 422)},
        "default": {"model": schemas.GatewayError},
    }
    router = APIRouter(
        prefix=f"/rest/v1.1/{level}/{{id}}", responses=rejections, tags=["Procore v1"], dependencies=[Depends(owner)]
    )

    @router.post("/uploads", response_model=schemas.LegacyUpload, response_model_exclude_unset=True, status_code=201)
    async def create_upload(request: Request, body: schemas.CreateLegacyUpload) -> dict[str, Any]:
        parts = [new_part(segment.size, segment.sha256) for segment in body.segments or ()] or [new_part()]
        upload = uploads.add("v1.1", body.response_filename, body.response_content_type, parts)
        if body.segments:
            return {"uuid": upload.id, "segments": [{"url": _url(request, part), "headers": {}} for part in parts]}
        upload.fields = {"key": f"uploads/{upload.id}", "policy": secrets.token_urlsafe(16)}
        return {"uuid": upload.id, "url": _url(request, parts[0]), "fields": upload.fields}

    @router.patch("/uploads/{uuid}", response_model=schemas.LegacyUpload, response_model_exclude_unset=True)
    async def finish_upload(uuid: str, body: schemas.FinishLegacyUpload) -> dict[str, Any]:
        uploads.complete(uploads.find(uuid, "v1.1"), [segment.etag for segment in body.segments])
        return {"uuid": uuid}

    return router


def _storage(uploads: Uploads) -> APIRouter:
    """Return the routes of the storage. Knowing their signed address is enough, so they take no token."""
    rejections: dict[int | str, dict[str, Any]] = {"default": {"model": schemas.Error}}
    router = APIRouter(prefix="/_storage", responses=rejections, tags=["Storage"])

    def part_of(request: Request, secret: str) -> tuple[Upload, Part]:
        if "Authorization" in request.headers:
            raise rejection(400, "unexpected_authorization", "The address is signed and takes no Authorization header.")
        upload, part, expires_at = uploads.parts.get(secret, (None, None, 0.0))
        if upload is None or part is None:
            raise rejection(403, "forbidden", "The address is not signed.")
        if expires_at <= uploads.state.clock.time():
            raise rejection(403, "expired", "The address has expired.")
        return upload, part

    def store(part: Part, content: bytes) -> None:
        if part.size not in (None, len(content)):
            raise rejection(400, "wrong_size", f"The part has {len(content)} bytes instead of {part.size}.", "size")
        if part.sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise rejection(400, "wrong_sha256", "The SHA-256 of the part does not match.", "sha256")
        part.content = content

    @router.put("/parts/{secret}", response_model=None, response_class=Response)
    async def put_part(request: Request, secret: str) -> Response:
        _, part = part_of(request, secret)
        store(part, await request.body())
        return Response(headers={"ETag": part.etag})

    @router.post("/parts/{secret}", response_model=None, response_class=Response, status_code=204)
    async def post_file(request: Request, secret: str) -> Response:
        upload, part = part_of(request, secret)
        form = await request.form()
        file = form.get("file")
        if {name: form.get(name) for name in upload.fields} != upload.fields or not isinstance(file, UploadFile):
            raise rejection(400, "invalid_form", "The form must contain the fields of the upload, and the file.")
        store(part, await file.read())
        uploads.finish(upload)
        return Response(status_code=204)

    return router
