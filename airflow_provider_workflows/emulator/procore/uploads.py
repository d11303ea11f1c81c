"""Files that are uploaded to Procore, by the unified uploads (v2.1) or the older ones (v1.1), and their storage."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.datastructures import UploadFile

from .. import models
from ..state import COMPANY, PROJECTS, Refusal, World
from .common import at_levels, refusal
from .gateway import check_access

MIB = 2**20
LARGEST_PART = 100 * MIB
SMALLEST_PART = 5 * MIB  # of all but the last, which each of the others exceeds
MOST_PARTS = 10_000
URL_LIFETIME = 3600  # seconds
UPLOAD_LIFETIME = 24 * 3600  # seconds that an upload which nothing attaches is there
ULID_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass
class Part:
    secret: str  # the last piece of its newest URL
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
    available_at: float | None = None  # None until all its parts are there
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return b"".join(part.content or b"" for part in self.parts)


class Uploads:
    def __init__(self, world: World):
        self.world = world
        self.clear()

    def clear(self) -> None:
        self.by_id: dict[str, Upload] = {}
        self.parts: dict[str, tuple[Upload, Part, float]] = {}  # by the secret of a URL, with the time of its end

    def add(self, version: str, name: str, content_type: str | None, parts: list[Part]) -> Upload:
        upload = Upload(self._ulid(), version, name, content_type, parts, self.world.clock.time())
        self.by_id[upload.id] = upload
        for part in parts:
            self._sign(upload, part)
        return upload

    def sign_again(self, upload: Upload) -> list[Part]:
        """Give each part that is not stored a new URL, where reading an upload shows them; return those parts."""
        if self.world.flags["upload_new_address"] != "shown":
            return []
        remaining = [part for part in upload.parts if part.content is None]
        for part in remaining:
            part.secret = secrets.token_urlsafe(24)
            self._sign(upload, part)
        return remaining

    def _sign(self, upload: Upload, part: Part) -> None:
        self.parts[part.secret] = (upload, part, self.world.clock.time() + URL_LIFETIME)

    def find(self, upload_id: str, version: str) -> Upload:
        upload = self.by_id.get(upload_id)
        age = 0.0 if upload is None else self.world.clock.time() - upload.created_at
        is_visible = self.world.flags["upload_visible_after"] <= age < UPLOAD_LIFETIME
        if upload is None or upload.version != version or not is_visible:
            raise refusal(404, "not_found", f"Upload {upload_id} was not found.")
        return upload

    def put_together(self, upload: Upload, etags: list[str]) -> None:
        """Take the parts for a whole file, if they are the ones that were stored."""
        if upload.available_at is not None and self.world.flags["upload_completed_again"] == "409":
            raise refusal(409, "already_completed", "The upload is complete already.")
        form = self.world.flags["upload_etags"]
        sent = [etag.strip('"') if form == "either" else etag for etag in etags]
        stored = [part.etag if part.content is not None else "" for part in upload.parts]
        if sent != [etag if form == "as_they_came" else etag.strip('"') for etag in stored] or "" in stored:
            raise refusal(422, "wrong_etags", "The ETags are not those of the stored parts.", "part_etags")
        if upload.available_at is None:
            self.finish(upload)

    def finish(self, upload: Upload) -> None:
        upload.available_at = self.world.clock.time() + self.world.flags["operation_delay"]

    def status(self, upload: Upload) -> str:
        if self.world.clock.time() >= upload.created_at + UPLOAD_LIFETIME:
            return "expired"
        if upload.available_at is None:
            return "uploading"
        return "available" if upload.available_at <= self.world.clock.time() else "processing"

    def attachments(self, given: dict[str, list[str]]) -> list[dict[str, str]]:
        """Return what a response shows of its attachments; its uploads must be there."""
        found = []
        for kind, ids in given.items():
            for one in ids:
                upload = self.by_id.get(one)
                if kind == "upload_ids" and (upload is None or self.status(upload) != "available"):
                    raise refusal(422, "upload_not_available", f"Upload {one} is not available.", "upload_ids")
                name = one if kind != "upload_ids" or upload is None else upload.name
                found.append({"id": one, "name": name, "url": f"https://storage.example.com/{one}"})
        return found

    def state(self) -> list[dict[str, Any]]:
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
        number = (int(self.world.clock.time() * 1000) << 80) | secrets.randbits(80)
        return "".join(ULID_DIGITS[number >> shift & 31] for shift in range(125, -1, -5))


def new_part(size: int | None = None, sha256: str | None = None) -> Part:
    return Part(secrets.token_urlsafe(24), size, sha256)


def _check_segments(body: models.CreateUpload) -> None:
    sizes = [segment.size for segment in body.segments]
    if not 1 <= len(sizes) <= MOST_PARTS:
        raise refusal(422, "invalid_segments", f"A file has 1 to {MOST_PARTS} parts.", "segments")
    if sum(sizes) != body.file_size:
        raise refusal(422, "invalid_segments", "The parts are not as long as the file.", "file_size")
    if max(sizes) > LARGEST_PART:
        raise refusal(422, "invalid_segments", "A part has at most 100 MiB.", "segments")
    if any(size <= SMALLEST_PART for size in sizes[:-1]):
        raise refusal(422, "invalid_segments", "All parts but the last have more than 5 MiB.", "segments")


# --- routes ---


def routes(world: World, uploads: Uploads) -> APIRouter:
    router = APIRouter()
    router.include_router(_unified(world, uploads))
    for level in ("companies", "projects"):
        router.include_router(_older(world, uploads, level))
    router.include_router(_storage(uploads))
    return router


def _check_version(world: World, version: str) -> None:
    if world.flags["uploads"] != version:
        raise refusal(404, "not_found", "Not found.")


def _url(request: Request, part: Part) -> str:
    return f"{str(request.base_url).rstrip('/')}/_storage/parts/{part.secret}"


def _unified(world: World, uploads: Uploads) -> APIRouter:
    both = APIRouter()

    @both.post("/uploads", response_model=models.UploadAnswer, response_model_exclude_unset=True, status_code=201)
    async def create_upload(request: Request, body: models.CreateUpload) -> dict[str, Any]:
        _check_version(world, "v2.1")
        _check_segments(body)
        parts = [new_part(segment.size, segment.sha256) for segment in body.segments]
        upload = uploads.add("v2.1", body.file_name, body.content_type, parts)
        return {"data": {**shown(upload), "segments": targets(request, parts)}}

    @both.patch(
        "/uploads/{id}",
        response_model=models.UploadAnswer,
        response_model_exclude_unset=True,
        responses={204: {"description": "The upload is complete."}, 409: {"model": models.Error}},
    )
    async def finish_upload(id: str, body: models.FinishUpload) -> Any:
        _check_version(world, "v2.1")
        upload = uploads.find(id, "v2.1")
        uploads.put_together(upload, body.part_etags)
        if world.flags["upload_completion"] == "204":
            return Response(status_code=204)
        return {"data": {**shown(upload), "status": world.in_background_case("processing")}}

    @both.get("/uploads/{id}", response_model=models.UploadAnswer, response_model_exclude_unset=True)
    async def show_upload(request: Request, id: str) -> dict[str, Any]:
        _check_version(world, "v2.1")
        upload = uploads.find(id, "v2.1")
        return {"data": {**shown(upload), "segments": targets(request, uploads.sign_again(upload))}}

    def shown(upload: Upload) -> dict[str, Any]:
        status = world.in_background_case(uploads.status(upload))
        return {"upload_id": upload.id, "file_name": upload.name, "status": status}

    def targets(request: Request, parts: list[Part]) -> list[dict[str, Any]]:
        expires_at = world.clock.iso(world.clock.time() + URL_LIFETIME)
        return [{"url": _url(request, part), "url_expires_at": expires_at, "headers": {}} for part in parts]

    return at_levels(world, both=both, version="v2.1")


def _older(world: World, uploads: Uploads, level: str) -> APIRouter:
    async def owner(request: Request, id: str) -> None:
        check_access(world, request)
        if world.flags["uploads"] != "v1.1" or (id != COMPANY["id"] if level == "companies" else id not in PROJECTS):
            raise Refusal(404, {"message": "Not found.", "code": 404})

    refusals: dict[int | str, dict[str, Any]] = {
        **{status: {"model": models.Error | models.LegacyError} for status in (400, 404, 422)},
        "default": {"model": models.LegacyError},
    }
    router = APIRouter(
        prefix=f"/rest/v1.1/{level}/{{id}}", responses=refusals, tags=["Procore v1"], dependencies=[Depends(owner)]
    )

    @router.post("/uploads", response_model=models.LegacyUpload, response_model_exclude_unset=True, status_code=201)
    async def create_upload(request: Request, body: models.CreateLegacyUpload) -> dict[str, Any]:
        parts = [new_part(segment.size, segment.sha256) for segment in body.segments or ()] or [new_part()]
        upload = uploads.add("v1.1", body.response_filename, body.response_content_type, parts)
        if body.segments:
            return {"uuid": upload.id, "segments": [{"url": _url(request, part), "headers": {}} for part in parts]}
        upload.fields = {"key": f"uploads/{upload.id}", "policy": secrets.token_urlsafe(16)}
        return {"uuid": upload.id, "url": _url(request, parts[0]), "fields": upload.fields}

    @router.patch("/uploads/{uuid}", response_model=models.LegacyUpload, response_model_exclude_unset=True)
    async def finish_upload(uuid: str, body: models.FinishLegacyUpload) -> dict[str, Any]:
        uploads.put_together(uploads.find(uuid, "v1.1"), [segment.etag for segment in body.segments])
        return {"uuid": uuid}

    return router


def _storage(uploads: Uploads) -> APIRouter:
    """The addresses that take the files themselves; they trust whoever knows them, and want no token."""
    refusals: dict[int | str, dict[str, Any]] = {"default": {"model": models.Error}}
    router = APIRouter(prefix="/_storage", responses=refusals, tags=["Storage"])

    def part_of(request: Request, secret: str) -> tuple[Upload, Part]:
        if "Authorization" in request.headers:
            raise refusal(400, "unexpected_authorization", "The address is signed; it takes no Authorization.")
        upload, part, expires_at = uploads.parts.get(secret, (None, None, 0.0))
        if upload is None or part is None:
            raise refusal(403, "forbidden", "The address is not signed.")
        if expires_at <= uploads.world.clock.time():
            raise refusal(403, "expired", "The address has expired.")
        return upload, part

    def store(part: Part, content: bytes) -> None:
        if part.size not in (None, len(content)):
            raise refusal(400, "wrong_size", f"The part has {len(content)} bytes, not {part.size}.", "size")
        if part.sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise refusal(400, "wrong_sha256", "The part has another SHA-256.", "sha256")
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
            raise refusal(400, "invalid_form", "The form needs the fields of the upload, and the file.")
        store(part, await file.read())
        uploads.finish(upload)
        return Response(status_code=204)

    return router
