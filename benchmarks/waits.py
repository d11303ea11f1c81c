"""
What it costs to wait: this provider and Airflow's own HTTP triggers side by side, on one machine, in one run.

``python -m benchmarks.waits`` prints a table and the targets, and ends with 1 where a target was missed. Each
measurement has a fresh process that runs the triggers in one event loop, as a triggerer does; the emulator runs in
a process of its own, whose work is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

import requests

from airflow_provider_workflows.emulator import Emulator
from benchmarks import neighbours, report

ROOT = Path(__file__).parents[1]
STOCK = ("http_sensor", "http_event")
KINDS = ("v2", "legacy", "changed", *STOCK)
TOOL, PROJECT = "purchase_order_contract", "1001"
LEGACY_WORKFLOW = "Purchase Order Approval Workflow"
GROUPS = 20  # in which instances are changed, spread over an interval
CHANGED = 200


@dataclass(frozen=True)
class Plan:
    """One measurement."""

    kind: str
    waits: int
    interval: float
    polls: int  # over which requests and CPU are measured
    first_delay: float | None = None  # of this provider's polls, where it is not to be the usual one


@dataclass(frozen=True)
class Measured:
    """What came out; times in seconds, memory in MiB, per poll means per interval."""

    kind: str
    waits: int
    interval: float
    polls: int
    requests_per_poll: float
    cpu_per_poll: float
    core_share: float  # at this interval
    core_share_60: float  # at 60 s, computed
    memory: float  # at the peak, more than at rest
    memory_per_wait_kib: float
    longest_stall: float
    longest_stall_loading: float
    longest_collection: float  # of the garbage, while the event loop stood still, too; not part of the stalls
    changed: int
    missing: int  # of these, whose event had not come some intervals later
    delay_p50: float
    delay_p99: float
    others: float  # cores that other programs were using meanwhile
    idle_stall: float  # by how much a thread that does nothing else woke up late: what the machine adds to any stall


SIZES = ((100, 5.0, 1), (1_000, 10.0, 1), (10_000, 30.0, 1))  # waits, interval, polls
# To end within 12 minutes; of the stock triggers the cheaper one is left at 10,000.
LEFT_OUT = {("changed", 100), ("changed", 10_000), ("http_event", 10_000)}
FULL = tuple(Plan(kind, *size) for size in SIZES for kind in KINDS if (kind, size[0]) not in LEFT_OUT)
QUICK = tuple(Plan(kind, 1_000, 5.0, 1) for kind in KINDS if kind != "changed")


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if threading.current_thread() is threading.main_thread():  # to end what was started, as Ctrl-C does
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    plans = _plans(options)
    if importlib.util.find_spec("airflow.providers.http") is None:
        left_out = sum(plan.kind in STOCK for plan in plans)
        plans = [plan for plan in plans if plan.kind not in STOCK]
        if left_out:
            print("apache-airflow-providers-http is not installed, so its triggers are not measured: make bench")
    start_time = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        measured = []
        for plan in plans:
            measured.append(measure(plan, Path(home)))
            print(report.line(asdict(measured[-1])), flush=True)
        is_whole = not options.waits and set(options.kinds) == set(KINDS)
        side_by_side = measure_neighbours(neighbours.Sizes(), Path(home)) if is_whole else None
        emulator = None if options.quick or options.waits else emulator_memory(Path(home))
    results: dict[str, Any] = {
        "machine": machine(),
        "measured": [asdict(row) for row in measured],
        "neighbours": side_by_side,
        "emulator_memory": emulator,
        "seconds": round(time.monotonic() - start_time),
    }
    results["targets"] = targets(results)
    print("\n" + report.text(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.update_docs:
        report.update(results, ROOT)
    return 0 if all(target["met"] for target in report.all_targets(results)) else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waits", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 waits only, every 5 s; about three minutes")
    parser.add_argument("--waits", type=int, help="this many waits only")
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between two polls, with --waits")
    parser.add_argument("--polls", type=int, default=2, help="polls to measure, with --waits")
    parser.add_argument("--first-delay", type=float, help="least seconds before our first poll, with --waits")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="which triggers")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument(
        "--update-docs", action="store_true", help="write the results and the chart into the repository"
    )
    return parser.parse_args(arguments)


def _plans(options: argparse.Namespace) -> list[Plan]:
    if options.waits:
        settings = (options.waits, options.interval, options.polls, options.first_delay)
        return [Plan(kind, *settings) for kind in options.kinds]
    return [plan for plan in (QUICK if options.quick else FULL) if plan.kind in options.kinds]


# --- one measurement ----------------------------------------------------------------------------------------


def measure(plan: Plan, home: Path) -> Measured:
    """Run a number of triggers in a new process, and measure what that takes."""
    with emulated() as (emulator, emulator_pid):
        order, changes = orders(plan, emulator)
        order["kwargs"] = _shuffled(order["kwargs"])
        with trigger_process(order, emulator, home) as process:
            process.hear()
            others = Others(process.pid, emulator_pid)
            before = emulator.control("GET", "counts")["served"]
            window = process.respond()
            served = emulator.control("GET", "counts")["served"] - before
            process.respond()
            with idling() as idle:
                changed = change(emulator, plan, changes)
                reported = process.respond(list(changed))
            ended, disturbance = time.time(), others.cores()
        missing = [name for name in changed if name not in reported["events"]]
        if reported["failed"] or (missing and plan.kind not in STOCK):
            raise SystemExit(
                f"{plan}: {reported['failed']} triggers failed {reported['failures']}, "
                f"{len(missing)} events are missing"
            )
        if early := set(reported["events"]) - set(changed):
            raise SystemExit(f"{plan}: {len(early)} waits ended although nothing had changed")
    sent = window["sent"] if plan.kind not in STOCK else served
    intervals = window["seconds"] / plan.interval if plan.kind in STOCK else plan.polls
    if plan.kind not in STOCK and sent != served:
        raise SystemExit(f"{plan}: {sent} requests were counted here, {served} by the emulator")
    # What has not come by the end counts as if it had come then.
    delays = sorted(reported["events"].get(name, ended) - at for name, at in changed.items())
    cpu = window["cpu"] / intervals
    memory = (reported["memory_peak"] - reported["memory_at_rest"]) / 1024
    return Measured(
        kind=plan.kind,
        waits=plan.waits,
        interval=plan.interval,
        polls=plan.polls,
        requests_per_poll=round(sent / intervals, 1),
        cpu_per_poll=round(cpu, 3),
        core_share=round(cpu / plan.interval, 4),
        core_share_60=round(cpu / 60, 4),
        memory=round(memory, 1),
        memory_per_wait_kib=round(memory * 1024 / plan.waits, 1),
        longest_stall=round(reported["stall"], 4),
        longest_stall_loading=round(reported["loading_stall"], 4),
        longest_collection=round(reported["collection"], 4),
        changed=len(delays),
        missing=len(missing),
        delay_p50=round(_quantile(delays, 0.5), 2),
        delay_p99=round(_quantile(delays, 0.99), 2),
        others=round(disturbance, 2),
        idle_stall=round(max(idle), 4),
    )


def measure_neighbours(sizes: neighbours.Sizes, home: Path) -> dict[str, Any]:
    """See in a new process whether waits disturb each other; return the targets, the day, and how busy others were."""
    with emulated() as (emulator, emulator_pid):
        order = {"url": emulator.url, "sizes": asdict(sizes)}
        with trigger_process(order, emulator, home, "benchmarks.neighbours") as process:
            others = Others(process.pid, emulator_pid)
            figures = process.hear()["figures"]
            disturbance = round(others.cores(), 2)
    return {"date": _today(), "others": disturbance, "targets": [_target(*figure) for figure in figures]}


def orders(plan: Plan, emulator: Emulator) -> tuple[dict[str, Any], list[str]]:
    """Start the instances to wait for; return the order of the process, and what can be changed, by trigger names."""
    kind, many = plan.kind, plan.waits
    order: dict[str, Any] = {
        "interval": plan.interval,
        "polls": plan.polls,
        "shared": kind not in STOCK,
        "watches": kind == "changed",
        "common": {"poke_interval": plan.interval},
    }
    if plan.first_delay is not None:
        order["first_delay"] = plan.first_delay
    company = emulator.connection("procore")["extra"]["company_id"]
    instance = f"/rest/v2.0/companies/{company}/projects/{PROJECT}/workflows/instances/{{}}"
    if kind == "legacy":
        return _legacy_orders(order, plan, emulator)
    if kind == "http_sensor":
        # It ends at any response but a 404, so that it can wait for nothing but the start of an instance.
        last = int(start(emulator, 1)["ids"][0])
        names = [str(last + 1 + number) for number in range(many)]
        order["classpath"] = "airflow.providers.http.triggers.http.HttpSensorTrigger"
        order["kwargs"] = {name: {"endpoint": instance.format(name)} for name in names}
        return order, names
    started = start(emulator, many)
    names = started["ids"]
    if kind == "http_event":
        order["classpath"] = "airflow.providers.http.triggers.http.HttpEventTrigger"
        order["common"] = {
            "poll_interval": plan.interval,
            "method": "GET",
            "response_check_path": "benchmarks.checks.has_moved",
        }
        order["kwargs"] = {name: {"endpoint": instance.format(name)} for name in names}
        return order, names
    if kind == "changed":
        order["classpath"] = "airflow_provider_workflows.triggers.procore_events.ProcoreInstanceChangedTrigger"
        order["common"] = {"tool_type": TOOL, "project_id": PROJECT, "poll_interval": plan.interval}
        order["kwargs"] = {"all of them": {}}
        return order, names
    order["classpath"] = "airflow_provider_workflows.triggers.procore.ProcoreInstanceWaitTrigger"
    order["common"] = _own(plan) | {
        "project_id": PROJECT,
        "tool_type": TOOL,
        "until": ["completed", "terminated"],
        "step_reached": ["Director Approval"],
    }
    order["kwargs"] = {
        name: {"instance_id": name, "item_id": item_id}
        for name, item_id in zip(names, started["item_ids"], strict=True)
    }
    return order, names


def _own(plan: Plan) -> dict[str, Any]:
    return {
        "procore_conn_id": "procore_default",
        "company_id": None,
        "poll_interval": plan.interval,
        "deadline": "2099-01-01T00:00:00+00:00",
    }


def _legacy_orders(order: dict[str, Any], plan: Plan, emulator: Emulator) -> tuple[dict[str, Any], list[str]]:
    for seeded in emulator.control("GET", "state")["procore_legacy"]:
        emulator.control("POST", f"procore/legacy/instances/{seeded['id']}/terminate", login="pat@example.com")
    started = emulator.control("POST", "procore/legacy/instances/many", count=plan.waits, workflow=LEGACY_WORKFLOW)
    marks = _legacy_marks(emulator)
    order["classpath"] = "airflow_provider_workflows.triggers.procore_legacy.ProcoreLegacyInstanceWaitTrigger"
    order["common"] = _own(plan) | {
        "project_id": PROJECT,
        "object_type": None,
        "object_id": None,
        "until": ["Under Review"],
        "fail_on": [],
        "skip_on": [],
        "after": None,
        "activity": None,
        "role": None,
    }
    order["kwargs"] = {name: {"instance_id": name, "mark": marks[name]} for name in started["ids"]}
    return order, started["ids"]


def _legacy_marks(emulator: Emulator) -> dict[str, str]:
    """Return what the sensors' first pokes, on a worker, would have passed to the triggers."""
    from airflow_provider_workflows.rules import procore_legacy as rules

    procore = emulator.connection("procore")
    session = requests.Session()
    session.headers.update(_headers(procore))
    marks: dict[str, str] = {}
    for page in count(1):
        place = {"company_id": procore["extra"]["company_id"], "per_page": 2000, "page": page}
        rows = session.get(f"{emulator.url}/rest/v1.0/workflow_instances", params=place, timeout=30).json()
        if not rows:
            return marks
        marks |= {str(row["id"]): rules.mark_of(rules.describe_instance(rules.str_ids(row))) for row in rows}
    raise AssertionError("unreachable")


def start(emulator: Emulator, number: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = emulator.control(
        "POST", "procore/instances/many", count=number, tool_type=TOOL, project_id=PROJECT
    )
    return found


def change(emulator: Emulator, plan: Plan, names: list[str]) -> dict[str, float]:
    """Change some of what is waited for, spread over an interval; return when, as unix times."""
    some = min(CHANGED, len(names))
    # Of the first ones for the sensor, whose instances start in this order; else from all over.
    chosen = names[:some] if plan.kind == "http_sensor" else names[:: max(1, len(names) // some)][:some]
    size = max(1, some // GROUPS)
    groups = [chosen[first : first + size] for first in range(0, some, size)]
    start_time = time.monotonic()
    changed: dict[str, float] = {}
    for number, group in enumerate(groups):
        time.sleep(max(0.0, start_time + number * plan.interval / len(groups) - time.monotonic()))
        changed |= dict.fromkeys(group, time.time())
        if plan.kind == "http_sensor":
            if start(emulator, len(group))["ids"] != group:
                raise SystemExit("The emulator gives its ids in another order than was expected.")
        elif plan.kind == "legacy":
            who = {"activity": "Submit for Approval", "login": "integration@example.com"}
            emulator.control("POST", "procore/legacy/instances/perform-many", ids=group, **who)
        else:
            emulator.control(
                "POST", "procore/instances/respond-many", ids=group, login="integration@example.com", option="Approve"
            )
    return changed


def _shuffled(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the same in another order, or the stock triggers would poll in the order in which things change."""
    names = list(kwargs)
    random.Random(1).shuffle(names)
    return {name: kwargs[name] for name in names}


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# --- processes ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def emulated(seed: str = "default") -> Iterator[tuple[Emulator, int]]:
    """Run an emulator in a process of its own; yield it and its process id."""
    command = [sys.executable, "-m", "airflow_provider_workflows.emulator", "--seed", seed]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Emulator.attach(process.stdout.readline().split()[-1]), process.pid
        finally:
            process.kill()


class Others:
    """
    Sees how busy the machine is with other programs, which disturb a measurement.

    :param pids: Processes that belong to the measurement; this one does, too.
    """

    def __init__(self, *pids: int):
        self._pids = (*pids, os.getpid())
        self._start_time = time.monotonic()
        self._before = self._busy()

    def cores(self) -> float:
        """Return how many cores they have used since the start."""
        return max(0.0, self._busy() - self._before) / (time.monotonic() - self._start_time)

    def _busy(self) -> float:
        user, nice, system, _idle, _wait, *interrupts = map(
            int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
        )
        own = 0
        for pid in self._pids:
            times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            own += int(times[11]) + int(times[12])
        return (user + nice + system + sum(interrupts) - own) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def idling() -> Iterator[list[float]]:
    """Yield by how much a sleeping thread of this process, which hardly works, ends its sleep late."""
    late, ended = [0.0], threading.Event()

    def sleep() -> None:
        while not ended.is_set():
            start_time = time.perf_counter()
            time.sleep(0.01)
            late.append(time.perf_counter() - start_time - 0.01)

    thread = threading.Thread(target=sleep, daemon=True)
    thread.start()
    try:
        yield late
    finally:
        ended.set()
        thread.join()


class TriggerProcess:
    """Talks to the process that runs triggers."""

    def __init__(self, process: subprocess.Popen[str], errors: Path):
        self.pid = process.pid
        self._process = process
        self._errors = errors

    def hear(self) -> dict[str, Any]:
        """Wait for what it says next."""
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            reported: dict[str, Any] = json.loads(line)
            return reported
        raise SystemExit("The process that runs the triggers has died:\n" + self._errors.read_text()[-3000:])

    def respond(self, response: Any = None) -> dict[str, Any]:
        """Let it go on, and wait for what it says next."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(response) + "\n")
        self._process.stdin.flush()
        return self.hear()


@contextlib.contextmanager
def trigger_process(
    order: dict[str, Any], emulator: Emulator, home: Path, program: str = "benchmarks.triggerer"
) -> Iterator[TriggerProcess]:
    """Run a process that runs triggers."""
    (home / "order.json").write_text(json.dumps(order))
    procore = emulator.connection("procore")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW_CONN_PROCORE_DEFAULT": json.dumps(procore),
        "AIRFLOW_CONN_HTTP_DEFAULT": json.dumps(
            {"conn_type": "http", "host": emulator.url, "extra": _headers(procore)}
        ),
    }
    command = [sys.executable, "-m", program, str(home / "order.json")]
    errors = home / "triggerer.log"
    with (
        errors.open("w") as log,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield TriggerProcess(process, errors)
        finally:
            process.kill()


def _headers(procore: dict[str, Any]) -> dict[str, str]:
    """Return the headers that a DAG author has to put into the connection of the stock triggers."""
    form = {"grant_type": "client_credentials", "client_id": procore["login"], "client_secret": procore["password"]}
    token = requests.post(f"{procore['host']}/oauth/token", data=form, timeout=30).json()["access_token"]
    return {"Authorization": f"Bearer {token}", "Procore-Company-Id": str(procore["extra"]["company_id"])}


def emulator_memory(home: Path) -> float:
    """Return what the emulator takes with 100,000 instances of each API, in MiB."""
    with emulated("huge") as (emulator, pid):
        emulator.control("GET", "clock")
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return round(int(line.split()[1]) / 1024, 1)
    raise LookupError("VmRSS")


def machine() -> dict[str, Any]:
    """Describe where this ran."""
    versions = {name: _version(f"apache-airflow{name}") for name in ("", "-providers-http")}
    return {
        "date": _today(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "airflow": versions[""],
        "http_provider": versions["-providers-http"],
    }


def _today() -> str:
    return datetime.now(timezone.utc).date().isoformat()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


# --- targets ------------------------------------------------------------------------------------------------


def targets(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return which targets were met, of those that this run can measure."""
    by = {(row["kind"], row["waits"]): row for row in results["measured"]}
    found: list[dict[str, Any]] = []

    def check(name: str, value: float, limit: float) -> None:
        found.append(_target(name, value, limit))

    for kind in ("v2", "legacy"):
        label = report.LABELS[kind]
        own = by.get((kind, 1_000))
        for stock in STOCK:
            theirs = by.get((stock, 1_000))
            if own is None or theirs is None:
                continue
            for what, name, part in (("requests_per_poll", "requests", 50), ("cpu_per_poll", "CPU", 10)):
                check(
                    f"{label}: {name} at 1,000 waits, as a part of {report.LABELS[stock]}",
                    own[what] / theirs[what],
                    1 / part,
                )
        for waits in (1_000, 10_000):
            if measured := by.get((kind, waits)):
                name = f"{label}: longest stall at {waits:,} waits, in seconds, without full garbage collections"
                check(name, measured["longest_stall"], 0.05)
        if large := by.get((kind, 10_000)):
            check(f"{label}: MiB more than at rest at 10,000 waits", large["memory"], 250)
            check(f"{label}: share of a core at 10,000 waits and 60 s", large["core_share_60"], 0.15)
    if v2 := by.get(("v2", 1_000)):
        check("Requests an hour of 2,500 v2 waits at 5 minutes", v2["requests_per_poll"] / 1_000 * 2_500 * 12, 600)
    for (kind, waits), row in by.items():
        if kind not in STOCK:
            name = f"{report.LABELS[kind]}: delay p99 at {waits:,} waits, beyond the interval"
            check(name, row["delay_p99"] - row["interval"], 1.0)
    if results["emulator_memory"] is not None:
        check("MiB of the emulator with 100,000 instances of each API", results["emulator_memory"], 400)
    return found


def _target(name: str, value: float, limit: float) -> dict[str, Any]:
    return {"name": name, "value": round(value, 3), "limit": limit, "met": round(value, 3) <= limit}


if __name__ == "__main__":
    sys.exit(main())
