"""Uploads of the files of a response in Procore: each file once over all tries of a task."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import UploadFailed
from airflow_provider_workflows.operators.base import Pin
from airflow_provider_workflows.rules.datetimes import parse_time, time_text

if TYPE_CHECKING:
    from airflow_provider_workflows.files.object_storage import AttachedFile
    from airflow_provider_workflows.hooks.procore import ProcoreHook

log = logging.getLogger(__name__)

MAX_UPLOAD_AGE = timedelta(hours=23)  # to attach an upload; Procore deletes it after 24 hours


class FileUploads:
    """
    Upload the files of a task's response, and persist the id of each upload for the next tries of the task.

    Without a task state store (Airflow before 3.3) every try uploads all files again.

    :param hook: Hook of the user who responds; only the user who uploads a file may attach it.
    :param level: Project of the files, or ``company``.
    :param store: The task's state store, or None.
    :param part_bytes: Size of a file part in bytes.
    """

    def __init__(self, hook: ProcoreHook, level: str, store: Any, part_bytes: int):
        self._hook = hook
        self._level = level
        self._part_bytes = part_bytes
        self._pin = Pin(store, "uploads", None)

    def upload(self, file: AttachedFile) -> str:
        """
        Upload a file, unless an upload of an earlier try can still be attached, and return the id of the upload.

        :raises ApiError: the upload failed.
        """
        identity = {
            "name": file.name,
            "sha256": file.sha256,
            "company_id": self._hook.company_id,
            "project_id": self._level,
            "user_id": self._hook.user_id,
        }
        upload_id = self._uploaded_before(identity)
        if upload_id is not None:
            log.info("An earlier try of this task has uploaded %s: upload %s.", file.name, upload_id)
            return upload_id
        log.info("Uploading %s (%d bytes).", file.name, file.size)
        started_at = time_text(self._hook.client.server_time())
        persist = partial(self._persist, {**identity, "started_at": started_at})
        upload_id = self._hook.upload(
            file.name,
            file.content_type,
            [_segment(part) for part in file.parts(self._part_bytes)],
            partial(file.parts, self._part_bytes),
            sha256=identity["sha256"],
            project_id=self._level,
            on_stored=partial(persist, False),
        )
        persist(True, upload_id)
        return upload_id

    def _uploaded_before(self, identity: Mapping[str, Any]) -> str | None:
        """Return the upload of an earlier try, once it is available, or None if there is none to attach."""
        for known in self._known:
            started_at = parse_time(known["started_at"])
            if any(known[name] != value for name, value in identity.items()) or started_at is None:
                continue
            if self._hook.client.server_time() - started_at > MAX_UPLOAD_AGE:
                continue
            upload_id = str(known["upload_id"])
            try:
                if not known["is_available"]:
                    self._hook.await_upload(upload_id, project_id=self._level)
            except UploadFailed as failed:
                log.warning("%s Uploading %s again.", failed, identity["name"])
                continue
            return upload_id
        return None

    def _persist(self, upload: Mapping[str, Any], is_available: bool, upload_id: str) -> None:
        others = [known for known in self._known if known["name"] != upload["name"]]  # file names are unique
        self._pin.persist({"uploads": [*others, {**upload, "upload_id": upload_id, "is_available": is_available}]})

    @property
    def _known(self) -> list[dict[str, Any]]:
        return list((self._pin.value or {}).get("uploads", []))


def _segment(part: bytes) -> dict[str, Any]:
    """Return the size and checksums by which Procore checks a part of a file."""
    md5 = hashlib.md5(part, usedforsecurity=False).hexdigest()
    return {"size": len(part), "sha256": hashlib.sha256(part).hexdigest(), "md5": md5}
