"""The checks that the connections to Procore and Workflowsoft share, and the classes of all checks."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow.providers.common.compat.sdk import Connection

from airflow_provider_workflows.client.retry import RetryableFailure, RetryPolicy
from airflow_provider_workflows.diagnostics.fixes import PROXY_FIX
from airflow_provider_workflows.diagnostics.texts import counted, named
from airflow_provider_workflows.exceptions import (
    ApiError,
    ConnectionFailed,
    RateLimited,
)
from airflow_provider_workflows.get_provider_info import get_provider_info
from airflow_provider_workflows.hooks.base import DRY_RUN_NOTE, WorkflowsHook
from airflow_provider_workflows.version_compat import mask_secret

if TYPE_CHECKING:
    from airflow_provider_workflows.client.response import ApiResponse


OK, FAILED, WARNING, SKIPPED = "ok", "failed", "warning", "skipped"
MAX_CALL_SECONDS = 10.0
MAX_CHECKED = 4  # tools, presets, diagrams: each costs a request
MAX_SKEW_SECONDS = 30.0
FIRST_STEPS = ("connection", "fields", "reachable", "token")  # of every connection
Result = TypeVar("Result")


@dataclass(frozen=True)
class Check:
    """
    Report the result of one step.

    :param name: Name of the step.
    :param status: ``ok``, ``failed``, ``warning``, or ``skipped`` if an earlier step failed.
    :param detail: The result.
    :param fix: How to fix the problem; "" without a problem.
    """

    name: str
    status: str
    detail: str
    fix: str = ""


class Fault(Exception):
    """Raised when a check finds a problem that prevents the connection from working; contains the fix."""

    status = FAILED

    def __init__(self, detail: str, fix: str):
        super().__init__(detail)
        self.fix = fix


class Caution(Fault):
    """Raised when a check finds a partial problem, or a setting that may be intended."""

    status = WARNING


@dataclass(frozen=True)
class Step:
    """
    Describe one check to run.

    :param name: Name of the check.
    :param after: The step that must succeed first.
    :param run: Returns the result, or raises the problem.
    :param fix: The fix if the server rejects the step's calls.
    """

    name: str
    after: str
    run: Callable[[], str]
    fix: str = ""


class OneAttempt(RetryPolicy):
    """Make a single attempt and store the cause of its error: an unknown host name, a proxy, a certificate."""

    def run(
        self, attempt: Callable[[], Result], *, sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> Result:
        try:
            return attempt()
        except RetryableFailure as failure:
            raise failure.error from failure.__cause__


class ConnectionChecks(ABC):
    """
    Check one connection; the subclasses add the checks of Procore and Workflowsoft.

    :param connection: The connection.
    :param hook: Its hook, without a client yet.
    """

    cheapest_call: ClassVar[tuple[str, dict[str, Any]]]  # path and query

    def __init__(self, connection: Connection, hook: WorkflowsHook):
        self.connection = connection
        self.hook = hook

    def first_steps(self) -> tuple[Step, ...]:
        return (
            Step("fields", "connection", self.fields),
            Step("reachable", "fields", self.reachable),
            Step("token", "reachable", self.token),
        )

    @abstractmethod
    def describe_fields(self) -> str:
        """Read each field and describe the connection."""

    def fields(self) -> str:
        # Reading a response may take twice the timeout, see RestClient.
        self.hook._client = self.hook._build(
            self.connection, self.connection.extra_dejson, OneAttempt(), mask_secret, max_timeout=MAX_CALL_SECONDS / 2
        )
        description = self.describe_fields() + (", dry run" if self.hook.dry_run else "")
        known = next(f for f in get_provider_info()["connection-types"] if f["connection-type"] == self.hook.conn_type)
        unknown = sorted(set(self.hook.extras.fields) - set(known["conn-fields"]))
        if unknown:
            raise Caution(
                f"{description}; unknown extra {named(unknown)}",
                f"Correct the name, or remove it. Expected names: {', '.join(known['conn-fields'])}.",
            )
        if self.hook.dry_run:
            raise Caution(f"{description}. {DRY_RUN_NOTE}", "Set extra 'dry_run' to false when tasks are to write.")
        return description

    def reachable(self) -> str:
        client = self.hook.client
        anonymous = client.without_sign_in(client.base_url)
        try:
            within(MAX_CALL_SECONDS, lambda: anonymous.get("/"))
        except RateLimited:
            raise
        except ApiError as error:
            if error.status_code is None:
                raise
            if error.status_code == 407:
                raise Fault(f"{client.base_url}: the proxy requires a login.", PROXY_FIX) from None
            if error.status_code >= 500:
                raise Caution(f"{client.base_url} returns {error.status_code}.", "Try again later.") from None
        finally:
            anonymous.close()
        return f"{client.base_url} responds"

    def token(self) -> str:
        client = self.hook.client
        within(MAX_CALL_SECONDS, client.token)
        assert client._auth is not None
        token = client._auth._token
        if token is None or token.expires_at is None:
            return "valid; its expiry is unknown"
        minutes = (token.expires_at - time.time()) / 60
        if minutes <= 0:
            raise Fault("The token has expired.", "Get a new token, or set login and password to fetch tokens.")
        return f"valid for {counted(round(minutes), 'minute')}"

    def call_cheapest(self) -> ApiResponse:
        """Make the cheapest call that needs the token."""
        path, params = self.cheapest_call
        return self.hook.client.get(path, params=params)

    def clock(self) -> str:
        date = self.call_cheapest().headers.get("Date", "")
        now = time.time()
        try:
            skew = now - parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError):
            return "the server does not state its time"
        if abs(skew) > MAX_SKEW_SECONDS:
            way = "ahead of" if skew > 0 else "behind"
            raise Caution(
                f"This machine's clock is {abs(skew):.0f} seconds {way} the server's.",
                "Synchronize this machine's clock (NTP): waits for a rate limit depend on it.",
            )
        return f"within {MAX_SKEW_SECONDS:.0f} seconds of the server's"

    def limit(self) -> str | None:
        """Describe the server's rate limit; return None if the server does not state it."""
        rate = self.hook.client.rate
        if rate is None or rate.remaining is None:
            return None
        end = ""
        if rate.reset_at is not None:
            end = f" until {datetime.fromtimestamp(rate.reset_at, timezone.utc):%H:%M:%SZ}"
        left = f"{rate.remaining} of {rate.limit or 'an unknown number of'} requests left{end}"
        if rate.limit and rate.remaining < rate.limit / 10:
            raise Caution(f"{left}.", "Check what else uses this account; poll less often (poke_interval).")
        return left


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """Run a call in a thread and return its result; a DNS lookup has no timeout, so the thread may outlive this."""
    response: Future[Result] = Future()

    def run() -> None:
        try:
            response.set_result(call())
        except Exception as error:  # raised again by result() below
            response.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    if not wait([response], timeout=seconds).done:
        raise ConnectionFailed(f"No response within {seconds:.0f} seconds")
    return response.result()
