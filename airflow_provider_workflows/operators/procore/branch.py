"""Operator that branches on what became of a Procore workflow, v2 or Legacy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseBranchOperator

from airflow_provider_workflows.exceptions import ConfigurationError, OutcomeUnclear
from airflow_provider_workflows.rules.parameters import as_list
from airflow_provider_workflows.rules.procore import describe_decision
from airflow_provider_workflows.version_compat import SKIPS_IN_MAPPED_GROUPS

if TYPE_CHECKING:
    from airflow.sdk import Context


NO_SURE_STATUS = "the history does not show which of its steps gave the item its status"


class ProcoreBranchOnOutcomeOperator(BaseBranchOperator):
    """
    Goes on with the tasks that belong to an outcome, and skips the others that follow it directly.

    Give it what ``ProcoreInstanceSensor`` or ``ProcoreLegacyInstanceSensor`` returned. An outcome has several names,
    looked for in this order, in any case; the first that is among ``branches`` counts:

    1. v2: the option of the ``decision``, such as ``Approve``: at the visit of the step that was waited for; without
       one, at the last step, once the instance is complete. Before that it is only a decision on the way. A response
       that did not decide, and a commenter's, do not count.
    2. v2: the ``item_status``, such as ``Approved``.
    3. The ``state``; in Legacy then its ``status``.

    An instance that was terminated has one name only, ``terminated``: what somebody answered before does not count.
    Where nothing tells which response decided, or the decision contradicts the item's status, and one of these names is
    among ``branches``, the task fails instead of choosing one.

    Inside a task group the names of tasks and groups are those of the group, then of the groups around it, then of the
    DAG, so that a group need not name itself. In a mapped task group it works before Airflow 3.2 only, and rejects to
    run on newer ones, which would run the tasks that were not chosen; nor can it be mapped itself. Choose the outcomes
    by :func:`outcome_names` there, and map the tasks over what was chosen.

    Returns the ids of the tasks and groups that it goes on with; an empty list when it skips all.

    :param outcome: The sensor's result (templated).
    :param branches: ``{name of an outcome: id of a task or task group, or a list of them}``.
    :param default: Id or ids for an outcome that is not among them; an empty list skips all. Default None: that is
        an error.
    :raises ConfigurationError: no outcome; an outcome that is not among the branches, without ``default``; a task
        that does not exist; a mapped task group whose tasks Airflow would not skip.
    :raises OutcomeUnclear: the record does not tell what was decided, or contradicts itself; never retried.
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

    def execute(self, context: Context) -> Any:
        try:
            return super().execute(context)
        except OutcomeUnclear as unclear:  # of the same outcome a retry would say the same
            raise AirflowFailException(f"OutcomeUnclear: {unclear}") from unclear

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
        decision = _decision(self.outcome)
        problem, possible = _why_not_sure(self.outcome)
        names = _names(self.outcome)
        name = next((name for name in names if self._branch_of(name) is not None), None)
        if problem is not None and any(self._branch_of(one) is not None for one in possible):
            raise _unclear(self.outcome, problem)
        if _has_no_sure_status(self.outcome) and (name is None or name != _option(decision)):
            raise _unclear(self.outcome, NO_SURE_STATUS)
        chosen = self.default if name is None else self._branch_of(name)
        if chosen is None:
            raise ConfigurationError(
                f"No branch for the outcome {' / '.join(map(repr, names)) or 'without a name'} of instance "
                f"{self.outcome.get('instance_id')}. Branches: {', '.join(map(repr, self.branches))}. Name it there, "
                "or give a default."
            )
        task_ids = [self._whole_id(task_id) for task_id in as_list(chosen)]
        self.log.info(
            "The outcome of instance %s is %s%s%s: going on with %s.",
            self.outcome.get("instance_id"),
            " / ".join(map(repr, names)),
            "" if decision is None else f", {describe_decision(decision)}",
            ", by default" if name is None else f", of which {name!r} has a branch",
            ", ".join(task_ids) or "no task, so all that follow are skipped",
        )
        return task_ids  # empty for none: Airflow 3.0 takes no None

    def _check_branches(self) -> None:
        """Reject a task that does not exist before the day of its outcome."""
        if not isinstance(self.branches, Mapping) or None in self.branches.values():
            raise ConfigurationError(
                "branches must be {name of an outcome: id of a task or group, or a list of them}; an empty list skips "
                "all."
            )
        for tasks in (*self.branches.values(), [] if self.default is None else self.default):
            for task_id in as_list(tasks):
                self._whole_id(task_id)

    def _branch_of(self, name: Any) -> str | Sequence[str] | None:
        branches = {str(key).strip().casefold(): tasks for key, tasks in self.branches.items()}
        return None if name is None else branches.get(str(name).strip().casefold())

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
    """
    Return what the outcome of a workflow is called, the most telling name first.

    :param outcome: What ``ProcoreInstanceSensor`` or ``ProcoreLegacyInstanceSensor`` returned.
    :raises OutcomeUnclear: nothing tells what was decided, or the decision contradicts the item's status.
    """
    problem, _ = _why_not_sure(outcome)
    if problem is None and _has_no_sure_status(outcome) and _option(_decision(outcome)) is None:
        problem = NO_SURE_STATUS
    if problem is not None:
        raise _unclear(outcome, problem)
    return _names(outcome)


def _names(outcome: Mapping[str, Any]) -> list[str]:
    if _is_terminated(outcome):
        return ["terminated"]
    names = (_option(_decision(outcome)), outcome.get("item_status"), outcome["state"], outcome.get("status"))
    return list(dict.fromkeys(str(name) for name in names if name))


def _option(decision: Mapping[str, Any] | None) -> str | None:
    """Return the option that was decided, or its type where the option is not known."""
    return None if decision is None else decision["option"] or decision["type"]


def _decision(outcome: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the decision that an outcome is called by, or None: there is none, or none is shown."""
    if _is_terminated(outcome):
        return None
    at_occurrence: Mapping[str, Any] | None = (outcome.get("occurrence") or {}).get("decision")
    if at_occurrence is not None:
        return at_occurrence
    return outcome.get("decision") if outcome["state"] == "complete" else None


def _is_terminated(outcome: Mapping[str, Any]) -> bool:
    return bool(outcome.get("terminated_at")) or outcome["state"] == "terminated"


def _why_not_sure(outcome: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """Return why the decision cannot be relied on, and the names that the outcome may have then."""
    decision = _decision(outcome)
    if decision is None or decision["problem"] is None:
        return None, []
    status = outcome.get("item_status")
    return decision["problem"], [*decision["candidates"], *([] if status is None else [str(status)])]


def _has_no_sure_status(outcome: Mapping[str, Any]) -> bool:
    return not _is_terminated(outcome) and "item_status" in outcome.get("ambiguous", ())


def _unclear(outcome: Mapping[str, Any], problem: str) -> OutcomeUnclear:
    decision = _decision(outcome) or {}
    candidates = [one for one in (*decision.get("candidates", ()), decision.get("option")) if one]
    decided = f"decided may be {' or '.join(map(repr, dict.fromkeys(candidates)))}" if candidates else "none is shown"
    return OutcomeUnclear(
        f"The outcome of instance {outcome.get('instance_id')} is not clear: {problem}. Of the decision, {decided}; "
        f"the item status is {outcome.get('item_status')!r}. Look at the item in Procore; correct it there, or let a "
        "person choose."
    )
