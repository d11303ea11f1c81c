"""Files into Procore's storage: the file itself goes to addresses that need no token, and gets none."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote_plus, urlsplit

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from airflow_provider_workflows.client.rest import Answer, RestClient, path
from airflow_provider_workflows.client.retry import Replay
from airflow_provider_workflows.exceptions import (
    ApiError,
    ConfigurationError,
    ContractError,
    InvalidRequest,
    NotFound,
    ServerError,
)

LONGEST_WAIT = 120.0  # seconds until a stored file is available
LONGEST_PLAIN = 3  # characters of a piece of an address that an error may repeat
LARGEST_V1_FILE = 100 * 2**20  # bytes; the older uploads send a file in one piece

# At the level DEBUG urllib3 logs every address, and whoever knows a signed one may write there.
_storing: ContextVar[bool] = ContextVar("_storing", default=False)
logging.getLogger("urllib3.connectionpool").addFilter(lambda record: not _storing.get())

# The calls below make no action that counts: an upload that nobody attaches is gone after a day. So all may go twice.


class Uploads:
    """
    Stores files with Procore's unified uploads (v2.1), or with the older ones (v1.1) where those are not there.

    :param client: Signed in to Procore.
    :param company_id: Company that the file is for.
    :param project_id: Project that the file is for, or None.
    """

    def __init__(self, client: RestClient, company_id: str, project_id: str | None):
        self.client = client
        project = "" if project_id is None else path("/projects/{}", project_id)
        self._unified = path("/rest/v2.1/companies/{}", company_id) + project + "/uploads"
        older = path("/companies/{}", company_id) if project_id is None else project
        self._older = f"/rest/v1.1{older}/uploads"

    def store(
        self,
        name: str,
        content_type: str,
        segments: Sequence[Mapping[str, Any]],
        parts: Iterable[bytes],
        sha256: str | None = None,
    ) -> str:
        """
        Store a file and return the id to attach it by.

        :param segments: ``{size, sha256, md5}`` of each part.
        :param parts: The parts.
        :param sha256: Of the whole file.
        :raises ServerError: the file did not become available in time.
        """
        size = sum(segment["size"] for segment in segments)
        order = {
            "file_name": name,
            "file_size": size,
            "content_type": content_type,
            **({} if sha256 is None else {"sha256": sha256}),
            "segments": [dict(segment) for segment in segments],
        }
        try:
            upload = self._send("POST", self._unified, order).get("data")
        except (NotFound, InvalidRequest) as absent:
            if absent.status_code not in (404, 405):
                raise
            return self._store_older(name, content_type, size, parts)
        upload = upload if isinstance(upload, Mapping) else {}
        targets = upload.get("segments")
        if not isinstance(targets, list) or len(targets) != len(segments) or not _id(upload, "upload_id"):
            raise ContractError("The answer has no 'upload_id' or not one target for each part", path=self._unified)
        etags = [self._put(target, part) for target, part in zip(targets, parts, strict=True)]
        upload_id = _id(upload, "upload_id")
        where = self._unified + path("/{}", upload_id)
        self._send("PATCH", where, {"part_etags": etags})
        self._await_available(where)
        return upload_id

    def _put(self, target: Mapping[str, Any], part: bytes) -> str:
        headers = (target.get("headers") or {}) if isinstance(target, Mapping) else None
        if not isinstance(headers, Mapping):
            raise ContractError("The answer has a target or headers that are not an object", path=self._unified)
        headers = {str(name): str(value) for name, value in headers.items()}
        answer = self._send_to_storage("PUT", str(target.get("url")), data=part, headers=headers)
        return str(answer.headers.get("ETag", "")).strip('"')

    def _await_available(self, where: str) -> None:
        waiting = Retrying(
            retry=retry_if_result(lambda status: status != "available"),
            stop=stop_after_delay(LONGEST_WAIT),
            wait=wait_exponential(multiplier=0.5, max=10),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        status = waiting(self._status, where)
        if status != "available":
            raise ServerError(f"The file is {status!r} after {LONGEST_WAIT:.0f} s", method="GET", path=where)

    def _status(self, where: str) -> Any:
        shown = self._send("GET", where, None).get("data")
        return shown.get("status") if isinstance(shown, dict) else None

    def _store_older(self, name: str, content_type: str, size: int, parts: Iterable[bytes]) -> str:
        if size > LARGEST_V1_FILE:
            raise ConfigurationError(
                f"{name!r} has {size} bytes; this company has only the older uploads, which take {LARGEST_V1_FILE}."
            )
        upload = self._send("POST", self._older, {"response_filename": name, "response_content_type": content_type})
        if not _id(upload, "uuid") or not isinstance(upload.get("fields"), dict):
            raise ContractError("The answer has no 'uuid' or no 'fields'", method="POST", path=self._older)
        fields = {str(field): str(value) for field, value in upload["fields"].items()}
        file = {"file": (name, b"".join(parts), content_type)}
        self._send_to_storage("POST", str(upload.get("url")), form=fields, files=file)
        return _id(upload, "uuid")

    def _send(self, method: str, where: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        answer = self.client.call(method, where, replay=Replay.SAFE, json=body).json()
        if not isinstance(answer, dict):
            raise ContractError("The answer is not an object", method=method, path=where)
        return answer

    def _send_to_storage(self, method: str, url: str, **call: Any) -> Answer:
        return send_to_storage(self.client, method, url, **call)


def send_to_storage(client: RestClient, method: str, url: str, **call: Any) -> Answer:
    """
    Send a call to a signed address, which needs no token and gets none; neither a log nor an error shows the address.

    :param client: Signed in to Procore; its proxies and timeouts hold for the storage, too.
    :param url: The address.
    :param call: What else :meth:`RestClient.call` takes.
    """
    parts = _split(url)
    # Where the connection itself may be unencrypted, the emulator say, its storage may be, too.
    if parts.scheme != "https" and not (parts.scheme == "http" and client.base_url.startswith("http://")):
        raise ContractError("The address of a stored file is not https", method=method, path=parts.hostname or "")
    storage = client.without_sign_in(f"{parts.scheme}://{parts.netloc}")
    with closing(storage), _unlogged():
        try:
            return storage.call(method, parts.path, query=parts.query, replay=Replay.SAFE, **call)
        except ApiError as error:
            failure = _without_address(error, parts)
        except ConfigurationError as error:  # of the address, its headers, or how this connection reaches it
            failure = ContractError(f"The storage cannot be reached where the server says: {error}", method=method)
    raise failure  # out here it has no context, whose traceback would repeat the address


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
        raise ContractError("The address of a stored file is not a URL")
    return parts


def _without_address(error: ApiError, address: SplitResult) -> ApiError:
    """Return the error without the address in it, for whoever knows that may write there."""
    secrets = {address.query, address.path, address.path.rpartition("/")[2]}
    secrets |= {value for pair in parse_qsl(address.query) for value in (pair[1], quote_plus(pair[1]))}
    words = error.server_message
    for secret in sorted(secrets, key=len, reverse=True):
        words = words.replace(secret, "***") if len(secret) > LONGEST_PLAIN else words
    return type(error)(
        "The storage did not take the file" if error.method != "GET" else "The storage did not return the file",
        method=error.method,
        path=address.hostname or "",
        status_code=error.status_code,
        request_id=error.request_id,
        server_message=words,
    )
