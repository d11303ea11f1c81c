"""
The journal of the polls of one integration step of Workflowsoft, for the next process that polls the step.

If polls consume instances, an instance is lost with a response that is not stored. So every poller (a sensor, or the
watcher of an asset) stores a journal before each poll and right after it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

Instance = Mapping[str, "str | None"]  # {integration_instance_id, process_instance_id}
Stretch = Mapping[str, str]  # {since, until}, ISO-8601 times in UTC

MAX_STRETCHES = 20
MAX_INSTANCES = 500  # of one wait, or of consecutive polls of a watcher; one response may have more
MAX_STORE_ATTEMPTS = 7  # for what a poll has received, with delays that double from one second: about a minute in total
LOSS_ADVICE = (
    "If Workflowsoft has removed an integration instance, no task handles it. Compare with the processes that are "
    "running in Workflowsoft; to handle one of them, pass its id to the operators by hand."
)
NO_PLACE: Mapping[str, str | None] = MappingProxyType(dict.fromkeys(("diagram_id", "step_id", "step")))
NONE_RECEIVED: Mapping[str | None, str | None] = MappingProxyType({})


class PollJournal(NamedTuple):
    """
    Record the polls of one step; each method returns the journal to store next.

    :param place: The step of the last poll: ``{diagram_id, step_id, step}``.
    :param polling_since: ISO-8601 time at which a poll started whose end is not recorded; None between polls.
    :param poller: The process that started it, if one journal can have several pollers.
    :param received: The process instance of each received integration instance, in order.
    :param possibly_lost: The periods in which a response was lost, possibly with an instance.
    :param response_since_loss: Whether a complete response was received after the last loss.
    :param delivered: Whether the task has returned the received instances, and may have to return them again.
    :param failures: Number of consecutive polls that failed in the server.
    """

    place: Mapping[str, str | None] = NO_PLACE
    polling_since: str | None = None
    poller: str | None = None
    received: Mapping[str | None, str | None] = NONE_RECEIVED
    possibly_lost: Sequence[Stretch] = ()
    response_since_loss: bool = True
    delivered: bool = False
    failures: int = 0

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> PollJournal:
        if not stored:
            return cls()
        known = {"received": dict(stored["received"]), "possibly_lost": tuple(stored["possibly_lost"])}
        return cls(**{**stored, **known})

    def to_dict(self) -> dict[str, Any]:
        """
        Return JSON primitives that fit into one 64 KB value of Airflow's state store.

        They have the first 500 instances only, which fit with GUIDs.
        """
        received = [list(ids) for ids in self.received.items()][:MAX_INSTANCES]
        lists = {"received": received, "possibly_lost": list(self.possibly_lost)}
        return {**self._asdict(), "place": dict(self.place), **lists}

    @property
    def instances(self) -> list[dict[str, str | None]]:
        """The received instances, each once."""
        names = ("integration_instance_id", "process_instance_id")
        return [dict(zip(names, ids, strict=True)) for ids in self.received.items()]

    def poll_started(self, place: Mapping[str, str | None], now: datetime, poller: str | None = None) -> PollJournal:
        """Return the journal to store before a poll is sent."""
        return self._replace(place=dict(place), polling_since=_text(now), poller=poller)

    def poll_ended(self, instances: Sequence[Instance] | None = None) -> PollJournal:
        """
        Return the journal to store after a poll that lost nothing.

        :param instances: The received instances; None if the poll was rejected or not sent.
        """
        return self._replace(
            polling_since=None,
            received=self._with(instances or ()),
            response_since_loss=self.response_since_loss or instances is not None,
            failures=0,
        )

    def poll_lost(self, now: datetime, instances: Sequence[Instance] = (), failures: int = 0) -> PollJournal:
        """
        Return the journal to store after a poll whose response was lost, at least in part.

        Losses without a response in between become one period, so the journal stays small in an outage of hours.

        :param instances: The instances that were received nevertheless.
        :param failures: Number of consecutive polls that failed in the server.
        """
        stretches = list(self.possibly_lost)
        since = self.polling_since or _text(now)
        if stretches and (not self.response_since_loss or len(stretches) >= MAX_STRETCHES):
            since = stretches.pop()["since"]
        return self._replace(
            polling_since=None,
            received=self._with(instances),
            possibly_lost=(*stretches, {"since": since, "until": _text(now)}),
            response_since_loss=bool(instances),
            failures=failures,
        )

    def forget(self, instance_ids: Collection[str | None], stretches: Sequence[Stretch]) -> PollJournal:
        """Return the journal without instances and losses that were finally delivered."""
        received = {instance: process for instance, process in self.received.items() if instance not in instance_ids}
        lost = tuple(stretch for stretch in self.possibly_lost if stretch not in stretches)
        return self._replace(received=received, possibly_lost=lost, delivered=False)

    def _with(self, instances: Sequence[Instance]) -> dict[str | None, str | None]:
        return {**self.received, **{row["integration_instance_id"]: row["process_instance_id"] for row in instances}}


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def name_instances(instances: Iterable[Mapping[str, str | None]]) -> str:
    """Return the ids of instances, for the log."""
    ids = (f"{row['integration_instance_id']} (process {row['process_instance_id']})" for row in instances)
    return f"integration instance {', '.join(ids)}"
