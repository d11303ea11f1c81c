"""Uploads of files to Procore: the file itself goes to signed URLs of a storage, which get no token."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, quote_plus, urlsplit

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.client.response import ApiResponse
from airflow_provider_workflows.client.retry import Idempotency
from airflow_provider_workflows.client.urls import build_path
from airflow_provider_workflows.exceptions import (
    ApiError,
    ConfigurationError,
    DryRun,
    InvalidRequest,
    NotFound,
    ServerError,
    UnexpectedResponse,
    UploadFailed,
)

Read = TypeVar("Read")
Stored = TypeVar("Stored")
Parts = Iterable[bytes] | Callable[[], Iterable[bytes]]
log = logging.getLogger(__name__)

MAX_WAIT_SECONDS = 120.0  # until an upload is shown, and until its file is available
MAX_PLAIN_CHARACTERS = 3  # longest piece of a signed URL that an error may repeat
MAX_V1_FILE_BYTES = 100 * 2**20  # the older uploads send a file in one piece
# Statuses of a storage for an expired URL; they differ between storage vendors.
MAY_HAVE_EXPIRED = (400, 401, 403, 404, 410)
# Statuses of an upload, in lower case. Any other status is polled further.
AVAILABLE = "available"
INCOMPLETE = ("ready", "receiving", "uploading")
COMPLETE = ("complete", "completed", "processing", "scanning", "clean", AVAILABLE)
FAILED = ("failed", "infected", "expired")

# At level DEBUG urllib3 logs every URL, and a signed URL grants write access to everybody who reads it.
_storing: ContextVar[bool] = ContextVar("_storing", default=False)
logging.getLogger("urllib3.connectionpool").addFilter(lambda record: not _storing.get())

# All calls below may be sent twice, because an upload that is not attached is deleted after a day.


class _UrlRejected(Exception):
    """Raised when the storage rejects a signed URL, possibly because it has expired."""

    def __init__(self, failure: ApiError):
        super().__init__(str(failure))
        self.failure = failure


class Uploads:
    """
    Store files with Procore's unified uploads (v2.1), or with the older ones (v1.1) if the server lacks the former.

    If a signed URL has expired, it is replaced once: with the URL that the upload shows now, else with a new upload.

    :param client: Signed in to Procore.
    :param company_id: Company that the file is for.
    :param project_id: Project that the file is for, or None.
    """

    def __init__(self, client: RestClient, company_id: str, project_id: str | None):
        self.client = client
        project = "" if project_id is None else build_path("/projects/{}", project_id)
        self._unified = build_path("/rest/v2.1/companies/{}", company_id) + project + "/uploads"
        older = build_path("/companies/{}", company_id) if project_id is None else project
        self._older = f"/rest/v1.1{older}/uploads"

    def store(
        self,
        name: str,
        content_type: str,
        segments: Sequence[Mapping[str, Any]],
        parts: Parts,
        sha256: str | None = None,
        on_stored: Callable[[str], object] | None = None,
    ) -> str:
        """
        Store a file and return the id with which it can be attached.

        :param segments: ``{size, sha256, md5}`` of each part.
        :param parts: The parts, or a function that returns them.
        :param sha256: Hash of the whole file.
        :param on_stored: Called with the id of an upload that is complete but not yet available.
        :raises UploadFailed: the file will not become available.
        :raises ServerError: the file did not become available in time, or the storage rejects it.
        """
        size = sum(segment["size"] for segment in segments)
        request = {
            "file_name": name,
            "file_size": size,
            "content_type": content_type,
            **({} if sha256 is None else {"sha256": sha256}),
            "segments": [dict(segment) for segment in segments],
        }
        upload_id = _with_new_url(lambda contents: self._store(request, contents), parts)
        if upload_id is None:
            return _with_new_url(lambda contents: self._store_older(name, content_type, size, contents), parts)
        if on_stored is not None:
            on_stored(upload_id)
        self.await_available(upload_id)
        return upload_id

    def await_available(self, upload_id: str) -> None:
        """
        Wait until the file of a complete upload can be attached.

        :raises UploadFailed: the file will not become available.
        :raises ServerError: the file did not become available in time.
        """
        self._await_available(self._unified + build_path("/{}", upload_id), None)

    # --- the unified uploads ---

    def _store(self, request: Mapping[str, Any], parts: Iterable[bytes]) -> str | None:
        """Send the parts of a file and complete the upload; return its id, or None without unified uploads."""
        try:
            upload = self._send("POST", self._unified, request).get("data")
        except (NotFound, InvalidRequest) as absent:
            if absent.status_code not in (404, 405):
                raise
            return None
        upload = upload if isinstance(upload, Mapping) else {}
        upload_id, targets = _id(upload, "upload_id"), upload.get("segments")
        if not isinstance(targets, list) or len(targets) != len(request["segments"]) or not upload_id:
            raise UnexpectedResponse(
                "The response has no 'upload_id', or not exactly one segment for each part", path=self._unified
            )
        where = self._unified + build_path("/{}", upload_id)
        etags: list[str] = []
        for part in parts:
            if len(etags) == len(targets):
                raise _changed(request)
            etags.append(self._put_part(where, targets, len(etags), part))
        if len(etags) < len(targets):
            raise _changed(request)
        self._complete(where, etags)
        return upload_id

    def _put_part(self, where: str, targets: list[Any], number: int, part: bytes) -> str:
        """Send a part; if its URL is rejected, send it to the URL that the upload shows now."""
        try:
            return self._put(targets[number], part)
        except _UrlRejected as rejection:
            fresh = self._fresh_targets(where, targets, number)
            if not fresh:
                raise
            log.info("%s The upload shows a new URL, will retry with it.", rejection)
        targets[number:] = fresh
        try:
            return self._put(targets[number], part)
        except _UrlRejected as rejection:
            raise rejection.failure from None

    def _fresh_targets(self, where: str, targets: list[Any], number: int) -> list[Any]:
        """Return new targets of the parts from a number on, or an empty list if the upload does not show new ones."""
        shown = self._shown(where).get("segments")
        missing = len(targets) - number
        if not isinstance(shown, list) or len(shown) not in (len(targets), missing):
            return []
        fresh = shown[-missing:]
        is_new = isinstance(fresh[0], Mapping) and fresh[0].get("url") not in (None, targets[number].get("url"))
        return fresh if is_new else []

    def _put(self, target: Mapping[str, Any], part: bytes) -> str:
        headers = (target.get("headers") or {}) if isinstance(target, Mapping) else None
        if not isinstance(headers, Mapping):
            raise UnexpectedResponse("The response has a segment or headers that are not an object", path=self._unified)
        headers = {str(name): str(value) for name, value in headers.items()}
        response = self._send_to_storage("PUT", str(target.get("url")), data=part, headers=headers)
        return str(response.headers.get("ETag", ""))

    def _complete(self, where: str, etags: list[str]) -> None:
        """
        Complete an upload; if the server rejects that, read the status, because the upload may already be complete.

        The ETags are sent as received; if the server rejects them, without their quotes, as in the guide's example.
        """
        rejection = self._patch(where, etags)
        if rejection is None or (status := self._status(where)) in COMPLETE + FAILED:
            return
        rejection = self._patch(where, [etag.strip('"') for etag in etags])
        if rejection is not None and (status in INCOMPLETE and rejection.status_code != 409):
            raise rejection
        if rejection is not None:
            self._await_available(where, rejection)

    def _patch(self, where: str, etags: list[str]) -> InvalidRequest | None:
        """Send the ETags of an upload, which may take a while to be shown; return the rejection, or None."""

        def send() -> ApiError | None:
            try:
                response = self.client.call("PATCH", where, idempotency=Idempotency.SAFE, json={"part_etags": etags})
            except (InvalidRequest, NotFound) as rejection:
                return rejection
            response.reject_page()
            return None

        rejection = _until(send, lambda rejection: not isinstance(rejection, NotFound))
        if rejection is None or isinstance(rejection, InvalidRequest):
            return rejection
        raise _not_shown(where)

    def _await_available(self, where: str, rejection: InvalidRequest | None) -> None:
        """
        Wait until an upload is available.

        :param rejection: Rejection of the completion; raised if the upload does not become available in time.
        """
        status = _until(lambda: self._status(where), lambda status: status in (AVAILABLE, *FAILED))
        if status == AVAILABLE:
            return
        if status == "infected":
            raise InvalidRequest("Procore reports that the file is 'infected'", method="GET", path=where)
        if status in FAILED:
            raise UploadFailed(
                f"Procore could not process the file; its status is {status!r}", method="GET", path=where
            )
        if rejection is not None:
            raise rejection
        if status is None:
            raise _not_shown(where)
        raise ServerError(
            f"The file's status is still {status!r} after {MAX_WAIT_SECONDS:.0f} s", method="GET", path=where
        )

    def _status(self, where: str) -> str | None:
        """Return the status of an upload in lower case, or None if it does not show one (yet)."""
        status = self._shown(where).get("status")
        return status.strip().lower() if isinstance(status, str) else None

    def _shown(self, where: str) -> Mapping[str, Any]:
        """Return an upload as the server shows it; empty if it is not shown (yet)."""
        try:
            body = self.client.get(where).json()
        except NotFound:
            return {}
        shown = body.get("data") if isinstance(body, Mapping) else None
        return shown if isinstance(shown, Mapping) else {}

    # --- the older uploads, and the storage ---

    def _store_older(self, name: str, content_type: str, size: int, parts: Iterable[bytes]) -> str:
        if size > MAX_V1_FILE_BYTES:
            raise ConfigurationError(
                f"File {name!r} has {size} bytes. This company has only the older uploads, which accept at most "
                f"{MAX_V1_FILE_BYTES} bytes."
            )
        upload = self._send("POST", self._older, {"response_filename": name, "response_content_type": content_type})
        if not _id(upload, "uuid") or not isinstance(upload.get("fields"), dict):
            raise UnexpectedResponse("The response has no 'uuid' or no 'fields'", method="POST", path=self._older)
        fields = {str(field): str(value) for field, value in upload["fields"].items()}
        file = {"file": (name, b"".join(parts), content_type)}
        self._send_to_storage("POST", str(upload.get("url")), form=fields, files=file)
        return _id(upload, "uuid")

    def _send(self, method: str, where: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        response = self.client.call(method, where, idempotency=Idempotency.SAFE, json=body).json()
        if not isinstance(response, dict):
            raise UnexpectedResponse("The response is not an object", method=method, path=where)
        return response

    def _send_to_storage(self, method: str, url: str, **call: Any) -> ApiResponse:
        try:
            return send_to_storage(self.client, method, url, **call)
        except ApiError as error:
            if error.status_code in MAY_HAVE_EXPIRED:
                raise _UrlRejected(_url_rejection(error)) from None
            raise


def send_to_storage(client: RestClient, method: str, url: str, **call: Any) -> ApiResponse:
    """
    Send a call to a signed URL without a token; neither logs nor errors show the URL.

    :param client: Signed in to Procore; its proxies and timeouts are used for the storage, too.
    :param url: The signed URL.
    :param call: Further arguments of :meth:`RestClient.call`.
    """
    parts = _split(url)
    # If the connection itself is unencrypted, for example to the emulator, its storage may be, too.
    if parts.scheme != "https" and not (parts.scheme == "http" and client.base_url.startswith("http://")):
        raise UnexpectedResponse("The URL of a stored file is not https", method=method, path=parts.hostname or "")
    storage = client.without_sign_in(f"{parts.scheme}://{parts.netloc}")
    with closing(storage), _unlogged():
        try:
            return storage.call(method, parts.path, query=parts.query, idempotency=Idempotency.SAFE, **call)
        except ApiError as error:
            failure: Exception = _without_url(error, parts)
        except DryRun as rejected:
            failure = DryRun(method, f"<signed URL of {parts.hostname}>", rejected.call["body"])
        except ConfigurationError as error:  # of the URL, its headers, or the connection's proxies or CA bundle
            failure = UnexpectedResponse(f"The URL of a stored file cannot be called: {error}", method=method)
    raise failure  # outside of the handler, because the traceback of a context would repeat the URL


def _with_new_url(store: Callable[[Iterable[bytes]], Stored], parts: Parts) -> Stored:
    """Store a file; retry once if its URL is rejected and the parts can be read again."""
    try:
        return store(parts() if callable(parts) else parts)
    except _UrlRejected as rejection:
        if not callable(parts) and iter(parts) is parts:
            raise rejection.failure from None
        log.info("%s Requesting a new URL with a new upload.", rejection)
    try:
        return store(parts() if callable(parts) else parts)
    except _UrlRejected as rejection:
        raise rejection.failure from None


def _until(read: Callable[[], Read], is_enough: Callable[[Read], bool]) -> Read:
    """Read repeatedly until the result is enough or the time is up; return the last result."""
    reading = Retrying(
        retry=retry_if_result(lambda found: not is_enough(found)),
        stop=stop_after_delay(MAX_WAIT_SECONDS),
        wait=wait_exponential(multiplier=0.5, max=10),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    return reading(read)


def _changed(request: Mapping[str, Any]) -> ConfigurationError:
    return ConfigurationError(f"File {request['file_name']!r} changed during the upload. Upload it again.")


def _not_shown(where: str) -> UploadFailed:
    return UploadFailed(f"Procore does not show the upload after {MAX_WAIT_SECONDS:.0f} s", method="GET", path=where)


def _id(upload: Mapping[str, Any], name: str) -> str:
    value = upload.get(name)
    return str(value) if type(value) in (str, int) else ""


@contextmanager
def _unlogged() -> Iterator[None]:
    before = _storing.set(True)
    try:
        yield
    finally:
        _storing.reset(before)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if not parts.hostname:
        raise UnexpectedResponse("The URL of a stored file is not valid")
    return parts


def _without_url(error: ApiError, url: SplitResult) -> ApiError:
    """Return the error without the signed URL, which grants access to the storage."""
    secrets = {url.query, url.path, url.path.rpartition("/")[2]}
    secrets |= {value for pair in parse_qsl(url.query) for value in (pair[1], quote_plus(pair[1]))}
    message = error.server_message
    for secret in sorted(secrets, key=len, reverse=True):
        message = message.replace(secret, "***") if len(secret) > MAX_PLAIN_CHARACTERS else message
    return type(error)(
        "The storage did not accept the file" if error.method != "GET" else "The storage did not return the file",
        method=error.method,
        path=url.hostname or "",
        status_code=error.status_code,
        request_id=error.request_id,
        server_message=message,
    )


def _url_rejection(failure: ApiError) -> ApiError:
    """Return the error for a signed URL that the storage rejects; a retry of the task requests another URL."""
    if isinstance(failure, InvalidRequest) and failure.status_code == 400:
        return failure
    return ServerError(
        "The storage did not accept the file",
        method=failure.method,
        path=failure.path,
        status_code=failure.status_code,
        request_id=failure.request_id,
        server_message=failure.server_message,
        advice="The call used a signed URL from Procore. Check that no proxy or firewall rejects it.",
    )
