"""
Runs flows and kills or suspends their tasks at a chosen moment, again and again, as only a machine can.

The emulator runs here, each try of a task in a process of its own. Everything that the try does that others see, a
request or a write to its store, passes here first: there it can be killed or suspended, before it takes effect or
after.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import multiprocessing
import os
import re
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from airflow_provider_workflows.emulator import Emulator
from airflow_provider_workflows.emulator import app as emulator_app
from airflow_provider_workflows.version_compat import CLEARS_KEY

from . import child
from .flows import Flow, Task
from .reports import DONE, FAILED, REPORTED, Outcome, Row
from .strikes import (
    AFTER,
    BEFORE,
    DELAYED,
    LATE,
    NEXT_WRITE,
    RESPONSE_LOST,
    RESUME,
    SURVIVED,
    SUSPENDED,
    SUSPENDED_AFTER,
    TWO_TRIES,
    Strike,
    points,
)
from .truth import Effect, Seen, untrue_error

RETRIES = 3
UNTIL_CLEARED = re.compile(r"\.\d+$")  # ends the key of what the task forgets when it is cleared
PATIENCE = 120  # seconds that a try may be silent
# What changes nothing where it says what is there already: of two tries at once both may say it.
SAME_AGAIN = ("update_preset_assignees", "write_fields")

_start = multiprocessing.get_context("forkserver")
_start.set_forkserver_preload(
    ["__main__", "tests.robustness.faults.child", "tests.robustness.faults.flows", "tests.robustness.faults.careless"]
)


class Gate(emulator_app.EmulatorApp):
    """The emulator, behind a gate that a run can close."""

    run: Run | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_own = scope["type"] != "http" or scope["path"].startswith(emulator_app.EMULATOR_PATHS)
        if self.run is not None:
            await self.run.let_late_request_arrive(is_awaited=not is_own)
        if self.run is None or is_own:
            await super().__call__(scope, receive, send)
            return
        body = await emulator_app._whole_body(receive)

        async def arrives(send: Any = _discard) -> None:
            await super(Gate, self).__call__(scope, emulator_app._replay(body), send)

        run, label = self.run, f"{scope['method']} {scope['path']}"
        strike = run.passes(label)
        if strike is None or strike.how == RESUME or strike.how in SUSPENDED:
            response = emulator_app._BufferedResponse()
            if strike is not None and strike.how != SUSPENDED_AFTER:
                await asyncio.to_thread(run.suspend, strike)
            if (status := run.rejects(label)) is None:
                await arrives(response.receive)
            else:
                response.status = status
                error = {"code": "rejected", "message": "Rejected.", "details": []}
                response.set_body({"error": error, "message": "Rejected."})
            if strike is not None and strike.how == SUSPENDED_AFTER:
                await asyncio.to_thread(run.suspend, strike)
            await response.send_to(send, None)
            return
        if strike.how in (BEFORE, LATE, DELAYED):
            run.kill()
        if strike.how in (LATE, AFTER, RESPONSE_LOST):
            await arrives()
        if strike.how == AFTER:
            run.kill()
        if strike.how == DELAYED:
            run.late_request = LateRequest(strike.release, arrives)
        emulator_app._connection(send).abort()


@dataclass
class LateRequest:
    """A request whose sender is dead; it arrives after a number of others."""

    left: int
    arrives: Callable[[], Awaitable[None]]


async def _discard(message: Any) -> None:
    """Take a response that nothing waits for."""


class Harness:
    """An emulator whose requests pass a gate, and the processes that send them."""

    def __enter__(self) -> Harness:
        self._stack = contextlib.ExitStack()
        self.log = Path(self._stack.enter_context(tempfile.NamedTemporaryFile(suffix=".log")).name)
        with mock.patch.object(emulator_app, "EmulatorApp", self._made):
            self.emulator = self._stack.enter_context(Emulator())
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def _made(self, seed: str) -> Gate:
        self.gate = Gate(seed)
        return self.gate

    def undisturbed(self, flow: Flow) -> Run:
        """Run a flow as it is; the disturbed ones are compared with it."""
        run = Run(self, flow, ())
        run.to_the_end()
        if run.outcome.is_violation or not run.effects:
            problems = [*run.outcome.wrong, *run.outcome.untrue]
            raise AssertionError(f"{flow.name}, undisturbed: {problems or 'no effect'} {run.outcome.story}")
        return run

    def disturbed(self, flow: Flow, point: tuple[Strike, ...], model: Run) -> Outcome:
        """Run a flow with these strikes, and evaluate how it ended."""
        run = Run(self, flow, point, model)
        run.to_the_end()
        expected, found = Counter(model.effects), Counter(run.effects)
        run.outcome.lost = (expected - found).total()
        run.outcome.doubled = (found - expected).total()
        return run.outcome


class Try:
    """One try of a task, or a trigger that it waits for: a process, and what the emulator showed when it started."""

    def __init__(self, order: child.Order, effects: int, *, in_doubt: bool, was_done: bool):
        here, there = _start.Pipe()
        self.order = order
        self.effects = effects  # that were there before
        self.in_doubt = in_doubt
        self.was_done = was_done
        self.line = here
        self.ended: tuple[str, Any] = ("died", None)
        self.killed = False
        self.sent = False
        self.alone = True
        self.lost: str | None = None  # how a write request was lost, which it survived
        self.lost_poll = False  # of a request that takes out what it reads
        self.rejects_reads = False
        self.passed = 0
        self.turn = threading.Event()
        self.over = threading.Event()
        self.server: threading.Thread | None = None
        self.process = _start.Process(target=child.run, args=(there, order), daemon=True)
        self.process.start()
        there.close()

    @property
    def is_uncertain(self) -> bool:
        return self.in_doubt or self.lost is not None


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
        self._passed = 0
        self._second: Try | None = None
        self._release = 0
        self._rejected: tuple[int, int] = (0, 0)  # a status, and for how many tries from this one on

    def to_the_end(self) -> None:
        emulator, flow = self._harness.emulator, self.flow
        emulator.control("POST", "reset", seed="default")
        if flow.flags:
            emulator.control("PATCH", "flags", **flow.flags)
        if flow.mode is not None:
            emulator.control("PATCH", "flags", new_integrations=flow.mode)
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

    def _rows(self) -> list[Effect]:
        return [row for row in self._harness.emulator.effects() if row["via"] != "user"]

    def _effects(self) -> list[str]:
        names = ("product", "action", "by", "target", "detail", "via")
        found: list[str] = []
        for row in self._rows():
            text = self.flow.same(json.dumps([row[name] for name in names], sort_keys=True))
            if self.flow.kind != TWO_TRIES or row["action"] not in SAME_AGAIN or text not in found:
                found.append(text)
        return found

    # --- boundaries; called by the thread that sees one, while the try waits ---

    def passes(self, label: str) -> Strike | None:
        """Count a boundary and return what strikes there."""
        if self._model is None:
            self.boundaries.append(label)
        active, writes = self._active, self.flow.writes(label)
        active.sent = active.sent or writes
        active.passed += 1
        if active is self._second:
            return Strike(0, RESUME) if active.passed == self._release + 1 and not self._first.over.is_set() else None
        if not self._strikes:
            return None
        at = self._strikes[0].at
        if at != self._passed and not (at == NEXT_WRITE and writes):
            self._passed += 1
            return None
        self._passed = 0
        strike = self._strikes.pop(0)
        self.outcome.story.append(
            f"{label}: {strike.how}{f', reading rejected ({strike.read_status})' * bool(strike.read_status)}"
        )
        if strike.how in SURVIVED:
            active.lost = strike.how if writes else active.lost
            active.lost_poll = active.lost_poll or self.flow.consumes(label)
        if strike.read_status is not None:
            self._rejected = (strike.read_status, 1 if strike.how in SURVIVED else 2)
            active.rejects_reads = True
        return strike

    def rejects(self, label: str) -> int | None:
        """Return the status with which a request is rejected, or None."""
        is_rejected = self._active.rejects_reads and label.startswith("GET") and self.flow.reads(label)
        return self._rejected[0] if is_rejected else None

    def kill(self) -> None:
        """Kill the try, and return when it is dead."""
        active = self._active
        active.killed = True
        os.kill(active.process.pid or 0, signal.SIGKILL)
        if threading.current_thread() is not active.server and not active.over.wait(PATIENCE):
            raise AssertionError("The worker does not die.")

    def suspend(self, strike: Strike) -> None:
        """Let the other one of two tries run on while this one waits; return when it is this one's turn again."""
        active = self._active
        if strike.how == RESUME:
            self._hand_turn(self._first)
        else:
            self._first, self._release = active, strike.release
            active.alone = False
            self._second = self._start_try(dataclasses.replace(active.order, try_number=active.order.try_number + 1))
            self._second.alone = False
            threading.Thread(target=self._serve, args=(self._second,), daemon=True).start()
        if not active.turn.wait(PATIENCE):
            raise AssertionError("The suspended try does not get its turn.")
        active.turn.clear()

    def _hand_turn(self, other: Try) -> None:
        self._active = other
        other.turn.set()

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
            self._active.alone = False
            self.outcome.story.append("the late request arrives")
            await late.arrives()

    # --- a task, as Airflow runs it ---

    def _task(self, task: Task) -> bool:
        """Run a task with its retries and the person for whom it waits; return whether it succeeded."""
        self._store: dict[str, str] = {}
        self._harness.log.write_text("")
        self._may_report = False
        self._current, self._effects_before = task, len(self._rows())
        before = Counter(self._effects())
        max_tries, number, pokes = RETRIES, 1, 0  # clearing raises the first
        resume = None
        while True:
            inputs = {"mode": self.flow.mode, **self.results}
            log = str(self._harness.log)
            attempt = self._try(
                child.Order(task.build, inputs, self._connections, log, number, max_tries, pokes, resume)
            )
            number, resume, (how, what) = attempt.order.try_number, None, attempt.ended
            self._may_report = self._may_report or task.in_doubt(self._stored(max_tries)) or attempt.lost_poll
            if how == "success":
                return self._succeeded(task, what, was_cleared=max_tries > RETRIES)
            if how == "deferred":
                self._deferred = attempt
                resume = self._event_of(attempt.order, what)
                continue
            if how == "reschedule":
                pokes += 1
                if pokes < 3:
                    continue
                return self._hand_over(task)
            pokes = 0
            if how == "failed":
                self._check_failure(task, what, attempt)
                self._end_delay()
                if self._is_done(task):  # a person checks, and finds it
                    return True
                if task.instead is not None and Counter(self._effects()) - before:  # a person finds half of it
                    return self._do_the_rest(task.instead, what)
                max_tries += number  # a person finds nothing, and clears the task
            number += 1
            if number > max_tries + 1 or len(self.outcome.story) > 30:
                return self._give_up(f"{task.name} does not come to an end: {what}")

    def _event_of(self, order: child.Order, deferral: tuple[str, str, Any]) -> tuple[str, Any] | None:
        """Let people do what is waited for, and run the trigger, each time it is killed again; return its event."""
        method, *trigger = deferral
        if not self._waited:
            self._waited = True
            self._current.people(self._harness.emulator)
            if (click := self._current.click) is not None:
                request = json.loads(self._store[child.REQUEST])
                self._store[child.REQUEST] = json.dumps({**request, "response": click})
                if not self._current.is_click_late:
                    return method, {**click, "timedout": False}
        while True:
            attempt = self._try(dataclasses.replace(order, trigger=tuple(trigger), resume=None))
            if attempt.ended[0] == "event":
                return method, attempt.ended[1]
            if attempt.ended[0] != "died":
                self.outcome.wrong.append(f"the trigger of {self._current.name} ended with {attempt.ended}")
                return None

    _waited = False

    def _try(self, order: child.Order) -> Try:
        """Run a try to its end, and what runs beside it; return the one that Airflow goes by, the later one."""
        self._second = None
        first = self._active = self._start_try(order)
        self._serve(first)
        second = self._second
        if second is not None:
            second.over.wait(PATIENCE)
        for attempt in filter(None, (first, second)):
            how, what = attempt.ended
            of = "trigger of " if order.trigger else ""
            reason = what if how in ("retry", "failed") else ""
            self.outcome.story.append(f"{of}{self._current.name}, try {attempt.order.try_number}: {how} {reason}")
            self._check_truth(attempt)
        status, left = self._rejected
        self._rejected = (status, max(left - 1, 0))
        return second or first

    def _start_try(self, order: child.Order) -> Try:
        task = self._current
        in_doubt, was_done = task.in_doubt(self._stored(order.max_tries)), self._is_done(task)
        attempt = Try(order, len(self._rows()), in_doubt=in_doubt, was_done=was_done)
        attempt.rejects_reads = self._rejected[1] > 0
        if order.resume is not None:  # so it speaks for its part before the wait, too
            attempt.effects, attempt.sent, attempt.alone = (
                self._deferred.effects,
                self._deferred.sent,
                self._deferred.alone,
            )
        self._active = attempt
        return attempt

    def _serve(self, attempt: Try) -> None:
        """Respond to a try until it ends."""
        attempt.server = threading.current_thread()
        with attempt.line, contextlib.suppress(EOFError, ConnectionError):
            attempt.line.send("start")
            for message in self._messages(attempt):
                if message[0] == "end":
                    self._record_end(attempt, message[1:])
                else:
                    self._respond(attempt.line, message)
        attempt.process.join()
        attempt.over.set()
        if attempt.ended[0] == "died" and not attempt.killed:
            self.outcome.wrong.append(f"{self._current.name} died by itself")
        if self._second is not None and self._active is attempt:
            self._hand_turn(self._first if attempt is self._second else self._second)

    def _record_end(self, attempt: Try, ended: tuple[str, Any]) -> None:
        part = {"deferred": "deferral", "event": "event"}.get(ended[0], "end")
        strike = self.passes(f"{part} of {self._current.name}")
        if strike is not None and (strike.how == RESUME or strike.how in SUSPENDED):
            self.suspend(strike)
        elif strike is not None:
            self.kill()
            return
        attempt.ended = ended
        attempt.line.send("recorded")

    def _messages(self, attempt: Try) -> Iterator[tuple[Any, ...]]:
        while True:
            while not attempt.line.poll(PATIENCE):
                if self._active is attempt:
                    self.outcome.wrong.append("a try was silent for too long")
                    self.kill()
            yield attempt.line.recv()

    def _respond(self, line: Any, message: tuple[Any, ...]) -> None:
        if message[0] == "get":
            line.send(self._store.get(message[1]))
            return
        key, text = message[1:]
        strike = self.passes(f"write {UNTIL_CLEARED.sub('', key)}")
        if strike is not None and (strike.how == RESUME or strike.how in SUSPENDED):
            self.suspend(strike)
            strike = None
        if strike is None or strike.how != BEFORE:
            self._store[key] = text
        if strike is None or strike.how in SURVIVED:
            line.send(None)
        else:
            self.kill()

    # --- the outcome ---

    def _stored(self, max_tries: int) -> dict[str, Any]:
        """Return what the store contains since the task was last cleared, and what outlives that, by plain keys."""
        stored = json.loads(self._store.get(CLEARS_KEY, "null")) or {"clears": 0, "max_tries": max_tries}
        ending = f".{stored['clears']}" if stored["max_tries"] == max_tries else "\0"
        keys = [key for key in self._store if key.endswith(ending) or not UNTIL_CLEARED.search(key)]
        return {key.removesuffix(ending): json.loads(self._store[key]) for key in keys}

    def _is_done(self, task: Task) -> bool:
        """Return whether the products show all that the task effects where nothing disturbs it."""
        if self._model is None or task.name not in self._model.slices:
            return False
        return not self._model.slices[task.name] - Counter(self._effects())

    def _check_truth(self, attempt: Try) -> None:
        """Compare what a try reported with what the emulator has recorded."""
        task, (how, what) = self._current, attempt.ended
        rows = self._rows()
        state = lambda: self._harness.emulator.control("GET", "state")  # noqa: E731
        seen = Seen(rows[self._effects_before :], rows[attempt.effects :], attempt.sent, attempt.alone, state)
        untrue: list[str] = []
        if how == "success":
            if self._model is not None and task.name in self._model.slices and not self._is_done(task):
                untrue.append("success, but not all of its effects are recorded")
            if what is not None:
                untrue += task.claims(what, seen)
        elif how in ("failed", "retry"):
            untrue += untrue_error(what, seen)
            if attempt.rejects_reads and attempt.is_uncertain and not what.startswith("OutcomeUnknown: "):
                untrue.append(f"its outcome was unknown, and it says otherwise: {what}")
        self.outcome.untrue += [
            f"{task.name}, try {attempt.order.try_number}: {contradiction}" for contradiction in untrue
        ]

    def _succeeded(self, task: Task, result: Any, *, was_cleared: bool) -> bool:
        self.results[task.name] = result
        self._record_report(task)
        if self._reported and not result[0]["possibly_lost"]:
            self.outcome.wrong.append(f"{task.name} reports a loss in its log, and not in its result")
        if self._model is not None and task.name in self._model.results and not was_cleared:
            found, expected = task.reported(result), task.reported(self._model.results[task.name])
            if found != expected:
                self.outcome.wrong.append(f"{task.name} returned {found}, and {expected} where nothing disturbed it")
        self._end_delay()
        return True

    @property
    def _reported(self) -> bool:
        return "Suspected loss" in self._harness.log.read_text()

    def _record_report(self, task: Task) -> None:
        if not self._reported:
            return
        if self.outcome.ended == DONE:
            self.outcome.ended = REPORTED
        if not self._may_report:
            self.outcome.wrong.append(f"{task.name} reports a loss where none can have been")

    def _check_failure(self, task: Task, what: str, attempt: Try) -> None:
        self.outcome.ended = FAILED
        shows = task.is_readable and (attempt.was_done or attempt.lost == RESPONSE_LOST)
        if not attempt.is_uncertain or ((task.resolves or shows) and not attempt.rejects_reads):
            self.outcome.wrong.append(f"{task.name} failed, but it could have known: {what}")
        if not what.startswith("OutcomeUnknown: ") or not re.search(task.names, what):
            self.outcome.wrong.append(f"{task.name} failed and does not say what to check: {what}")
        if what.count("It is not sent again") != 1:
            self.outcome.wrong.append(f"{task.name} does not say once that it is not sent again: {what}")

    def _hand_over(self, task: Task) -> bool:
        """Nothing comes any more: a person compares with what runs there, and passes on what is not assigned."""
        self._record_report(task)
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
        """Let what is on its way arrive now, at the latest, and Procore do what it has taken on."""
        if self.late_request is not None:
            self.late_request.left = 0
            self._harness.emulator.control("GET", "clock")
        if "operation_delay" in self.flow.flags:
            self._harness.emulator.control("POST", "clock", advance=3600)


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
        for number, point in enumerate(points(flow, model.boundaries, seed, quick=quick))
        if number % every == 0 and only in (None, number)
    ]
    return Row(flow, seed, quick, {number: harness.disturbed(flow, point, model) for number, point in numbered})
