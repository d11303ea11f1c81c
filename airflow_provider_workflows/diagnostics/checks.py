"""The checks that the connections of both products have in common."""

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
from airflow_provider_workflows.hooks.base import WorkflowsHook
from airflow_provider_workflows.version_compat import mask_secret

if TYPE_CHECKING:
    from airflow_provider_workflows.client.response import ApiResponse


OK, FAILED, WARNING, SKIPPED = "ok", "failed", "warning", "skipped"
MAX_CALL_SECONDS = 10.0  # seconds
MAX_CHECKED = 4  # tools, presets, diagrams: each costs a request
MAX_SKEW_SECONDS = 30.0  # seconds
FIRST = ("connection", "fields", "reachable", "token")  # of each product
Result = TypeVar("Result")


@dataclass(frozen=True)
class Check:
    """
    What one step found.

    :param name: The step.
    :param status: ``ok``, ``failed``, ``warning``, or ``skipped`` where a step before it failed.
    :param detail: What was found.
    :param fix: What to do about it; "" where it is ok.
    """

    name: str
    status: str
    detail: str
    fix: str = ""


class Fault(Exception):
    """What keeps the connection from working, and its fix."""

    status = FAILED

    def __init__(self, detail: str, fix: str):
        super().__init__(detail)
        self.fix = fix


class Unclear(Fault):
    """What works but for a part, or may be meant so."""

    status = WARNING


@dataclass(frozen=True)
class Step:
    """
    One thing to look at.

    :param name: What it is called.
    :param after: The step without which it says nothing.
    :param look: Returns what is well, raises what is not.
    :param fix: What to do where the server rejects it.
    """

    name: str
    after: str
    look: Callable[[], str]
    fix: str = ""


class OneAttempt(RetryPolicy):
    """A single attempt, whose error tells what it came from: a name that is not known, a proxy, a certificate."""

    def run(
        self, attempt: Callable[[], Result], *, sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> Result:
        try:
            return attempt()
        except RetryableFailure as failed:
            raise failed.error from failed.__cause__


class ConnectionChecks(ABC):
    """
    What the connections of both products have in common.

    :param connection: The connection.
    :param hook: Its hook, not yet connected.
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
    def described(self) -> str:
        """Return what the fields say, having read each of them."""

    def fields(self) -> str:
        # An answer may trickle for twice the time that it may take to begin.
        self.hook._client = self.hook._build(
            self.connection, self.connection.extra_dejson, OneAttempt(), mask_secret, longest=MAX_CALL_SECONDS / 2
        )
        described = self.described()
        known = next(f for f in get_provider_info()["connection-types"] if f["connection-type"] == self.hook.conn_type)
        unknown = sorted(set(self.hook.extras.fields) - set(known["conn-fields"]))
        if unknown:
            raise Unclear(
                f"{described}; not known: extra {named(unknown)}",
                f"Correct the name, or remove it. Known are {', '.join(known['conn-fields'])}.",
            )
        return described

    def reachable(self) -> str:
        client = self.hook.client
        nobody = client.without_sign_in(client.base_url)
        try:
            within(MAX_CALL_SECONDS, lambda: nobody.get("/"))
        except RateLimited:
            raise
        except ApiError as error:
            if error.status_code is None:
                raise
            if error.status_code == 407:
                raise Fault(f"{client.base_url}: the proxy wants a login.", PROXY_FIX) from None
            if error.status_code >= 500:
                raise Unclear(f"{client.base_url} answers {error.status_code}.", "Try again later.") from None
        finally:
            nobody.close()
        return f"{client.base_url} answers"

    def token(self) -> str:
        client = self.hook.client
        within(MAX_CALL_SECONDS, client.token)
        assert client._auth is not None
        token = client._auth._token
        if token is None or token.expires_at is None:
            return "there is one; its end is not stated"
        minutes = (token.expires_at - time.time()) / 60
        if minutes <= 0:
            raise Fault("The token has ended.", "Get a new token, or give login and password to fetch tokens with.")
        return f"there is one, for {counted(round(minutes), 'minute')}"

    def ask(self) -> ApiResponse:
        """Make the cheapest call that needs the token."""
        path, params = self.cheapest_call
        return self.hook.client.get(path, params=params)

    def clock(self) -> str:
        date = self.ask().headers.get("Date", "")
        now = time.time()
        try:
            skew = now - parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError):
            return "the server does not state its time"
        if abs(skew) > MAX_SKEW_SECONDS:
            way = "ahead of" if skew > 0 else "behind"
            raise Unclear(
                f"This machine's clock is {abs(skew):.0f} seconds {way} the server's.",
                "Set this machine's clock (NTP): waiting for a rate limit to end is reckoned by it.",
            )
        return f"within {MAX_SKEW_SECONDS:.0f} seconds of the server's"

    def limit(self) -> str | None:
        """Return what the server says of its rate limit, None where it says nothing."""
        rate = self.hook.client.rate
        if rate is None or rate.remaining is None:
            return None
        end = ""
        if rate.reset_at is not None:
            end = f" until {datetime.fromtimestamp(rate.reset_at, timezone.utc):%H:%M:%SZ}"
        left = f"{rate.remaining} of {rate.limit or 'an unknown number of'} requests left{end}"
        if rate.limit and rate.remaining < rate.limit / 10:
            raise Unclear(f"{left}.", "See who else uses this account; look less often (poke_interval).")
        return left


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """Return what a call returns; looking a host name up knows no time limit, so the call is left to itself then."""
    response: Future[Result] = Future()

    def run() -> None:
        try:
            response.set_result(call())
        except Exception as error:  # raised where the answer is taken
            response.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    if not wait([response], timeout=seconds).done:
        raise ConnectionFailed(f"There was no answer within {seconds:.0f} seconds")
    return response.result()
