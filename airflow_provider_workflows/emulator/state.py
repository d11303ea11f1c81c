"""What the emulated products share: the clock, the users, the tokens, the flags, and the record of what happened."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections import Counter, deque
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

from .behaviour_flags import BEHAVIOUR_FLAGS

LATEST = datetime(3000, 1, 1, tzinfo=timezone.utc).timestamp()
REQUESTS_KEPT = 10_000
SEEDS = ("default", "large", "huge")

COMPANY = {"id": "4264807", "name": "Example Builders"}
PROJECT = {"id": "1001", "name": "Riverside Tower"}
SECOND_PROJECT = "1002"
PROJECTS = {project["id"]: project for project in (PROJECT, {"id": SECOND_PROJECT, "name": "Harbour Bridge"})}
CLIENT_ID = "emulator-client"
CLIENT_SECRET = "emulator-secret"
ADMIN_LOGIN = "admin@example.com"
ADMIN_PASSWORD = "emulator-password"


class Refusal(Exception):
    """An answer that is not a success, in the product's own form."""

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None):
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.headers = headers or {}


SIGN_IN_PAGE = (
    "<!DOCTYPE html><html><head><title>Sign in</title></head>"
    '<body><form method="post"><input name="user"><input name="password" type="password"></form></body></html>'
)


class Clock:
    """Real time plus an offset that only grows."""

    def __init__(self) -> None:
        self.offset = 0.0

    def time(self) -> float:
        return time.time() + self.offset

    def advance(self, seconds: float) -> None:
        if seconds < 0 or self.time() + seconds > LATEST:
            raise Refusal(422, {"error": "the clock moves forward only, and not beyond the year 2999"})
        self.offset += seconds

    def iso(self, moment: float | None = None) -> str:
        return _iso(self.time()) if moment is None else _known_iso(moment)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


_known_iso = lru_cache(maxsize=10_000)(_iso)  # the moments that are shown again and again


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
    raise Refusal(422, {"error": f"no user {login}; there are {', '.join(u.login for u in USERS.values())}"})


@dataclass
class Fault:
    """What goes wrong with the next requests that match."""

    id: int
    method: str | None
    path: str  # a regular expression, searched for
    times: int
    skip: int
    status: int | None
    headers: dict[str, str]
    body: str | None
    json: Any
    delay: float  # seconds
    reset: str | None  # before or after
    truncate: int | None  # bytes that arrive
    after: bool
    seen: int = 0
    fired: int = 0

    def strikes(self, method: str, path: str) -> bool:
        """Tell whether this request is the fault's, and count it."""
        if self.fired >= self.times or self.method not in (None, method) or not re.search(self.path, path):
            return False
        self.seen += 1
        if self.seen <= self.skip:
            return False
        self.fired += 1
        return True


class World:
    """All that the emulator knows; one asyncio loop changes it, and never in the middle of an await."""

    def __init__(self, seed: str):
        self.tokens: dict[str, float] = {}  # Procore's; value: unix time of the end
        self.ws_tokens: dict[str, float] = {}
        self.clear(seed)

    def clear(self, seed: str) -> None:
        """Forget all but the tokens: whoever is signed in stays so."""
        if seed not in SEEDS:
            raise Refusal(422, {"error": f"no seed {seed!r}; there are {', '.join(SEEDS)}"})
        self.seed = seed
        self.clock = Clock()
        self.flags: dict[str, Any] = {name: flag.values[0] for name, flag in BEHAVIOUR_FLAGS.items()}
        self.effects: list[dict[str, Any]] = []
        self.requests: deque[dict[str, Any]] = deque(maxlen=REQUESTS_KEPT)
        self.requests_served = 0
        self.requests_by_route: Counter[str] = Counter()  # of all, while ``requests`` keeps the last ones only
        self.faults: list[Fault] = []
        self.fault_ids = itertools.count(1)
        self.bodies_by_token: dict[str, bytes] = {}  # by idempotency token, the body that it came with first
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

    def token_refusal(self, body: Any) -> Refusal:
        """Return the answer to a call whose token is not valid (any more)."""
        kind = self.flags["refused_token"]
        if kind == "redirect":
            return Refusal(302, "", {"Location": "/account/login?ReturnUrl=%2F"})
        return Refusal(401, body) if kind == "401" else Refusal(200, SIGN_IN_PAGE)

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

    def set_flags(self, wanted: dict[str, Any]) -> None:
        """Turn all of them, or none if one of them cannot be."""
        for name, value in wanted.items():
            if name not in BEHAVIOUR_FLAGS:
                raise Refusal(422, {"error": f"no flag {name!r}; there are {', '.join(BEHAVIOUR_FLAGS)}"})
            if not BEHAVIOUR_FLAGS[name].allows(value):
                raise Refusal(422, {"error": f"flag {name!r} takes {BEHAVIOUR_FLAGS[name].allowed}"})
        for name, value in wanted.items():
            self.flags[name] = value if BEHAVIOUR_FLAGS[name].takes_number else str(value)

    def in_background_case(self, status: str) -> str:
        return status.upper() if self.flags["background_status_case"] == "upper" else status

    def is_reused(self, token: str | None, body: bytes) -> bool:
        """Tell whether an idempotency token came with another body before, where the server compares."""
        if token is None or self.flags["idempotency_other_body"] == "ignored":
            return False
        return self.bodies_by_token.setdefault(token, body) != body

    # --- Procore's rate limits ---

    def take_from_budget(self) -> tuple[bool, dict[str, str]]:
        """Count one request; return whether it is within the limits, and the headers that tell of them."""
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
        told = self.flags["rate_429"]
        if told == "retry_after" or not shown:
            headers = {}
        if told != "reset_header" or not shown:
            headers["Retry-After"] = str(max(int(reset_at - now + 0.999), 1))
        return False, headers
