"""
Assign the instances of an integration step of Workflowsoft to waits, if polls do not consume instances.

Such a poll lists an instance until it is completed, which can be days after a task took it. So the instance is leased
to that task: no other wait gets it as long as Workflowsoft lists it as open, or has not listed it in a few polls only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias

from airflow_provider_workflows.rules.poll_journal import Instance

MAX_LEASES_PER_STEP = 5000  # of instances that polls no longer list, while no poll reads the whole list

# Consecutive polls of the whole list without an instance, after which its lease ends. One such poll can be the response
# of a gateway, or of a server that has just started; the number is that of rejected polls that fail a wait.
MAX_ABSENT_POLLS = 3

_Leases: TypeAlias = "dict[str | None, _Lease]"  # of each leased instance, the least recently listed first


class _Lease(NamedTuple):
    task: Hashable
    absent_polls: int = 0  # consecutive


class StepWait(NamedTuple):
    """
    Describe one wait on a step.

    :param task: Identity of the task, equal for all its tries.
    :param max_instances: Maximum number of instances that the wait takes.
    """

    task: Hashable
    max_instances: int


class Leases:
    """
    Assign each open instance of a step to the waits of one task only.

    Steps are identified by their ids, so a wait that names its step by titles shares the leases with a wait that has
    the id. All methods are fast and do no I/O; call them for one step from one thread at a time.
    """

    def __init__(self) -> None:
        self._steps: dict[str, _Leases] = {}

    def rows_needed(self, step_id: str, waits: Collection[StepWait]) -> int:
        """Return the number of different rows that a poll must read to serve all waits; more rows are not needed."""
        leased = Counter(lease.task for lease in self._steps.get(step_id, {}).values())
        needed: Counter[Hashable] = Counter()
        for wait in waits:
            needed[wait.task] = max(needed[wait.task], wait.max_instances)
        return leased.total() + (needed - leased).total()

    def assign(
        self, step_id: str, responses: Sequence[Sequence[Instance]], waits: Sequence[StepWait]
    ) -> list[list[Instance]]:
        """
        Return the rows of each wait: first those already leased to its task, then those not leased to any task.

        :param step_id: The step's id, even if the waits name it by titles.
        :param responses: The rows of each response of one poll, in order; a poll can send several requests.
        :param waits: All waits on the step, the longest waiting first.
        """
        rows = {row["integration_instance_id"]: row for response in responses for row in response}
        leased = self._still_open(step_id, rows, is_whole=_is_whole(responses))
        free = (instance_id for instance_id in rows if instance_id not in leased)
        own: dict[Hashable, list[str | None]] = defaultdict(list)
        for instance_id in rows:
            if instance_id in leased:
                own[leased[instance_id].task].append(instance_id)
        assigned = []
        for wait in waits:
            taken = list(islice(free, max(0, wait.max_instances - len(own[wait.task]))))
            own[wait.task] += taken
            leased |= dict.fromkeys(taken, _Lease(wait.task))
            assigned.append([rows[instance_id] for instance_id in own[wait.task][: wait.max_instances]])
        self._steps[step_id] = leased
        if not leased:
            del self._steps[step_id]
        return assigned

    def owners(self, step_id: str) -> dict[str | None, Hashable]:
        """Return the task to which each instance is leased."""
        return {instance_id: lease.task for instance_id, lease in self._steps.get(step_id, {}).items()}

    def release(self, step_id: str, task: Hashable, instances: Collection[Instance]) -> None:
        """Release instances that were assigned to a wait that ended before it received them."""
        leased = self._steps.get(step_id, {})
        for row in instances:
            lease = leased.get(row["integration_instance_id"])
            if lease is not None and lease.task == task:
                del leased[row["integration_instance_id"]]

    def _still_open(self, step_id: str, listed: Collection[str | None], *, is_whole: bool) -> _Leases:
        """Return the leases of instances that are still open, those of instances not listed now first."""
        leased = self._steps.get(step_id, {})
        absent = [
            (instance_id, _Lease(lease.task, lease.absent_polls + is_whole))
            for instance_id, lease in leased.items()
            if instance_id not in listed and lease.absent_polls + is_whole < MAX_ABSENT_POLLS
        ]
        seen = [(instance_id, _Lease(lease.task)) for instance_id, lease in leased.items() if instance_id in listed]
        return dict([*absent[-MAX_LEASES_PER_STEP:], *seen])


def _is_whole(responses: Sequence[Sequence[Instance]]) -> bool:
    """
    Return whether a poll has read all open instances, so that an instance it does not list is no longer open.

    It has if there are no instances, or if the server lists several in one response and a further response contained no
    new one. A server that returns a single instance at a time hides the others.
    """
    if not any(responses):
        return bool(responses)
    *before, last = ([row["integration_instance_id"] for row in response] for response in responses)
    is_list = len(last) > 1 or any(len(ids) > 1 for ids in before)
    return is_list and bool(last) and set(last) <= {instance_id for ids in before for instance_id in ids}
