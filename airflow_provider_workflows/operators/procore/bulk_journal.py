"""The journal of many responses: plan and outcomes in values that are small enough for Airflow's task state store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_workflows.exceptions import OutcomeUnknown
from airflow_provider_workflows.operators.base import PIN_TTL, Pin
from airflow_provider_workflows.operators.procore.base import ACCEPTED
from airflow_provider_workflows.rules.procore_bulk_responses import chunks
from airflow_provider_workflows.version_compat import StateStore

PLAN, OUTCOMES = "bulk_responses", "bulk_outcomes"  # keys; those of their parts have a number behind
OUTCOMES_PER_VALUE = 200


class ResponseJournal:
    """
    Store a plan once, and then the outcome of each row before and after it is sent.

    Without a store (before Airflow 3.3) it only lasts for this try.

    :param store: Airflow's task state store, or None.
    """

    def __init__(self, store: StateStore | None):
        self._store = store
        self._head = Pin(store, PLAN, None)
        self._outcomes: dict[int, dict[str, str]] = {}  # by part
        self._changed: set[int] = set()

    def plan(self) -> dict[str, Any] | None:
        """Return the plan that an earlier try has stored, or None."""
        head = self._head.value
        if head is None or self._store is None:
            return None
        parts = [self._store.get(f"{PLAN}_{part}") for part in range(head["parts"])]
        if None in parts:
            raise OutcomeUnknown("The plan of an earlier try of this task is not in the task state store any more")
        return {**head, "rows": [row for part in parts for row in part]}

    @property
    def is_outdated(self) -> bool:
        """Whether another try of the task has stored a plan since this one started."""
        return self._head.is_outdated

    def persist_plan(self, plan: Mapping[str, Any]) -> None:
        """Store the plan; to be called before anything of it is sent."""
        parts = list(chunks(plan["rows"]))
        head = {**{name: value for name, value in plan.items() if name != "rows"}, "parts": len(parts)}
        if self._head.value is not None:  # of an earlier try: its rows are valid with the new options, too
            self._head.persist(head)
        if self._store is not None:
            for number, part in enumerate(parts):
                self._store.set(f"{PLAN}_{number}", part, retention=PIN_TTL)
        # Last, because it shows that all parts are there.
        self._head.persist(head)

    def outcome(self, row: int) -> str | None:
        """Return the outcome of a row that was sent, or None."""
        return self._part(row // OUTCOMES_PER_VALUE).get(str(row))

    def record(self, row: int, outcome: str) -> None:
        """
        Store the outcome of a row.

        That a response was accepted is stored together with the next change: if the try dies before, the record shows
        it, and half of the writes are spared.
        """
        part = row // OUTCOMES_PER_VALUE
        self._part(part)[str(row)] = outcome
        self._changed.add(part)
        if outcome != ACCEPTED:
            self.flush()

    def flush(self) -> None:
        """Store what is not stored yet."""
        if self._store is not None:
            for part in sorted(self._changed):
                self._store.set(f"{OUTCOMES}_{part}", self._outcomes[part], retention=PIN_TTL)
        self._changed.clear()

    def _part(self, part: int) -> dict[str, str]:
        if part not in self._outcomes:
            stored = None if self._store is None else self._store.get(f"{OUTCOMES}_{part}")
            self._outcomes[part] = dict(stored or {})
        return self._outcomes[part]
