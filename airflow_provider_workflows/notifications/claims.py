"""Who may say something about a DAG run: one of all the callbacks that want to say it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
import uuid
from datetime import datetime, timezone
from typing import Any

from airflow.sdk import Variable

from airflow_provider_workflows.exceptions import WorkflowsError

# Seconds from writing a claim to believing it; long enough for everybody who had read the memory before to have
# written, who must take no more than half of it.
PAUSE = 2.0
MOST_TRIES = 10
MOST_KEPT = 200  # claims in a DAG's memory; older ones are forgotten
LONGEST_KEY = 250  # characters that Airflow's database has for one


class ClaimFailed(WorkflowsError):
    """Airflow's memory did not let itself be used, so nobody knows whether a claim holds."""


class Claim:
    """
    The right to say something once about a DAG run, kept in an Airflow Variable.

    Each DAG has one Variable, a JSON object of the newest claims. Workers, the DAG processor and the triggerer all
    reach it. Airflow cannot change a Variable conditionally, so a claim is written and then read again after a
    pause: of all who claim the same, the last to write finds itself there. A claim that somebody else's writing
    for another run has pushed out is written again.

    :param dag_id: The DAG.
    :param run_id: Its run.
    :param what: What is to be said once.
    """

    def __init__(self, dag_id: str, run_id: str, what: list[str | None]):
        self.key = f"workflowsoft_tasks_{dag_id}"[:LONGEST_KEY]
        self.mark = hashlib.sha256(json.dumps([dag_id, run_id, *what]).encode()).hexdigest()[:32]
        self.by = uuid.uuid4().hex

    def take(self) -> bool:
        """
        Claim, and return whether the claim is ours; False: somebody else has it, or has made use of it.

        :raises ClaimFailed: the Variable cannot be read or written, or not in time.
        """
        for _ in range(MOST_TRIES):
            if (own := self._look_or_write()) is not None:
                return own
            time.sleep(_delay())
        raise self._never_settled()

    async def atake(self) -> bool:
        """Like :meth:`take`, on an event loop."""
        for _ in range(MOST_TRIES):
            if (own := await _in_airflows_thread(self._look_or_write)) is not None:
                return bool(own)
            await asyncio.sleep(_delay())
        raise self._never_settled()

    def withdraw(self) -> None:
        """
        Give the claim up, for nothing was said.

        :raises ClaimFailed: the Variable cannot be read or written, or not in time; then the claim stays.
        """
        started = time.monotonic()
        held = self._read()
        if held.get(self.mark, {}).get("by") != self.by:
            return
        if (seconds := time.monotonic() - started) > PAUSE / 4:
            # Written back now, it could wipe out what others have claimed since.
            raise ClaimFailed(
                f"Airflow took {seconds:.1f} s to read Variable {self.key}, so the claim stays there: no callback of "
                "this run sends this message."
            )
        del held[self.mark]
        self._write(held)

    async def awithdraw(self) -> None:
        """Like :meth:`withdraw`, on an event loop."""
        await _in_airflows_thread(self.withdraw)

    def _look_or_write(self) -> bool | None:
        """Return whether the existing claim is ours; where there is none, write ours and return None: look again."""
        started = time.monotonic()
        held = self._read()
        if self.mark in held:
            return bool(held[self.mark]["by"] == self.by)
        if time.monotonic() - started > PAUSE / 4:
            return None  # what was read is too old to write it again
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        newest = dict(list(held.items())[-MOST_KEPT + 1 :])
        self._write({**newest, self.mark: {"by": self.by, "at": now}})
        if (seconds := time.monotonic() - started) > PAUSE / 2:
            raise ClaimFailed(f"Airflow took {seconds:.1f} s for Variable {self.key}, too long to be sure of it.")
        return None

    def _read(self) -> dict[str, Any]:
        try:
            _forget_cached(self.key)
            held = json.loads(Variable.get(self.key, default=None) or "{}")
            for entry in held.values():
                entry["by"]
        except Exception as error:
            raise ClaimFailed(f"Variable {self.key} cannot be read ({type(error).__name__}).") from error
        return dict(held)

    def _write(self, held: dict[str, Any]) -> None:
        description = "Which runs have a task in Workflowsoft; WorkflowsoftTaskNotifier keeps it."
        try:
            Variable.set(self.key, json.dumps(held), description=description)
        except Exception as error:
            raise ClaimFailed(f"Variable {self.key} cannot be written ({type(error).__name__}).") from error

    def _never_settled(self) -> ClaimFailed:
        return ClaimFailed(f"Variable {self.key} was too slow, or written by others, {MOST_TRIES} times.")


def _delay() -> float:
    return PAUSE * random.uniform(1.0, 1.5)  # not in step with the others


def _forget_cached(key: str) -> None:
    """Drop the Variable from the cache that ``[secrets] use_cache`` gives the DAG processor, as old as minutes."""
    try:
        from airflow.sdk import SecretCache
    except ImportError:  # before Airflow 3.1
        from airflow.secrets.cache import SecretCache  # type: ignore[import-not-found,no-redef]
    SecretCache.invalidate_variable(key)


async def _in_airflows_thread(call: Any) -> Any:
    # Before Airflow 3.3 a triggerer answers Variables to threads of this kind only.
    from asgiref.sync import sync_to_async

    return await sync_to_async(call, thread_sensitive=False)()
