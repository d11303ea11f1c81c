"""
Runs flows and kills their tasks at a chosen moment, again and again, as only a machine can.

The emulator runs here, each try of a task in a process of its own. Whatever the try does that somebody else sees, a
request or a write to its store, passes here first: there it can be killed, before it takes effect or after.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import re
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from airflow_provider_workflows.emulator import Emulator
from airflow_provider_workflows.emulator import app as emulator_app
from airflow_provider_workflows.version_compat import ROUND

from . import child
from .flows import Flow, Task

# What becomes of a request: the worker dies, and it never arrives; arrives after that; arrives before that; arrives
# while the next try is at work. Or the worker lives: the answer is lost; the request is.
BEFORE, LATE, AFTER, DELAYED, ANSWER_LOST, REQUEST_LOST = (
    "killed before",
    "killed, then it arrives",
    "killed after",
    "killed, it arrives in the next try",
    "answer lost",
    "request lost",
)
SURVIVED = (ANSWER_LOST, REQUEST_LOST)
RETRIES = 3
UNTIL_CLEARED = re.compile(r"\.\d+$")  # ends the key of what the task forgets when it is cleared
DOUBLES, QUICK_DOUBLES = 10, 2  # seeded ones of each flow
PATIENCE = 60  # seconds that a try may be silent
DONE, FAILED, REPORTED = "done", "failed clearly", "reported"

_start = multiprocessing.get_context("forkserver")
_start.set_forkserver_preload(
    ["__main__", "tests.robustness.faults.child", "tests.robustness.faults.flows", "tests.robustness.faults.careless"]
)


@dataclass(frozen=True)
class Strike:
    """
    What happens at which boundary.

    :param at: So many boundaries pass before, from the beginning or since the last strike.
    :param release: Of a delayed request: so many requests of the next tries pass before it arrives.
    """

    at: int
    how: str
    release: int = 0


@dataclass
class Outcome:
    """How a disturbed flow ended, and what is wrong with that."""

    ended: str = DONE
    lost: int = 0
    doubled: int = 0
    wrong: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    @property
    def is_violation(self) -> bool:
        return bool(self.wrong or self.lost or self.doubled)


class Gate(emulator_app.Emulated):
    """The emulator, behind a gate that a run can close."""

    run: Run | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_own = scope["type"] != "http" or scope["path"].startswith(emulator_app.OWN_PATHS)
        if self.run is not None:
            await self.run.let_late_request_arrive(is_awaited=not is_own)
        if self.run is None or is_own:
            await super().__call__(scope, receive, send)
            return
        body = await emulator_app._whole_body(receive)

        async def arrives(send: Any = _nobody) -> None:
            await super(Gate, self).__call__(scope, emulator_app._replay(body), send)

        strike = self.run.passes(f"{scope['method']} {scope['path']}")
        if strike is None:
            await arrives(send)
            return
        if strike.how in (BEFORE, LATE, DELAYED):
            self.run.kill()
        if strike.how in (LATE, AFTER, ANSWER_LOST):
            await arrives()
        if strike.how == AFTER:
            self.run.kill()
        if strike.how == DELAYED:
            self.run.late_request = LateRequest(strike.release, arrives)
        emulator_app._connection(send).abort()


@dataclass
class LateRequest:
    """A request whose sender is dead; it arrives with so many others."""

    left: int
    arrives: Callable[[], Awaitable[None]]


async def _nobody(message: Any) -> None:
    """Take an answer that nobody waits for."""


class Harness:
    """An emulator whose requests pass a gate, and the processes that send them."""

    def __enter__(self) -> Harness:
        self._stack = contextlib.ExitStack()
        self.log = Path(self._stack.enter_context(tempfile.NamedTemporaryFile(suffix=".log")).name)
        with mock.patch.object(emulator_app, "Emulated", self._made):
            self.emulator = self._stack.enter_context(Emulator())
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def _made(self, seed: str) -> Gate:
        self.gate = Gate(seed)
        return self.gate

    def undisturbed(self, flow: Flow) -> Run:
        """Run a flow as it is; it is what the disturbed ones are held against."""
        run = Run(self, flow, ())
        run.to_the_end()
        if run.outcome.wrong or not run.effects:
            raise AssertionError(f"{flow.name}, undisturbed: {run.outcome.wrong or 'no effect'} {run.outcome.story}")
        return run

    def disturbed(self, flow: Flow, point: tuple[Strike, ...], model: Run) -> Outcome:
        """Run a flow with these strikes, and judge how it ended."""
        run = Run(self, flow, point, model)
        run.to_the_end()
        wanted, found = Counter(model.effects), Counter(run.effects)
        run.outcome.lost = (wanted - found).total()
        run.outcome.doubled = (found - wanted).total()
        return run.outcome


class Run:
    """One run of a flow from a fresh emulator to its end."""

    def __init__(self, harness: Harness, flow: Flow, point: tuple[Strike, ...], model: Run | None = None):
        self.flow = flow
        self.outcome = Outcome()
        self.boundaries: list[str] = []  # of an undisturbed run
        self.effects: list[str] = []
        self.slices: dict[str, Counter[str]] = {}  # what each task effected
        self.results: dict[str, Any] = {}
        self.late_request: LateRequest | None = None
        self._harness = harness
        self._model = model
        self._strikes = list(point)
        self._struck = ("", "")
        self._passed = 0
        self._pid = 0
        self._dead = threading.Event()
        self._killed = False

    def to_the_end(self) -> None:
        emulator, flow = self._harness.emulator, self.flow
        emulator.control("POST", "reset", seed="default")
        if flow.mode is not None:
            emulator.control("PATCH", "switches", new_integrations=flow.mode)
        flow.prepare(emulator)
        connections = {f"{name}_default": emulator.connection(name) for name in ("procore", "workflowsoft")}
        if flow.mode is not None:
            connections["workflowsoft_default"]["extra"]["new_integrations"] = flow.mode
        self._connections = connections
        self._harness.gate.run = self
        try:
            for task in flow.tasks:
                before = Counter(self._effects())
                if not self._task(task):
                    break
                self.slices[task.name] = Counter(self._effects()) - before
        finally:
            self._harness.gate.run = None
        self.effects = self._effects()

    def _effects(self) -> list[str]:
        names = ("product", "action", "by", "target", "detail", "via")
        rows = self._harness.emulator.effects()
        return [json.dumps([row[name] for name in names], sort_keys=True) for row in rows]

    # --- boundaries; called by whoever sees one, while the try waits ---

    def passes(self, label: str) -> Strike | None:
        """Count a boundary and return what strikes there."""
        if self._model is None:
            self.boundaries.append(label)
        if self._strikes and self._strikes[0].at == self._passed:
            self._passed = 0
            strike = self._strikes.pop(0)
            self.outcome.story.append(f"{label}: {strike.how}")
            self._struck = (strike.how, label)
            if strike.how in SURVIVED:
                self._lost_in_this_try = strike.how if self.flow.acts(label) else None
            return strike
        self._passed += 1
        return None

    def kill(self) -> None:
        """Kill the try, and return when it is dead."""
        self._killed = True
        os.kill(self._pid, signal.SIGKILL)
        if threading.current_thread() is not threading.main_thread() and not self._dead.wait(PATIENCE):
            raise AssertionError("The worker does not die.")

    async def let_late_request_arrive(self, *, is_awaited: bool) -> None:
        """
        Let a request arrive whose sender is dead, if its time has come.

        :param is_awaited: Whether a request of a try is here, which counts; else only what is due arrives.
        """
        late = self.late_request
        if late is None:
            return
        late.left -= is_awaited
        if late.left <= 0:
            self.late_request = None
            self.outcome.story.append("the late request arrives")
            await late.arrives()

    # --- a task, as Airflow runs it ---

    def _task(self, task: Task) -> bool:
        """Run a task with its retries and, where it asks for a person, with that person; tell whether it succeeded."""
        self._store: dict[str, str] = {}
        self._harness.log.write_text("")
        self._may_report = False
        before = Counter(self._effects())
        max_tries, number, pokes = RETRIES, 1, 0  # clearing raises the first
        while True:
            in_doubt = task.in_doubt(self._kept(max_tries))
            was_done = self._is_done(task)
            how, what = self._try(task, number, max_tries, pokes)
            self.outcome.story.append(f"{task.name}, try {number}: {how} {'' if how == 'success' else what or ''}")
            self._may_report = self._may_report or task.in_doubt(self._kept(max_tries)) or self._lost_a_poll()
            if how == "success":
                return self._succeeded(task, what, was_cleared=max_tries > RETRIES)
            if how == "reschedule":
                pokes += 1
                if pokes < 3:
                    continue
                return self._hand_over(task)
            pokes = 0
            if how == "failed":
                self._check_failure(task, what, in_doubt=in_doubt, was_done=was_done)
                self._end_delay()
                if self._is_done(task):  # a person looks, and finds it
                    return True
                if task.instead is not None and Counter(self._effects()) - before:  # a person finds half of it
                    return self._do_the_rest(task.instead, what)
                max_tries += number  # a person finds nothing, and clears the task
            number += 1
            if number > max_tries + 1 or len(self.outcome.story) > 30:
                return self._give_up(f"{task.name} does not come to an end: {what}")

    def _try(self, task: Task, number: int, max_tries: int, pokes: int) -> tuple[str, Any]:
        here, there = _start.Pipe()
        given = {"mode": self.flow.mode, **self.results}
        order = child.Order(task.build, given, self._connections, str(self._harness.log), number, max_tries, pokes)
        process = _start.Process(target=child.run, args=(there, order), daemon=True)
        self._killed, self._lost_in_this_try = False, None
        self._dead.clear()
        process.start()
        there.close()
        self._pid = process.pid or 0
        ended = ("died", None)
        with here, contextlib.suppress(EOFError, ConnectionError):
            here.send("begin")
            for message in self._messages(here):
                if message[0] == "end" and self.passes(f"end of {task.name}") is not None:
                    self.kill()
                elif message[0] == "end":
                    ended = message[1:]
                    here.send("noted")
                else:
                    self._answer(here, message)
        process.join()
        self._dead.set()
        if ended[0] == "died":
            if not self._killed:
                self.outcome.wrong.append(f"{task.name} died by itself")
            return "died", None
        return ended

    def _messages(self, line: Any) -> Iterator[tuple[Any, ...]]:
        while True:
            if not line.poll(PATIENCE):
                self.outcome.wrong.append("a try was silent for too long")
                self.kill()
            yield line.recv()

    def _answer(self, line: Any, message: tuple[Any, ...]) -> None:
        if message[0] == "get":
            line.send(self._store.get(message[1]))
        else:
            key, text = message[1:]
            strike = self.passes(f"write {UNTIL_CLEARED.sub('', key)}")
            if strike is None or strike.how != BEFORE:
                self._store[key] = text
            if strike is None or strike.how in SURVIVED:
                line.send(None)
            else:
                self.kill()

    # --- what comes of it ---

    def _kept(self, max_tries: int) -> dict[str, Any]:
        """Return what the store keeps since the task was last cleared, and what outlives that, by plain keys."""
        stored = json.loads(self._store.get(ROUND, "null")) or {"round": 0, "max_tries": max_tries}
        ending = f".{stored['round']}" if stored["max_tries"] == max_tries else "\0"
        kept = [key for key in self._store if key.endswith(ending) or not UNTIL_CLEARED.search(key)]
        return {key.removesuffix(ending): json.loads(self._store[key]) for key in kept}

    def _is_done(self, task: Task) -> bool:
        """Tell whether the products show all that the task effects where nothing disturbs it."""
        if self._model is None or task.name not in self._model.slices:
            return False
        return not self._model.slices[task.name] - Counter(self._effects())

    def _lost_a_poll(self) -> bool:
        return self._lost_in_this_try is not None and self.flow.consumes(self._struck[1])

    def _succeeded(self, task: Task, result: Any, *, was_cleared: bool) -> bool:
        self.results[task.name] = result
        self._note_report(task)
        if self._reported and not result[0]["suspected_lost"]:
            self.outcome.wrong.append(f"{task.name} reports a loss in its log, and not in its result")
        if self._model is not None and task.name in self._model.results and not was_cleared:
            found, wanted = task.told(result), task.told(self._model.results[task.name])
            if found != wanted:
                self.outcome.wrong.append(f"{task.name} returned {found}, and {wanted} where nothing disturbed it")
        self._end_delay()
        return True

    @property
    def _reported(self) -> bool:
        return "Suspected loss" in self._harness.log.read_text()

    def _note_report(self, task: Task) -> None:
        if not self._reported:
            return
        if self.outcome.ended == DONE:
            self.outcome.ended = REPORTED
        if not self._may_report:
            self.outcome.wrong.append(f"{task.name} reports a loss where none can have been")

    def _check_failure(self, task: Task, what: str, *, in_doubt: bool, was_done: bool) -> None:
        self.outcome.ended = FAILED
        doubt = in_doubt or self._lost_in_this_try is not None
        shows = task.is_readable and (was_done or self._lost_in_this_try == ANSWER_LOST)
        if task.settles or not doubt or shows:
            self.outcome.wrong.append(f"{task.name} failed, but it could have known: {what}")
        if not what.startswith("OutcomeUnknown: ") or not re.search(task.look_for, what):
            self.outcome.wrong.append(f"{task.name} failed and does not say what to look for: {what}")
        if what.count("It is not sent again") != 1:
            self.outcome.wrong.append(f"{task.name} does not say once that it is not sent again: {what}")

    def _hand_over(self, task: Task) -> bool:
        """Nothing comes any more: a person compares with what runs there, and hands over what nobody works on."""
        self._note_report(task)
        if not self._reported:
            return self._give_up(f"{task.name} waits for what was lost, and does not say so")
        rows = self._harness.emulator.control("GET", "state")["workflowsoft"]
        (taken,) = [row for row in rows if row["consumed"] and row["state"] == "open"]
        self.results[task.name] = [{"integration_instance_id": taken["integration_instance_id"]}]
        self.outcome.story.append("a person hands the instance over")
        return True

    def _do_the_rest(self, instead: Callable[[Mapping[str, Any]], Any], message: str) -> bool:
        """Run what the message of a failure says to run instead of clearing the task."""
        name = type(instead(self.results)).__name__
        if name not in message:
            self.outcome.wrong.append(f"the message does not speak of {name}, which does the rest: {message}")
        return self._task(Task(name, instead))

    def _give_up(self, why: str) -> bool:
        self.outcome.wrong.append(why)
        return False

    def _end_delay(self) -> None:
        """Let what is on its way arrive now, at the latest."""
        if self.late_request is not None:
            self.late_request.left = 0
            self._harness.emulator.control("GET", "clock")


# --- all points of a flow ---


@dataclass
class Row:
    """What became of the points of one flow."""

    flow: Flow
    seed: int
    quick: bool
    outcomes: dict[int, Outcome]

    def cells(self) -> list[str]:
        outcomes = self.outcomes.values()
        ended = Counter(outcome.ended for outcome in outcomes)
        lost, doubled = sum(one.lost for one in outcomes), sum(one.doubled for one in outcomes)
        wrong = sum(one.is_violation for one in outcomes)
        numbers = [len(outcomes), ended[DONE], ended[FAILED], ended[REPORTED], lost, doubled, wrong]
        return [self.flow.name, self.flow.mode or "", *map(str, numbers)]

    def violations(self) -> list[str]:
        """Say of each violation what it is, how it came, and how to see it again."""
        mode = f" --mode {self.flow.mode}" if self.flow.mode else ""
        quick = " --quick" if self.quick else ""
        again = f"python -m tests.robustness.faults --flow '{self.flow.name}'{mode} --seed {self.seed}{quick}"
        return [
            f"{self.flow.name}, point {number}: {'; '.join([f'lost {one.lost}, doubled {one.doubled}', *one.wrong])}\n"
            f"  again: {again} --point {number}\n  " + "\n  ".join(one.story)
            for number, one in self.outcomes.items()
            if one.is_violation
        ]


def run_flow(
    harness: Harness, flow: Flow, seed: int, *, quick: bool = False, every: int = 1, only: int | None = None
) -> Row:
    """
    Run a flow once for each of its points.

    :param every: Run only each n-th point.
    :param only: Run only this point.
    """
    model = harness.undisturbed(flow)
    numbered = [
        (number, point)
        for number, point in enumerate(points(flow, model, seed, quick=quick))
        if number % every == 0 and only in (None, number)
    ]
    return Row(flow, seed, quick, {number: harness.disturbed(flow, point, model) for number, point in numbered})


def table(rows: list[Row]) -> str:
    """Return what became of all points as a table, with their sums."""
    heads = ["flow", "mode", "points", DONE, FAILED, REPORTED, "lost", "doubled", "violations"]
    cells = [row.cells() for row in rows]
    sums = [str(sum(int(row[column]) for row in cells)) for column in range(2, len(heads))]
    lines = [heads, *cells, ["all", "", *sums]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


# --- where it can be struck ---


def points(flow: Flow, model: Run, seed: int, *, quick: bool) -> list[tuple[Strike, ...]]:
    """
    Return every boundary with every strike that it can bear, and doubles of them.

    Each answer and each request that was lost is followed by a kill, too; other doubles are seeded.

    :param quick: Strike once where nothing changes, before or after; and fewer doubles.
    """
    chance = random.Random(f"{flow.name} {flow.mode} {seed}")
    at_each = (_strikes(flow, at, label, chance, quick=quick) for at, label in enumerate(model.boundaries))
    singles = [strike for strikes in at_each for strike in strikes]
    firsts = [strike for strike in singles if strike.how in SURVIVED]
    firsts += chance.choices(singles, k=QUICK_DOUBLES if quick else DOUBLES)
    return [*((strike,) for strike in singles), *((first, _next_kill(model, first, chance)) for first in firsts)]


def _strikes(flow: Flow, at: int, label: str, chance: random.Random, *, quick: bool) -> list[Strike]:
    if label.startswith("end of"):
        return [Strike(at, BEFORE)]
    if not flow.acts(label):
        both = [Strike(at, BEFORE), Strike(at, AFTER)]
        return [chance.choice(both)] if quick and not label.startswith("write") else both
    delayed = [Strike(at, DELAYED, release) for release in range(chance.randrange(1, 3), 7, 2)]
    kinds = [Strike(at, how) for how in (BEFORE, LATE, AFTER, *SURVIVED)]
    return kinds + delayed if flow.may_be_late(label) else kinds


def _next_kill(model: Run, first: Strike, chance: random.Random) -> Strike:
    """Return a kill among the boundaries that are left; of a task whose try was killed all are before it again."""
    ends = [at for at, label in enumerate(model.boundaries[: first.at]) if label.startswith("end of")]
    begun = first.at if first.how in SURVIVED else max(ends, default=-1)
    return Strike(chance.randrange(len(model.boundaries) - begun), chance.choice((BEFORE, LATE, AFTER)))
