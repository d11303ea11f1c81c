"""Operator that branches on what became of a Procore workflow, v2 or Legacy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseBranchOperator

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.parameters import listed
from airflow_provider_workflows.version_compat import SKIPS_IN_MAPPED_GROUPS

if TYPE_CHECKING:
    from airflow.sdk import Context


class ProcoreBranchOnOutcomeOperator(BaseBranchOperator):
    """
    Goes on with the tasks that belong to an outcome, and skips the others that follow it directly.

    Give it what ``ProcoreInstanceSensor`` or ``ProcoreLegacyInstanceSensor`` returned. An outcome has several names,
    looked for in this order, in any case; the first that is among ``branches`` counts:

    1. v2: the option of the response, such as ``Approve``: at the visit of the step that was waited for; without one,
       the last response, once the instance is complete. Before that it is only a step's answer on the way.
    2. v2: the ``item_status``, such as ``Approved``.
    3. The ``state``; in Legacy then its ``status``.

    An instance that was terminated has one name only, ``terminated``: what somebody answered before does not count.

    Inside a task group the names of tasks and groups are those of the group, then of the groups around it, then of the
    DAG, so that a group need not name itself. In a mapped task group it works before Airflow 3.2 only, and refuses to
    run on newer ones, which would run the tasks that were not chosen; nor can it be mapped itself. Choose the outcomes
    by :func:`outcome_names` there, and map the tasks over what was chosen.

    Returns the ids of the tasks and groups that it goes on with; an empty list when it skips all.

    :param outcome: The sensor's result (templated).
    :param branches: ``{name of an outcome: id of a task or task group, or a list of them}``.
    :param default: Id or ids for an outcome that is not among them; an empty list skips all. Default None: that is
        an error.
    :raises ConfigurationError: no outcome; an outcome that is not among the branches, without ``default``; a task
        that does not exist; a mapped task group whose tasks Airflow would not skip.
    """

    template_fields: Sequence[str] = ("outcome",)
    ui_color = "#eee8f7"

    def __init__(
        self,
        *,
        outcome: Any,
        branches: Mapping[str, str | Sequence[str]],
        default: str | Sequence[str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.outcome = outcome
        self.branches = branches
        self.default = default

    def choose_branch(self, context: Context) -> list[str]:
        is_mapped = getattr(context.get("ti"), "map_index", -1) >= 0
        if is_mapped and not (SKIPS_IN_MAPPED_GROUPS and self.get_closest_mapped_task_group()):
            raise ConfigurationError(
                "This Airflow runs the tasks that a mapped branch did not choose (apache/airflow#67265). Choose the "
                "outcomes in a task, by outcome_names of this module, and map the tasks over what was chosen."
            )
        if not isinstance(self.outcome, Mapping) or "state" not in self.outcome:
            raise ConfigurationError(
                "outcome must be the result of ProcoreInstanceSensor or ProcoreLegacyInstanceSensor; got "
                f"{self.outcome!r}."
            )
        self._check_branches()
        names = outcome_names(self.outcome)
        chosen = self._chosen(names)
        if chosen is None:
            raise ConfigurationError(
                f"No branch for the outcome {' / '.join(map(repr, names)) or 'without a name'} of instance "
                f"{self.outcome.get('instance_id')}. Branches: {', '.join(map(repr, self.branches))}. Name it there, "
                "or give a default."
            )
        return [self._whole_id(task_id) for task_id in listed(chosen)]  # empty for none: Airflow 3.0 takes no None

    def _check_branches(self) -> None:
        """Refuse a task that does not exist before the day of its outcome."""
        if not isinstance(self.branches, Mapping) or None in self.branches.values():
            raise ConfigurationError(
                "branches must be {name of an outcome: id of a task or group, or a list of them}; an empty list skips "
                "all."
            )
        for tasks in (*self.branches.values(), [] if self.default is None else self.default):
            for task_id in listed(tasks):
                self._whole_id(task_id)

    def _chosen(self, names: Sequence[str]) -> str | Sequence[str] | None:
        branches = {str(name).strip().casefold(): tasks for name, tasks in self.branches.items()}
        for name in names:
            if name.strip().casefold() in branches:
                self.log.info("The outcome of instance %s is %r.", self.outcome.get("instance_id"), name)
                return branches[name.strip().casefold()]
        return self.default

    def _whole_id(self, given: str) -> str:
        """Return the id of a task or group with the prefix of the groups that this task is in."""
        groups = self.task_id.split(".")[:-1]
        candidates = [".".join([*groups[:depth], given]) for depth in range(len(groups), -1, -1)]
        known = {*self.dag.task_ids, *self.dag.task_group_dict}
        for candidate in candidates:
            if candidate in known:
                return candidate
        raise ConfigurationError(f"branches: there is no task or task group {given!r} in DAG {self.dag.dag_id!r}.")


def outcome_names(outcome: Mapping[str, Any]) -> list[str]:
    """Return what the outcome of a workflow is called, the most telling name first."""
    if outcome.get("terminated_at") or outcome["state"] == "terminated":
        return ["terminated"]
    response = (outcome.get("visit") or {}).get("response")
    if response is None and outcome["state"] == "complete":
        response = outcome.get("last_response")
    names = ((response or {}).get("option"), outcome.get("item_status"), outcome["state"], outcome.get("status"))
    return list(dict.fromkeys(str(name) for name in names if name))
