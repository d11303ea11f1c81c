"""The state that all emulated APIs share: clock, users, tokens, flags, faults, and the log of requests and changes."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

from .behaviour_flags import BEHAVIOUR_FLAGS

MAX_TIMESTAMP = datetime(3000, 1, 1, tzinfo=timezone.utc).timestamp()
MAX_STORED_REQUESTS = 10_000
SEEDS = ("default", "large", "huge")

COMPANY = {"id": "4264807", "name": "Example Builders"}
PROJECT = {"id": "1001", "name": "Riverside Tower"}
SECOND_PROJECT = "1002"
PROJECTS = {project["id"]: project for project in (PROJECT, {"id": SECOND_PROJECT, "name": "Harbour Bridge"})}
CLIENT_ID = "emulator-client"
CLIENT_SECRET = "emulator-secret"
ADMIN_LOGIN = "admin@example.com"
ADMIN_PASSWORD = "emulator-password"


class Rejection(Exception):
    """Raised by a route to return an error response in the API's own format."""

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None):
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.headers = headers or {}


SIGN_IN_PAGE = (
    "<!DOCTYPE html><html><head><title>Sign in</title></head>"
    '<body><form method="post"><input name="user"><input name="password" type="password"></form></body></html>'
)


def unknown_value(kind: str, value: Any, expected: Iterable[str]) -> Rejection:
    """Return the rejection of a control call that names something that does not exist."""
    return Rejection(422, {"error": f"Unknown {kind} {value!r}. Expected one of: {', '.join(expected)}."})


class Clock:
    """Return real time plus an offset that can only grow."""

    def __init__(self) -> None:
        self.offset = 0.0

    def time(self) -> float:
        return time.time() + self.offset

    def advance(self, seconds: float) -> None:
        if seconds < 0 or self.time() + seconds > MAX_TIMESTAMP:
            raise Rejection(422, {"error": "The clock can only move forward, and not beyond the year 2999."})
        self.offset += seconds

    def iso(self, moment: float | None = None) -> str:
        return _iso(self.time()) if moment is None else _known_iso(moment)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


_known_iso = lru_cache(maxsize=10_000)(_iso)  # the same times are formatted again and again


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
        User("90005", "lee@example.com", "Lee Engineer"),
        User("90006", "nora@example.com", "Nora Newhire"),
        User("90009", "guest@example.com", "Gus Guest"),
    )
}
INTEGRATION_USER = "90001"
MANAGER = "90002"
POSSIBLE_ASSIGNEES = tuple(user_id for user_id in USERS if user_id != "90009")


def user_by_login(login: str) -> User:
    for user in USERS.values():
        if login in (user.login, user.id):
            return user
    raise unknown_value("user", login, (user.login for user in USERS.values()))


@dataclass
class Fault:
    """Disturb the next requests that match."""

    id: int
    method: str | None
    path: str  # a regular expression that is searched in the path
    times: int
    skip: int
    status: int | None
    headers: dict[str, str]
    body: str | None
    json: Any
    delay: float  # seconds
    reset: str | None  # "before" or "after" the request takes effect
    truncate: int | None  # number of bytes that are sent
    after: bool
    seen: int = 0
    fired: int = 0

    def applies_to(self, method: str, path: str) -> bool:
        """Return whether the fault applies to a request, and count the request."""
        if self.fired >= self.times or self.method not in (None, method) or not re.search(self.path, path):
            return False
        self.seen += 1
        if self.seen <= self.skip:
            return False
        self.fired += 1
        return True


class EmulatorState:
    """Hold the shared state. Only one asyncio loop changes it, and no change spans an await."""

    def __init__(self, seed: str):
        self.tokens: dict[str, float] = {}  # Procore's tokens with their expiry as a Unix time
        self.ws_tokens: dict[str, float] = {}
        self.clear(seed)

    def clear(self, seed: str) -> None:
        """Reset everything but the tokens, so that clients stay signed in."""
        if seed not in SEEDS:
            raise unknown_value("seed", seed, SEEDS)
        self.seed = seed
        self.clock = Clock()
        self.flags: dict[str, Any] = {name: flag.values[0] for name, flag in BEHAVIOUR_FLAGS.items()}
        self.effects: list[dict[str, Any]] = []
        self.requests: deque[dict[str, Any]] = deque(maxlen=MAX_STORED_REQUESTS)
        self.requests_served = 0
        self.requests_by_route: Counter[str] = Counter()  # unlike ``requests``, it counts all requests
        self.faults: list[Fault] = []
        self.fault_ids = itertools.count(1)
        self.bodies_by_token: dict[str, bytes] = {}  # by idempotency token: the body of its first request
        self.spike: deque[float] = deque()
        self.hour: deque[float] = deque()

    def issue(self, store: dict[str, float], lifetime: float) -> str:
        token = secrets.token_urlsafe(32)
        store[token] = self.clock.time() + lifetime
        return token

    def revoke_all(self) -> None:
        self.tokens.clear()
        self.ws_tokens.clear()

    def is_valid(self, store: dict[str, float], token: str) -> bool:
        return store.get(token, 0.0) > self.clock.time()

    def token_rejection(self, body: Any) -> Rejection:
        """Return the response to a call whose token is invalid or has expired."""
        kind = self.flags["rejected_token"]
        if kind == "redirect":
            return Rejection(302, "", {"Location": "/account/login?ReturnUrl=%2F"})
        return Rejection(401, body) if kind == "401" else Rejection(200, SIGN_IN_PAGE)

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

    def set_flags(self, requested: dict[str, Any]) -> None:
        """Set all flags, or none if one of them is invalid."""
        for name, value in requested.items():
            if name not in BEHAVIOUR_FLAGS:
                raise unknown_value("behaviour flag", name, BEHAVIOUR_FLAGS)
            if not BEHAVIOUR_FLAGS[name].allows(value):
                allowed = BEHAVIOUR_FLAGS[name].allowed
                raise Rejection(422, {"error": f"Behaviour flag {name!r} takes {allowed}, not {value!r}."})
        for name, value in requested.items():
            self.flags[name] = value if BEHAVIOUR_FLAGS[name].takes_number else str(value)

    def in_background_case(self, status: str) -> str:
        return status.upper() if self.flags["background_status_case"] == "upper" else status

    def is_reused(self, token: str | None, body: bytes) -> bool:
        """Return whether an earlier request sent the token with another body, where bodies are compared."""
        if token is None or self.flags["idempotency_other_body"] == "ignored":
            return False
        return self.bodies_by_token.setdefault(token, body) != body

    # --- Procore's rate limits ---

    def acquire_rate_limit(self) -> tuple[bool, dict[str, str]]:
        """Count one request. Return whether it is within the limits, and the rate limit headers."""
        on = self.flags["rate_limit"] == "on"
        now = self.clock.time()
        windows = (
            (self.spike, 10.0, int(self.flags["spike_limit"])),
            (self.hour, 3600.0, int(self.flags["hourly_limit"])),
        )
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
        shown = {"always": True, "never": False, "when_on": on}[self.flags["rate_headers"]]
        if allowed:
            return True, headers if shown else {}
        named = self.flags["rate_429"]
        if named == "retry_after" or not shown:
            headers = {}
        if named != "reset_header" or not shown:
            headers["Retry-After"] = str(max(int(reset_at - now + 0.999), 1))
        return False, headers
