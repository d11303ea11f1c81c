"""What a poll reads for the waits on Procore's two workflow APIs."""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import RateLimited, WorkflowsError
from airflow_provider_workflows.rules import procore_legacy as legacy_rules
from airflow_provider_workflows.rules.forms import documented_form
from airflow_provider_workflows.triggers.base import PASSING_FAULTS
from airflow_provider_workflows.triggers.procore import ItemHistories, NoBulkHistory, Unclear
from airflow_provider_workflows.triggers.shared_poll import FAULTS_IN_A_ROUND, SECOND_BEST, SweepScope, own_look

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.base import WorkflowsHook
    from airflow_provider_workflows.hooks.procore import ProcoreHook
    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
    from airflow_provider_workflows.triggers.procore import ProcoreInstanceWaitTrigger
    from airflow_provider_workflows.triggers.procore_legacy import ProcoreLegacyWaitTrigger
    from airflow_provider_workflows.triggers.shared_poll import Outcomes

log = logging.getLogger(__name__)
UNCLEAR = object()


class ItemsScope(SweepScope):
    """
    Waits for instances of one tool in one project or company (Workflows v2).

    One call reads the histories of many items. Where there is no such call, a sweep of the active instances shows
    which of them to look at: those that left the list, those whose ``updated_at`` moved, and, for nobody documents
    when it moves, the few that were not looked at for the longest time.
    """

    page_size = 100
    looks_anyway = 5

    def __init__(self, trigger: ProcoreInstanceWaitTrigger):
        super().__init__(trigger.procore_conn_id)
        self._trigger = trigger
        self._histories = ItemHistories(str(trigger.tool_type), str(trigger.project_id))
        self._no_bulk_until = float("-inf")

    @property
    def key(self) -> tuple[Hashable, ...]:
        wait = self._trigger
        return (*wait.connection, wait.project_id, wait.tool_type, wait.tool_subtype)

    def open_hook(self) -> WorkflowsHook:
        return self._trigger.open_hook()

    def read(self, hook: ProcoreHook, subscribers: Sequence[ProcoreInstanceWaitTrigger]) -> Iterator[Outcomes]:
        if time.monotonic() > self._no_bulk_until:
            try:
                yield from self._in_bulk(hook, subscribers)
                return
            except NoBulkHistory as missing:
                log.warning("%s So for an hour active ones are listed, and those that changed read singly.", missing)
                self._no_bulk_until = time.monotonic() + SECOND_BEST
                self._histories = ItemHistories(self._histories.tool_type, self._histories.level)
                yield []
        yield from super().read(hook, subscribers)

    def _in_bulk(self, hook: ProcoreHook, subscribers: Sequence[ProcoreInstanceWaitTrigger]) -> Iterator[Outcomes]:
        of_item: dict[str, list[ProcoreInstanceWaitTrigger]] = {}
        for wait in subscribers:
            wait.use_clock_of(hook)
            of_item.setdefault(str(wait.item_id), []).append(wait)

        def judge(item_id: str, shown: Any) -> list[tuple[Any, Any, Any]]:
            return [self._judged(wait, shown) for wait in of_item[item_id]]

        only_in_bulk = 0  # calls in a row that failed although the server answered
        for found in self._histories.read(hook, of_item.keys(), each=judge):
            if isinstance(found, RateLimited):
                yield found
                continue
            fault = next((shown for shown in found.values() if isinstance(shown, PASSING_FAULTS)), None)
            if fault is not None:
                waits = [wait for item_id in found for wait in of_item[item_id]]
                alone = waits if len(found) == 1 else waits[:1]
                outcome: Any = None
                yield []  # one request in each step
                for wait in alone:
                    outcome = yield from own_look(wait, hook)
                    yield [(wait, outcome)]
                yield [(wait, fault) for wait in waits[len(alone) :]]
                only_in_bulk = 0 if isinstance(outcome, PASSING_FAULTS) else only_in_bulk + 1
                if only_in_bulk == FAULTS_IN_A_ROUND - 1:
                    raise NoBulkHistory(f"A bulk history fails where single ones do not. {fault}")
                continue
            only_in_bulk = 0
            judged = [
                one
                for item_id, shown in found.items()
                for one in (judge(item_id, shown) if isinstance(shown, WorkflowsError) else shown)
            ]
            yield [(wait, outcome) for wait, outcome, _ in judged if outcome is not UNCLEAR]
            for wait, outcome, mark in judged:
                if outcome is not UNCLEAR:
                    continue
                if mark is not None and wait.mark == mark:  # nothing has changed since its own look
                    yield [(wait, wait.overdue())]
                    continue
                verdict = yield from own_look(wait, hook)
                if not isinstance(verdict, WorkflowsError):
                    wait.mark = mark
                yield [(wait, verdict)]

    def _judged(self, wait: ProcoreInstanceWaitTrigger, shown: Any) -> tuple[Any, Any, Any]:
        """Return the wait, what comes out for it, and a mark of what was shown where that does not tell."""
        if isinstance(shown, WorkflowsError):
            return wait, UNCLEAR, None
        try:
            with documented_form():
                verdict = wait.judge_histories(shown)
        except Unclear as unclear:
            return wait, UNCLEAR, None if unclear.is_missing else hash(repr(shown))
        except WorkflowsError as error:
            return wait, error, None
        if wait.holding is not None:
            self.note_step(wait.holding.since)
        return wait, verdict, None

    def rows(self, hook: ProcoreHook) -> Iterator[dict[str, Any]]:
        wait = self._trigger
        return hook.list_instances(
            str(wait.tool_type), tool_subtype=wait.tool_subtype, active=True, project_id=wait.project_id
        )

    def keys_of(self, row: dict[str, Any]) -> tuple[Hashable, ...]:
        return ("instance", str(row["id"])), ("item", str(row["item_id"]))

    def mark_of(self, row: dict[str, Any]) -> Any:
        return row["id"], row.get("updated_at")


class LegacyScope(SweepScope):
    """Waits for instances of one company (Legacy Workflows)."""

    page_size = 2000
    keeps_rows_mark = False

    def __init__(self, trigger: ProcoreLegacyWaitTrigger):
        super().__init__(trigger.procore_conn_id)
        self._trigger = trigger

    @property
    def key(self) -> tuple[Hashable, ...]:
        return ("procore_legacy", self._trigger.procore_conn_id, self._trigger.company_id)

    def open_hook(self) -> WorkflowsHook:
        from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

        return ProcoreLegacyHook(self._trigger.procore_conn_id, company_id=self._trigger.company_id)

    def rows(self, hook: ProcoreLegacyHook) -> Iterator[dict[str, Any]]:
        return hook.list_instances()

    def keys_of(self, row: dict[str, Any]) -> tuple[Hashable, ...]:
        return (str(row["id"]),)

    def mark_of(self, row: dict[str, Any]) -> Any:
        self.note_step(row.get("current_state_set_at"))
        return legacy_rules.mark_of(legacy_rules.describe_instance(row))
