"""The operator that branches on the outcome of a Procore workflow, v2 or Legacy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseBranchOperator

from airflow_provider_workflows.exceptions import ConfigurationError, OutcomeUnclear
from airflow_provider_workflows.rules.parameters import as_list
from airflow_provider_workflows.rules.procore import describe_decision
from airflow_provider_workflows.rules.procore_decisions import ENDED
from airflow_provider_workflows.version_compat import SKIPS_IN_MAPPED_GROUPS

if TYPE_CHECKING:
    from airflow.sdk import Context


NO_SURE_STATUS = "the history does not show which of its steps gave the item its status"


class ProcoreBranchOnOutcomeOperator(BaseBranchOperator):
    """
    Run the downstream tasks of one outcome, and skip the other tasks that follow directly.

    Give it the result of ``ProcoreInstanceSensor``, ``ProcoreLegacyInstanceSensor`` or ``ProcoreItemSensor``. An
    outcome has several names, compared in this order, in any case; the first name among ``branches`` selects the tasks:

    1. v2: the option of the ``decision``, such as ``Approve``: the decision at the step occurrence that the sensor
       waited for; without one, the decision at the last step, once the instance is complete. Earlier decisions,
       responses that did not decide, and commenters' responses do not count.
    2. v2: the ``item_status``, such as ``Approved``.
    3. The ``state``; in Legacy then its ``status``.

    A terminated instance has only the name ``terminated``, and one of unknown end only ``ended``; earlier responses do
    not count. The result of a task that
    was a dry run has only the name ``dry_run``. If the record does not show which response decided, or the decision
    contradicts the item's status, and one of these names is among ``branches``, the task fails instead of choosing one.

    Inside a task group, the operator resolves a task or group id in the group first, then in the groups around it, then
    in the DAG, so ids need no prefix. In a mapped task group it works only before Airflow 3.2; newer versions would run
    the tasks that were not chosen, so it fails there. It cannot be mapped itself. In both cases, choose the outcomes
    with :func:`outcome_names` and map the tasks over the result.

    Returns the ids of the tasks and groups to run; an empty list when it skips all.

    :param outcome: The sensor's result (templated).
    :param branches: ``{name of an outcome: id of a task or task group, or a list of them}``.
    :param default: Id or ids for an outcome that is not among ``branches``; an empty list skips all. With None, the
        default, such an outcome is an error.
    :raises ConfigurationError: no outcome; an outcome that is not among the branches, without ``default``; a task
        that does not exist; a mapped task group whose tasks Airflow would not skip.
    :raises OutcomeUnclear: the record does not show the decision, or contradicts itself; never retried.
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
        except OutcomeUnclear as unclear:  # a retry would evaluate the same outcome
            raise AirflowFailException(f"OutcomeUnclear: {unclear}") from unclear

    def choose_branch(self, context: Context) -> list[str]:
        is_mapped = getattr(context.get("ti"), "map_index", -1) >= 0
        if is_mapped and not (SKIPS_IN_MAPPED_GROUPS and self.get_closest_mapped_task_group()):
            raise ConfigurationError(
                "This version of Airflow runs the tasks that a mapped branch did not choose (apache/airflow#67265). "
                "Choose the outcomes in a task, with outcome_names of this module, and map the tasks over its result."
            )
        _check(self.outcome)
        self._check_branches()
        decision = _decision(self.outcome)
        problem, possible = _why_not_sure(self.outcome)
        names = _names(self.outcome)
        name = next((name for name in names if self._branch_of(name) is not None), None)
        if problem is not None and any(self._branch_of(candidate) is not None for candidate in possible):
            raise _unclear(self.outcome, problem)
        if _has_no_sure_status(self.outcome) and (name is None or name != _option(decision)):
            raise _unclear(self.outcome, NO_SURE_STATUS)
        chosen = self.default if name is None else self._branch_of(name)
        if chosen is None:
            raise ConfigurationError(
                f"No branch matches the outcome {' / '.join(map(repr, names)) or 'without a name'} of instance "
                f"{self.outcome.get('instance_id')}. Branches: {', '.join(map(repr, self.branches))}. Name it there, "
                "or give a default."
            )
        task_ids = [self._whole_id(task_id) for task_id in as_list(chosen)]
        self.log.info(
            "The outcome of instance %s is %s%s%s: continuing with %s.",
            self.outcome.get("instance_id"),
            " / ".join(map(repr, names)),
            "" if decision is None else f", {describe_decision(decision)}",
            ", by default" if name is None else f", of which {name!r} has a branch",
            ", ".join(task_ids) or "no task, so all that follow are skipped",
        )
        return task_ids  # empty instead of None, which Airflow 3.0 rejects

    def _check_branches(self) -> None:
        """Require every task to exist, not only those of this outcome."""
        if not isinstance(self.branches, Mapping) or None in self.branches.values():
            raise ConfigurationError(
                "branches must be {name of an outcome: id of a task or group, or a list of them}; an empty list skips "
                "all."
            )
        names = Counter(_folded(name) for name in self.branches)
        if twice := [name for name in self.branches if names[_folded(name)] > 1]:
            raise ConfigurationError(
                f"branches: {', '.join(map(repr, twice))} are the same outcome, because case and blanks at the ends "
                "are ignored. Name it once."
            )
        for tasks in (*self.branches.values(), [] if self.default is None else self.default):
            for task_id in as_list(tasks):
                self._whole_id(task_id)

    def _branch_of(self, name: Any) -> str | Sequence[str] | None:
        branches = {_folded(key): tasks for key, tasks in self.branches.items()}
        return None if name is None else branches.get(_folded(name))

    def _whole_id(self, name: str) -> str:
        """Return the full id of a task or group, with the prefixes of its groups."""
        groups = self.task_id.split(".")[:-1]
        candidates = [".".join([*groups[:depth], name]) for depth in range(len(groups), -1, -1)]
        known = {*self.dag.task_ids, *self.dag.task_group_dict}
        for candidate in candidates:
            if candidate in known:
                return candidate
        raise ConfigurationError(f"branches: there is no task or task group {name!r} in DAG {self.dag.dag_id!r}.")


def outcome_names(outcome: Mapping[str, Any]) -> list[str]:
    """
    Return the names of the outcome of a workflow, the most specific one first.

    :param outcome: The result of ``ProcoreInstanceSensor``, ``ProcoreLegacyInstanceSensor`` or ``ProcoreItemSensor``.
    :raises ConfigurationError: it is no such result.
    :raises OutcomeUnclear: the record does not show the decision, or the decision contradicts the item's status.
    """
    _check(outcome)
    problem, _ = _why_not_sure(outcome)
    if problem is None and _has_no_sure_status(outcome) and _option(_decision(outcome)) is None:
        problem = NO_SURE_STATUS
    if problem is not None:
        raise _unclear(outcome, problem)
    return _names(outcome)


def _check(outcome: Any) -> None:
    """Require an outcome to have the form of a sensor's result."""
    if isinstance(outcome, Mapping) and (outcome.get("dry_run") or isinstance(outcome.get("state"), str)):
        occurrence = outcome.get("occurrence") or {}
        is_complete = isinstance(occurrence, Mapping) and isinstance(outcome.get("ambiguous", []), (list, tuple))
        if is_complete and _may_be_decision(outcome.get("decision")) and _may_be_decision(occurrence.get("decision")):
            return
    raise ConfigurationError(
        "outcome must be the result of ProcoreInstanceSensor, ProcoreLegacyInstanceSensor or ProcoreItemSensor; "
        f"got {outcome!r}."
    )


def _may_be_decision(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and {"option", "type", "problem", "candidates"} <= set(value))


def _names(outcome: Mapping[str, Any]) -> list[str]:
    if outcome.get("dry_run"):
        return ["dry_run"]
    if _is_terminated(outcome):
        return ["terminated"]
    # An instance of which nothing shows whether it was terminated or completed has no status that was decided.
    status = None if "item_status" in outcome and outcome["state"] == ENDED else outcome.get("item_status")
    names = (_option(_decision(outcome)), status, outcome["state"], outcome.get("status"))
    return list(dict.fromkeys(str(name) for name in names if name))


def _option(decision: Mapping[str, Any] | None) -> str | None:
    """Return the option of a decision, or its type if the option is unknown."""
    return None if decision is None else decision["option"] or decision["type"]


def _decision(outcome: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the decision that names an outcome, or None if the record shows none."""
    if _is_terminated(outcome):
        return None
    at_occurrence: Mapping[str, Any] | None = (outcome.get("occurrence") or {}).get("decision")
    if at_occurrence is not None:
        return at_occurrence
    return outcome.get("decision") if outcome.get("state") == "complete" else None


def _is_terminated(outcome: Mapping[str, Any]) -> bool:
    return bool(outcome.get("terminated_at")) or outcome.get("state") == "terminated"


def _why_not_sure(outcome: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """Return why the decision is not certain, and the possible names of the outcome; None if it is certain."""
    decision = _decision(outcome)
    if decision is None or decision["problem"] is None:
        return None, []
    status = outcome.get("item_status")
    return decision["problem"], [*decision["candidates"], *([] if status is None else [str(status)])]


def _has_no_sure_status(outcome: Mapping[str, Any]) -> bool:
    return not _is_terminated(outcome) and "item_status" in outcome.get("ambiguous", ())


def _unclear(outcome: Mapping[str, Any], problem: str) -> OutcomeUnclear:
    decision = _decision(outcome) or {}
    candidates = [name for name in (*decision.get("candidates", ()), decision.get("option")) if name]
    options = " or ".join(map(repr, dict.fromkeys(candidates))) or "unknown"
    return OutcomeUnclear(
        f"The outcome of instance {outcome.get('instance_id')} is not clear: {problem}. Possible decisions: "
        f"{options}; the item status is {outcome.get('item_status')!r}. Check and correct the item in Procore, or "
        "let a person choose."
    )


def _folded(name: Any) -> str:
    return str(name).strip().casefold()
