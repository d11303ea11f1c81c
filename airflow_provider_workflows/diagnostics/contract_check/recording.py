"""Send the requests of a contract check, count and pace them, reject all but reads, and record every response."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
import simplejson

from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.client.rate_limit_headers import RateLimit
from airflow_provider_workflows.client.retry import Idempotency
from airflow_provider_workflows.client.urls import build_path
from airflow_provider_workflows.exceptions import ApiError, RateLimited, WorkflowsError

MAX_REQUESTS = 60  # of one check, those for tokens included
# Procore documents 25 requests per 10 seconds; other tasks share them.
MAX_REQUESTS_PER_WINDOW = 20
WINDOW_SECONDS = 10.0
MIN_REMAINING_REQUESTS = 5  # that the server states; the rest is for other tasks
MAX_WAIT_SECONDS = 60.0
MAX_LOST_REQUESTS = 2
TOKEN_PATHS = ("/oauth/token", "/api/v2/app/apitoken")
READING_POST = "/workflows/instances/bulk_history"
CONSUMING_GET = "/new-integrations"


class NotSent(WorkflowsError):
    """Raised instead of sending a request that would be one too many, or that does not only read."""


@dataclass(frozen=True)
class Reading:
    """
    Hold one response with the request that it belongs to.

    :param name: What was read, such as ``instances``.
    :param path: Path of the request with ``{}`` in place of each id.
    :param query: Parameters of the request.
    :param subject: The instance, tool or step that was read; "" for a list of all.
    :param sign_in: How the request signed in: ``basic``, ``bearer``, ``cookie`` or "".
    """

    name: str
    method: str
    path: str
    query: Mapping[str, Any]
    status: int
    headers: Mapping[str, str]
    body: bytes
    subject: str = ""
    sign_in: str = ""
    url: str = field(default="", repr=False)

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300

    @cached_property
    def json(self) -> Any:
        """The parsed body, exact; None if it is not JSON."""
        try:
            return simplejson.loads(self.body.decode("utf-8-sig"), use_decimal=True)
        except (ValueError, RecursionError):
            return None

    @cached_property
    def data(self) -> Any:
        """The content of v2's envelope, or of a successful response without one."""
        content = self.json if self.is_ok else None
        return content.get("data") if isinstance(content, dict) and "data" in content else content

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The objects of a list; none if the response is not a list."""
        return [row for row in self.data if isinstance(row, dict)] if isinstance(self.data, list) else []

    @property
    def item(self) -> dict[str, Any]:
        """The object that was read; empty if the response is not an object."""
        return self.data if isinstance(self.data, dict) else {}


class Records:
    """Hold the readings of one check."""

    def __init__(self, readings: list[Reading] | None = None):
        self.readings = [] if readings is None else readings

    def all(self, *names: str) -> list[Reading]:
        return [reading for reading in self.readings if reading.name in names]

    def last(self, name: str) -> Reading | None:
        return next((reading for reading in reversed(self.readings) if reading.name == name), None)

    def rows(self, *names: str) -> Iterator[dict[str, Any]]:
        for reading in self.all(*names):
            yield from reading.rows


class Recorder:
    """
    Count, pace and record the requests of a client, and reject those that do not only read.

    :param sleep: Waits a number of seconds.
    """

    def __init__(self, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic):
        self.sent = 0
        self.token: Reading | None = None
        self.last: Reading | None = None
        self._sleep = sleep
        self._clock = clock
        self._times: deque[float] = deque(maxlen=MAX_REQUESTS_PER_WINDOW)
        self._wait = 0.0

    def before(self, request: requests.PreparedRequest) -> None:
        parts = urlsplit(str(request.url))
        is_read = request.method == "GET" and CONSUMING_GET not in parts.path
        if not is_read and not (request.method == "POST" and parts.path.endswith((READING_POST, TOKEN_PATHS[0]))):
            raise NotSent(f"{request.method} {parts.path} is not sent: a contract check only reads.")
        if self.sent >= MAX_REQUESTS:
            raise NotSent(f"A contract check sends at most {MAX_REQUESTS} requests.")
        if self._wait > MAX_WAIT_SECONDS:
            raise NotSent(f"The server's rate limit leaves no requests for the next {self._wait:.0f} seconds.")
        wait = self._wait
        if len(self._times) == MAX_REQUESTS_PER_WINDOW:
            wait = max(wait, self._times[0] + WINDOW_SECONDS - self._clock())
        if wait > 0:
            self._sleep(wait)
        self._wait = 0.0
        self._times.append(self._clock())
        self.sent += 1

    def after(self, request: requests.PreparedRequest, response: requests.Response, body: bytes) -> None:
        rate = RateLimit.from_headers(response.headers, time.time())
        if rate is not None and rate.remaining is not None and rate.remaining < MIN_REMAINING_REQUESTS:
            self._wait = max(rate.reset_in or 0.0, 0.0)
        parts = urlsplit(str(request.url))
        is_token = parts.path.endswith(TOKEN_PATHS)
        reading = Reading(
            "token" if is_token else "",
            str(request.method),
            parts.path,
            dict(parse_qsl(parts.query)),
            response.status_code,
            response.headers,
            body,
            sign_in=_sign_in(request),
            url=str(request.url),
        )
        if is_token:
            self.token = reading
        else:
            self.last = reading


def _sign_in(request: requests.PreparedRequest) -> str:
    authorization = str(request.headers.get("Authorization") or "").partition(" ")[0].lower()
    if authorization in ("basic", "bearer"):
        return authorization
    return "cookie" if request.headers.get("Cookie") else ""


class Reader:
    """
    Read a tenant with a client whose observer is a recorder.

    :param client: The connection's client.
    """

    def __init__(self, client: RestClient, recorder: Recorder):
        self.records = Records()
        self.stopped = ""  # why nothing more is read
        self._lost = 0  # requests without a response
        self._client = client
        self._recorder = recorder

    def read(
        self,
        name: str,
        path: str,
        *ids: object,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str | None] | None = None,
        json: Any = None,
        subject: str = "",
    ) -> Reading | None:
        """
        Send one request and record its response, of any status; return None if there is none.

        The first request must succeed: any error that it raises is a problem of the connection.

        :param path: Path with ``{}`` for each id.
        :param json: Body; with it the request is a POST.
        :raises WorkflowsError: the first request failed.
        """
        if self.stopped:
            return None
        is_first = not self.records.readings
        self._recorder.last = None
        try:
            self._client.call(
                "GET" if json is None else "POST",
                build_path(path, *ids),
                idempotency=Idempotency.SAFE,
                params=query,
                headers=headers,
                json=json,
                may_redirect=True,
                only_reads=True,  # the recorder rejects the others
            )
        except NotSent as error:
            self.stopped = str(error)
        except RateLimited:
            self.stopped = "The server's rate limit is exhausted."
        except ApiError as error:
            if is_first:
                raise
            self._lost += error.status_code is None
            if self._lost >= MAX_LOST_REQUESTS:
                self.stopped = "The server does not respond."
        finally:
            if self._recorder.token is not None and not self.records.all("token"):
                self.records.readings.append(self._recorder.token)
        last = self._recorder.last
        if last is None or last.status == 429:
            return None
        reading = Reading(
            name,
            last.method,
            path,
            dict(query or {}),
            last.status,
            last.headers,
            last.body,
            subject,
            last.sign_in,
            last.url,
        )
        self.records.readings.append(reading)
        return reading
