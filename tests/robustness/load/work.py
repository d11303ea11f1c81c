"""Two hundred tasks of several kinds (or a tenth of them), a record of what each sent, and what must be true of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from airflow_provider_workflows import emulator as emulators
from airflow_provider_workflows.emulator import Emulator

POOL_SIZE = 8  # what docs/operate.md says
PER_SECOND = 2.5  # requests that Procore's window of 10 seconds allows, 25
MAX_RATIO = 1.3
COUNTS = {"respond": 60, "perform": 50, "start": 39, "integration": 17}  # an integration takes three tasks
TOOL = "purchase_order_contract"
FIELDS = {"Venue": "Main hall", "Event duration": "2.5"}
LIMITS = {"rate_limit": "on", "rate_headers": "always", "rate_429": "both"}
EFFECTS = {
    ("procore", "respond"): "respond",
    ("procore", "start"): "start",
    ("procore_legacy", "perform_activity"): "perform",
    ("workflowsoft", "write_fields"): "integration",
    ("workflowsoft", "complete"): "integration",
}


@dataclass(frozen=True)
class Request:
    """One request, the task that made it, and its response; ``not_before`` is a unix time."""

    task: str
    at: float
    path: str
    status: int
    not_before: float | None


class RecordedEmulator(Emulator):
    """
    An emulator that also knows which task made a request, and when exactly.

    Each task has a connection of its own, to an address of its own: ``/task/NAME`` before each path.
    """

    def __init__(self) -> None:
        super().__init__()
        self.record: list[Request] = []

    def __enter__(self) -> RecordedEmulator:
        build = emulators.server

        def recorded(seed: str) -> Any:
            server = build(seed)
            server.config.app = self._recorded(server.config.app)
            return server

        with patch.object(emulators, "server", recorded):
            super().__enter__()
        return self

    def connection_of(self, conn_type: str, task: str) -> dict[str, Any]:
        """Return a task's own connection to a product."""
        connection = self.connection(conn_type)
        address = f"{self.url}/task/{task}"
        own = {"login_url": address} if conn_type == "procore" else {}
        return {**connection, "host": address, "extra": {**connection["extra"], **own}}

    def _recorded(self, app: Any) -> Any:
        async def recorded(scope: Any, receive: Any, send: Any) -> None:
            if not scope["path"].startswith("/task/"):
                await app(scope, receive, send)
                return
            _, _, task, rest = scope["path"].split("/", 3)
            at = app.state.clock.time()
            response: dict[str, Any] = {}

            async def record_start(message: Any) -> None:
                if message["type"] == "http.response.start":
                    response.update(message)
                await send(message)

            await app({**scope, "path": f"/{rest}"}, receive, record_start)
            headers = {name.decode(): value.decode() for name, value in response["headers"]}
            status = response["status"]
            not_before = _not_before(headers, at) if status == 429 else None
            self.record.append(Request(task, at, f"/{rest}", status, not_before))

        return recorded


def _not_before(headers: dict[str, str], at: float) -> float:
    stated = (float(headers.get("x-rate-limit-reset", 0)), at + float(headers.get("retry-after", 0)))
    return max(stated)


def prepare(emulator: Emulator, part: int = 1) -> dict[str, list[dict[str, Any]]]:
    """
    Start the instances that the tasks write to; return the arguments of each task by its kind.

    :param part: Divides the numbers of tasks.
    """
    counts = {kind: count // part for kind, count in COUNTS.items()}
    v2 = emulator.control("POST", "procore/instances/many", count=counts["respond"])["ids"]
    legacy = emulator.control("POST", "procore/legacy/instances/many", count=counts["perform"])["ids"]
    integrations = [
        emulator.control("POST", "workflowsoft/processes", diagram="Event planning")["integration_instance_id"]
        for _ in range(counts["integration"])
    ]
    emulator.control("PATCH", "flags", **LIMITS)
    return {
        "respond": [
            {"procore_conn_id": f"respond_{i}", "instance_id": instance_id} for i, instance_id in enumerate(v2)
        ],
        "perform": [
            {"procore_conn_id": f"perform_{i}", "instance_id": instance_id} for i, instance_id in enumerate(legacy)
        ],
        "start": [{"procore_conn_id": f"start_{i}", "item_id": str(900_000 + i)} for i in range(counts["start"])],
        "integration": [
            {"workflowsoft_conn_id": f"integration_{i}", "integration_instance_id": instance_id}
            for i, instance_id in enumerate(integrations)
        ],
    }


def connections(emulator: RecordedEmulator, work: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return a connection for each of the tasks."""
    tasks = [(name, arguments[name]) for many in work.values() for arguments in many for name in arguments]
    return {
        conn_id: emulator.connection_of(name.removesuffix("_conn_id"), conn_id)
        for name, conn_id in tasks
        if name.endswith("_conn_id")
    }


def tasks_of(work: dict[str, list[dict[str, Any]]]) -> int:
    """Return how many tasks this is: an integration takes three."""
    return sum(len(many) * (3 if kind == "integration" else 1) for kind, many in work.items())


def counted(record: list[Request]) -> list[Request]:
    """Return the requests that Procore let in and counts."""
    return [request for request in record if request.path.startswith("/rest/") and request.status != 429]


def rejected(record: list[Request]) -> list[Request]:
    return [request for request in record if request.status == 429]


def least_seconds(record: list[Request]) -> float:
    """Return how long the limit lets these requests take at least."""
    return len(counted(record)) / PER_SECOND


def too_early(record: list[Request]) -> list[str]:
    """Return what was sent before the time that the server had named to that task."""
    not_before: dict[str, float] = {}
    early = []
    for request in sorted(record, key=lambda entry: entry.at):
        stated = not_before.pop(request.task, 0.0)
        if request.at < stated:
            early.append(f"{request.task} sent {request.path} {stated - request.at:.2f} s too early")
        if request.not_before is not None:
            not_before[request.task] = request.not_before
    return early


def wrong_effects(emulator: Emulator, part: int = 1) -> list[str]:
    """Return what is wrong with what was done: each action once, on a target of its own."""
    expected = {effect: COUNTS[kind] // part for effect, kind in EFFECTS.items()}
    done = [effect for effect in emulator.effects() if effect["via"] == "api"]
    found = Counter((effect["product"], effect["action"]) for effect in done)
    targets = Counter(
        (effect["product"], effect["action"], effect["target"].get("instance_id") or str(effect["target"]))
        for effect in done
    )
    wrong = [
        f"{' '.join(key)}: {found[key]} times instead of {expected.get(key, 0)}"
        for key in sorted({*found, *expected})
        if found[key] != expected.get(key, 0)
    ]
    return wrong + [f"{' '.join(key)}: {times} times" for key, times in targets.items() if times > 1]


def total_seconds(record: list[Request]) -> float:
    """Return how long these requests took: from the first one to the last."""
    times = [request.at for request in counted(record)]
    return max(times) - min(times)


def problems(emulator: RecordedEmulator, part: int = 1) -> list[str]:
    """Return which promises were broken."""
    broken = wrong_effects(emulator, part) + too_early(emulator.record)
    if not rejected(emulator.record):
        broken.append("the limit was never reached")
    if total_seconds(emulator.record) > MAX_RATIO * least_seconds(emulator.record):
        broken.append(f"it took more than {MAX_RATIO} times the least")
    return broken


def report(work: dict[str, list[dict[str, Any]]], record: list[Request]) -> dict[str, str]:
    """Return what was sent and how long it took, by names."""
    least, total = least_seconds(record), total_seconds(record)
    again = Counter(request.task for request in rejected(record))
    return {
        "tasks": str(tasks_of(work)),
        "requests": str(len(record)),
        "that count for the limit": str(len(counted(record))),
        "429s": str(len(rejected(record))),
        "429s of one task, at most": str(max(again.values(), default=0)),
        "minimum": f"{least:.0f} s",
        "total, first to last request": f"{total:.0f} s",
        "ratio": f"{total / least:.2f}",
    }
