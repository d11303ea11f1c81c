"""What the emulated products share: the clock, the users, the tokens, the switches, and the record of what happened."""

from __future__ import annotations

import itertools
import secrets
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

REQUESTS_KEPT = 10_000

COMPANY = {"id": "4264807", "name": "Example Builders"}
PROJECT = {"id": "1001", "name": "Riverside Tower"}
CLIENT_ID = "emulator-client"
CLIENT_SECRET = "emulator-secret"
ADMIN_LOGIN = "admin@example.com"
ADMIN_PASSWORD = "emulator-password"


@dataclass(frozen=True)
class Switch:
    """A choice between readings of what the vendors' documents leave open; the first value is the default."""

    values: tuple[Any, ...]
    why: str

    @property
    def takes_number(self) -> bool:
        return len(self.values) == 1 and not isinstance(self.values[0], str)


SWITCHES: dict[str, Switch] = {
    "cursor_place": Switch(
        ("body_meta_next_cursor", "link_header", "body_pagination_next_cursor", "body_links_next"),
        "Where the v2 list returns the next cursor is not documented.",
    ),
    "instances_paging": Switch(
        ("cursor_and_page", "page_only"), "Older texts know only cursors, newer ones also page numbers."
    ),
    "stale_step": Switch(("422", "404"), "Answer to a response for a step that is over."),
    "non_assignee": Switch(("403", "422"), "Answer to a response of somebody who is not asked."),
    "ended_instance": Switch(("422", "404", "403"), "Answer to a response for an instance that has ended."),
    "transition": Switch(("at_once", "delayed"), "Whether a step moves before or after the 204 of a response."),
    "transition_delay": Switch((2.0,), "Seconds that a delayed transition takes."),
    "history": Switch(("full", "events_only", "absent"), "The v2 history of April 2026 had the events only."),
    "item_history": Switch(("present", "absent"), "The history of an item is in the newest text only."),
    "bulk_history": Switch(
        ("present", "absent", "no_instance_ids"), "In the newest text only; whether it names the instances is open."
    ),
    "legacy_history_order": Switch(("ascending", "newest_first"), "Two texts, two orders."),
    "performed_by": Switch(("kept", "overridden"), "The guide's sample stores another user than was sent."),
    "history_names": Switch(("with", "without"), "The guide's legacy histories have no names and no state."),
    "missing_company_header": Switch(("400", "403"), "The status of this error is not documented."),
    "new_integrations": Switch(
        ("kept_until_completed", "consumed_on_read"), "Whether reading a new integration instance consumes it."
    ),
    "no_new_integration": Switch(
        ("204", "null", "empty_object", "empty_list", "not_found"), "What 'nothing new' looks like."
    ),
    "new_integration_shape": Switch(("object", "list"), "One instance or a list of them."),
    "ws_error_status": Switch(("400", "500"), "'An exception will be thrown' may come as either."),
    "ws_token_shape": Switch(
        ("json_string", "text", "object", "login_page", "redirect"), "The answer that holds the token is not described."
    ),
    "ws_mint_auth": Switch(("basic", "bearer", "cookie", "any"), "How an administrator signs in is not described."),
    "ws_complete_again": Switch(("error", "no_op"), "What completing an instance twice does."),
    "rate_limit": Switch(("off", "on"), "Procore's two windows: an hour, and 10 seconds."),
    "hourly_limit": Switch((3600,), "Requests an hour."),
    "spike_limit": Switch((25,), "Requests in 10 seconds."),
    "rate_headers": Switch(("when_on", "always", "never"), "Live answers were seen without these headers."),
    "rate_429": Switch(("reset_header", "retry_after", "both"), "Two texts name two headers."),
    "token_lifetime": Switch((5400,), "Seconds that an OAuth token lives."),
}


class Refusal(Exception):
    """An answer that is not a success, in the product's own form."""

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None):
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = headers or {}


class Clock:
    """Real time plus an offset that only grows."""

    def __init__(self) -> None:
        self.offset = 0.0

    def time(self) -> float:
        return time.time() + self.offset

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise Refusal(422, {"error": "the clock moves forward only"})
        self.offset += seconds

    def iso(self, moment: float | None = None) -> str:
        at = datetime.fromtimestamp(self.time() if moment is None else moment, timezone.utc)
        return at.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class User:
    id: str
    login: str
    name: str


USERS = {
    user.id: user
    for user in (
        User("90001", "integration@example.com", "Airflow Integration"),
        User("90002", "pat@example.com", "Pat Manager"),
        User("90003", "rita@example.com", "Rita Reviewer"),
        User("90004", "dana@example.com", "Dana Director"),
    )
}
INTEGRATION_USER = "90001"


def user_by_login(login: str) -> User:
    for user in USERS.values():
        if login in (user.login, user.id):
            return user
    raise Refusal(422, {"error": f"no user {login}; there are {', '.join(u.login for u in USERS.values())}"})


@dataclass
class Fault:
    """What goes wrong with the next requests that match."""

    id: int
    method: str | None
    path: str
    times: int
    skip: int
    status: int | None
    headers: dict[str, str]
    body: str | None
    json: Any
    delay: float
    reset: str | None
    truncate: int | None
    after: bool
    fired: int = 0


@dataclass
class World:
    """All that the emulator knows; one asyncio loop changes it, and never in the middle of an await."""

    seed: str
    clock: Clock = field(default_factory=Clock)
    switches: dict[str, Any] = field(default_factory=lambda: {name: s.values[0] for name, s in SWITCHES.items()})
    effects: list[dict[str, Any]] = field(default_factory=list)
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=REQUESTS_KEPT))
    faults: list[Fault] = field(default_factory=list)
    tokens: dict[str, float] = field(default_factory=dict)  # Procore's; value: unix time of the end
    ws_tokens: dict[str, float] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    served: int = 0
    spike: deque[float] = field(default_factory=deque)
    hour: deque[float] = field(default_factory=deque)

    def issue(self, store: dict[str, float], lifetime: float) -> str:
        token = secrets.token_urlsafe(32)
        store[token] = self.clock.time() + lifetime
        return token

    def revoke_all(self) -> None:
        self.revoked |= set(self.tokens) | set(self.ws_tokens)

    def is_valid(self, store: dict[str, float], token: str) -> bool:
        return token not in self.revoked and store.get(token, 0.0) > self.clock.time()

    def record_effect(
        self, product: str, action: str, by: str, target: dict[str, Any], detail: dict[str, Any], via: str
    ) -> None:
        self.effects.append(
            {
                "n": len(self.effects) + 1,
                "at": self.clock.iso(),
                "product": product,
                "action": action,
                "by": by,
                "target": target,
                "detail": detail,
                "via": via,
            }
        )

    def set_switches(self, wanted: dict[str, Any]) -> None:
        for name, value in wanted.items():
            switch = SWITCHES.get(name)
            if switch is None:
                raise Refusal(422, {"error": f"no switch {name!r}; there are {', '.join(SWITCHES)}"})
            fits = isinstance(value, (int, float)) if switch.takes_number else value in switch.values
            if not fits:
                allowed = "a number" if switch.takes_number else ", ".join(switch.values)
                raise Refusal(422, {"error": f"switch {name!r} takes {allowed}"})
        self.switches.update(wanted)

    # --- Procore's rate limits ---

    def take_from_budget(self) -> tuple[bool, dict[str, str]]:
        """Count one request; return whether it is within the limits, and the headers that tell of them."""
        on = self.switches["rate_limit"] == "on"
        now = self.clock.time()
        windows = ((self.spike, 10.0, int(self.switches["spike_limit"])), (self.hour, 3600.0, int(self.switches["hourly_limit"])))
        for times, length, _ in windows:
            while times and times[0] <= now - length:
                times.popleft()
        allowed = not on or all(len(times) < limit for times, _, limit in windows)
        if allowed:
            for times, _, _ in windows:
                times.append(now)
        times, length, limit = min(windows, key=lambda window: window[2] - len(window[0]))
        reset_at = int((times[0] if times else now) + length) + 1
        headers = {
            "X-Rate-Limit-Limit": str(limit),
            "X-Rate-Limit-Remaining": str(max(limit - len(times), 0)),
            "X-Rate-Limit-Reset": str(reset_at),
        }
        shown = {"always": True, "never": False, "when_on": on}[self.switches["rate_headers"]]
        if allowed:
            return True, headers if shown else {}
        told = self.switches["rate_429"]
        if told == "retry_after" or not shown:
            headers = {}
        if told != "reset_header" or not shown:
            headers["Retry-After"] = str(max(int(reset_at - now + 0.999), 1))
        return False, headers
