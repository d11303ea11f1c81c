"""The scope of waits for Procore Legacy Workflows instances, which one list of a company's instances serves."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.polling.list_poll import ListPollScope
from airflow_provider_workflows.rules import procore_legacy as rules

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook


class LegacyInstancesScope(ListPollScope):
    """
    Poll the instances of one company for all waits for them.

    :param conn_id: Id of the Airflow connection.
    :param company_id: Company, or None for the company of the connection.
    """

    page_size = 2000
    stores_row_mark = False

    def __init__(self, conn_id: str, company_id: str | None):
        super().__init__(conn_id)
        self._company_id = company_id

    @property
    def key(self) -> tuple[Hashable, ...]:
        return ("procore_legacy", self.conn_id, self._company_id)

    @property
    def hook_key(self) -> Hashable:
        return ("procore_legacy", self._company_id)

    def open_hook(self) -> ProcoreLegacyHook:
        from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

        return ProcoreLegacyHook(self.conn_id, company_id=self._company_id)

    def rows(self, hook: ProcoreLegacyHook) -> Iterator[dict[str, Any]]:
        return hook.list_instances()

    def keys_of(self, row: dict[str, Any]) -> tuple[Hashable, ...]:
        return (str(row["id"]),)

    def mark_of(self, row: dict[str, Any]) -> Any:
        self.record_step(row.get("current_state_set_at"))
        return rules.mark_of(rules.describe_instance(row))
