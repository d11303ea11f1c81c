"""The operator that keeps the members of workflow presets in step with a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import (
    READ_FAULTS,
    REJECTIONS,
    ConfigurationError,
    OutcomeUnknown,
    PresetConflict,
    PresetsUnfinished,
    ServerError,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.operators.base import Pin, Progress, describe, poll_until_found
from airflow_provider_workflows.operators.procore.base import ProcoreWideOperator
from airflow_provider_workflows.rules import procore_presets as rules
from airflow_provider_workflows.rules.parameters import as_list, check_choice, check_required, str_id
from airflow_provider_workflows.rules.payload import documented_form, is_id
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context


RETRY_READS = "A retry reads the preset, and changes it where it is as before."
MODES = ("plan", "apply")
MEMBERS = ("merge", "replace")
ON_REJECTED = ("fail", "skip")
# What the tries of a task know of each other: the presets that were changed, and those that perhaps were, with their
# members before and after.
NOTHING_DONE_YET: Mapping[str, Any] = {"done": [], "open": {}}
MAX_READS = 3  # of a preset that changes from read to read
MAX_CONSECUTIVE_FAILURES = 10  # presets of one tool and project: then all may fail, and each more takes minutes


@dataclass(frozen=True)
class PresetPlace:
    """Where presets are: one tool in one project, or at the level ``company``."""

    tool_type: str
    tool_subtype: str | None
    level: str


@dataclass
class Target:
    """
    One preset and what is wished for its groups; or why there is none to change.

    :param reason: Why it cannot be changed, or None.
    :param failure: Why Procore could not show what is needed to change it, or None.
    """

    place: PresetPlace
    preset_id: str
    template: str | None
    desired_groups: list[rules.DesiredGroup] = field(default_factory=list)
    reason: str | None = None
    failure: WorkflowsError | None = None

    @property
    def is_known(self) -> bool:
        return self.reason is None and self.failure is None

    @property
    def rejections(self) -> list[str]:
        messages = [
            f"{desired_group.name}: {desired_group.reason}"
            for desired_group in self.desired_groups
            if desired_group.reason
        ]
        messages += [
            f"{desired_group.name}: {one['who']} {one['reason']}"
            for desired_group in self.desired_groups
            for one in desired_group.rejected
        ]
        return [*([self.reason] if self.reason else []), *messages]


class ProcorePresetAssigneesOperator(ProcoreWideOperator):
    """
    Brings the members of the role groups of workflow presets in step with a list of who should be in them.

    Presets say whom the instances that start from now on ask; running ones stay as they are. First everything
    is resolved that can be rejected; then each preset is read, changed if it must be, and read again. Only role
    groups are touched, and a group is left without members only when told. A change carries every group as read
    right before it. A preset that ``confirm_timeout`` seconds later does not hold what was written has been edited by
    somebody else: that fails with the difference and is not written over. A preset that Procore cannot show or change
    stops no other: the task does the rest and fails at its end, with a table. A retry does only what is missing.

    Returns ``{mode, changed, unchanged, rejected, presets: [{preset_id, project_id, template, valid, status, reason,
    groups: [{group, uuid, added, removed, unchanged, rejected: [{who, reason}], reason}]}]}``; a ``status`` is
    ``change`` (planned), ``applied``, ``unchanged`` or ``rejected``; ``rejected`` counts the presets of which anything
    is rejected, whatever becomes of the rest. The same is a table in the log, where a status can be ``failed`` or
    ``unknown`` (its answer was lost, and reading does not show the change), too.

    Reference: https://developers.procore.com/reference/rest/workflows-presets

    :param assignments: A list of ``{preset_id, groups}`` or ``{template, project_id, groups}``: ``template`` is a
        template's id or name, ``project_id`` one project or several, and ``groups`` maps a group's name or uuid to
        its members, logins or ids. ``tool_type`` and ``tool_subtype`` may be given in each (templated).
    :param tool_type: Tool of the assignments that name none (templated).
    :param tool_subtype: Its subtype; needed for correspondence (templated).
    :param project_id: Project of the assignments that name none; default: where the tool is (templated).
    :param mode: ``plan`` (default) only reads; ``apply`` changes (templated).
    :param members: ``merge`` (default) adds members; ``replace`` removes the others, too (templated).
    :param allow_empty: Whether a group may be left without members.
    :param approved_plan: What a run with ``mode="plan"`` returned: a preset that would change in other ways than
        that is rejected (templated).
    :param on_rejected: ``fail`` (default): reject everything if anything can be rejected beforehand, and fail at the
        end if Procore rejected something; ``skip``: do the rest.
    :param confirm_timeout: Seconds, or a timedelta, to read on until a preset shows a change; default 60.
    :raises ConfigurationError: the assignments have not this form, name a preset twice, or something is rejected.
    :raises PresetsUnfinished: some presets failed or their outcome is unknown, after all others were done; a retry does
        only those.
    :raises PresetConflict: a preset does not hold what was written, and nothing else has failed; never retried.
    """

    template_fields: Sequence[str] = (
        *ProcoreWideOperator.template_fields,
        "assignments",
        "tool_type",
        "tool_subtype",
        "mode",
        "members",
        "approved_plan",
    )

    def __init__(
        self,
        *,
        assignments: Sequence[Mapping[str, Any]],
        tool_type: str | None = None,
        tool_subtype: str | int | None = None,
        mode: str = "plan",
        members: str = "merge",
        allow_empty: bool = False,
        approved_plan: Mapping[str, Any] | None = None,
        on_rejected: str = "fail",
        confirm_timeout: timedelta | float = 60.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.assignments = assignments
        self.tool_type = tool_type
        self.tool_subtype = tool_subtype
        self.mode = mode
        self.members = members
        self.allow_empty = allow_empty
        self.approved_plan = approved_plan
        self.on_rejected = on_rejected
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any]:
        assignments = self._checked_assignments()
        targets = self._targets(assignments)
        rows: list[dict[str, Any]] = []
        self._failures: list[WorkflowsError] = []
        try:
            if self.mode == "apply" and self.on_rejected == "fail":
                self._check_rejections(targets)
            if self.mode == "apply":
                _ = self.hook.user_id  # for the log: after a change nothing may fail for it
            journal = Pin(task_state_store(context), "presets", None)
            progress = Progress("presets " + ("planned" if self.mode == "plan" else "worked on"), len(targets))
            failed: dict[PresetPlace, int] = {}  # presets in a row
            for target in progress.of(targets):
                is_down = target.is_known and failed.get(target.place, 0) >= MAX_CONSECUTIVE_FAILURES
                rows.append(_untried(target) if is_down else self._row(target, journal))
                if target.is_known:
                    is_edited = bool(self._failures) and isinstance(self._failures[-1], PresetConflict)
                    is_broken = rows[-1]["status"] in rules.UNFINISHED and not is_edited
                    failed[target.place] = failed.get(target.place, 0) + 1 if is_broken else 0
        finally:
            if rows:
                self.log.info("%s\n%s", "Plan:" if self.mode == "plan" else "Done:", rules.table_of(rows))
        self._check_outcome(rows)
        return {
            "mode": self.mode,
            "changed": sum(row["status"] in ("change", "applied") for row in rows),
            "unchanged": sum(row["status"] == "unchanged" for row in rows),
            "rejected": sum(rules.is_rejected(row) for row in rows),
            "presets": rows,
        }

    def _check_outcome(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Fail the task where not all was done that should be."""
        if unfinished := [row for row in rows if row["status"] in rules.UNFINISHED]:
            are_edited = all(isinstance(failure, PresetConflict) for failure in self._failures)
            error = PresetConflict if are_edited else PresetsUnfinished  # what a retry cannot help is not retried
            raise error(
                f"{len(unfinished)} of {len(rows)} preset(s) failed or have an unknown outcome, the first one: "
                f"{unfinished[0]['reason']}\n"
                f"{rules.table_of(unfinished)}"
            )
        bad = [row for row in rows if row["status"] == "rejected"]
        if self.mode == "apply" and self.on_rejected == "fail" and bad:
            reasons = "; ".join(f"preset {row['preset_id']}: {row['reason']}" for row in bad)
            raise ConfigurationError(f"assignments: {len(bad)} preset(s) were not changed. {reasons}")

    # --- what is wished for ---

    def _checked_assignments(self) -> list[dict[str, Any]]:
        check_choice("mode", self.mode, MODES)
        check_choice("members", self.members, MEMBERS)
        check_choice("on_rejected", self.on_rejected, ON_REJECTED)
        for name in ("tool_type", "tool_subtype", "project_id"):
            if getattr(self, name) is not None:
                check_required(**{name: getattr(self, name)})
        given = self.assignments
        if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence) or not given:
            raise ConfigurationError("assignments must be a list of assignments, not empty.")
        plan = self.approved_plan
        if plan is not None and (not isinstance(plan, Mapping) or not isinstance(plan.get("presets"), list)):
            raise ConfigurationError("approved_plan must be what this operator returned with mode='plan'.")
        return [rules.checked_assignment(one, self.tool_type) for one in given]

    def _targets(self, assignments: Sequence[Mapping[str, Any]]) -> list[Target]:
        targets = [target for assignment in assignments for target in self._targets_of(assignment)]
        ids = [(target.place, target.preset_id) for target in targets if target.is_known]
        if twice := {preset_id for place, preset_id in ids if ids.count((place, preset_id)) > 1}:
            raise ConfigurationError(
                f"assignments: preset {', '.join(sorted(twice))} is meant by several of them; give its groups in one."
            )
        return targets

    def _targets_of(self, assignment: Mapping[str, Any]) -> Iterator[Target]:
        tool_type, tool_subtype = assignment["tool_type"], assignment["tool_subtype"] or str_id(self.tool_subtype)
        given = self.project_id if assignment["project_id"] is None else assignment["project_id"]
        projects = dict.fromkeys(str_id(project_id) for project_id in as_list(given))
        places = (PresetPlace(tool_type, tool_subtype, self.hook.level_for(project, tool_type)) for project in projects)
        for place in dict.fromkeys(places):
            try:
                known = self._presets(place)
            except (*REJECTIONS, *READ_FAULTS) as fault:
                yield _unknown_target(place, assignment["preset_id"] or "-", assignment["template"], fault)
                continue
            presets = [preset for preset in known if _is_meant(preset, assignment)]
            if not presets:
                what = f"of template {assignment['template']!r}" if assignment["template"] else "with this id"
                names = {str((preset.get("template") or {}).get("name")) for preset in known}
                named = ", ".join(sorted(names)) or "none"
                reason = f"no preset {what} is there, or visible to us; templates with presets: {named}"
                yield Target(place, assignment["preset_id"] or "-", assignment["template"], reason=reason)
            for preset in presets:
                template = (preset.get("template") or {}).get("name")
                try:
                    with documented_form():
                        desired_groups = self._desired_groups(place, preset, assignment["groups"])
                except (*REJECTIONS, *READ_FAULTS) as fault:
                    yield _unknown_target(place, str(preset["id"]), template, fault)
                else:
                    yield Target(place, str(preset["id"]), template, desired_groups)

    def _desired_groups(
        self, place: PresetPlace, preset: Mapping[str, Any], desired: Mapping[str, Sequence[str]]
    ) -> list[rules.DesiredGroup]:
        groups = self._groups(str_id((preset.get("template") or {}).get("last_published_version_id")))
        return [
            rules.desired_group_for(
                name,
                people,
                groups=groups,
                possible=self._possible(place),
                replace=self.members == "replace",
                allow_empty=self.allow_empty,
            )
            for name, people in desired.items()
        ]

    def _check_rejections(self, targets: Sequence[Target]) -> None:
        messages = [f"preset {target.preset_id}: {rejection}" for target in targets for rejection in target.rejections]
        if messages:
            raise ConfigurationError(
                f"assignments: nothing was changed. Rejected: {'; '.join(messages)}. Correct it, or set "
                "on_rejected to 'skip' to do the rest."
            )

    # --- what all presets share is asked for once ---

    def _presets(self, place: PresetPlace) -> list[dict[str, Any]]:
        def read() -> list[dict[str, Any]]:
            rows = self.hook.list_presets(place.tool_type, tool_subtype=place.tool_subtype, project_id=place.level)
            # While pages are read, rows can move from one to the next.
            found = {str(row["id"]): row for row in rows if is_id(row.get("id"))}
            if not found:
                self.hook.check_tool(place.tool_type)
            return list(found.values())

        return self._once(("presets", place), read)

    def _groups(self, version_id: str | None) -> list[Any]:
        if version_id is None:
            return []

        def read() -> list[Any]:
            groups = self.hook.get_template_version(version_id).get("responsible_groups")
            return groups if isinstance(groups, list) else []

        return self._once(("groups", version_id), read)

    def _possible(self, place: PresetPlace) -> list[dict[str, Any]]:
        def read() -> list[dict[str, Any]]:
            where = {"tool_subtype": place.tool_subtype, "project_id": place.level}
            return list(self.hook.list_possible_assignees(place.tool_type, **where))

        return self._once(("people", place), read)

    def _once(self, key: Any, read: Callable[[], list[Any]]) -> list[Any]:
        """Return what was read under a key, or raise again why it cannot be read."""
        if key not in self._known:
            try:
                with documented_form():
                    self._known[key] = read()
            except (*REJECTIONS, *READ_FAULTS) as fault:
                self._known[key] = fault
        found = self._known[key]
        if isinstance(found, WorkflowsError):
            raise found
        return found

    @cached_property
    def _known(self) -> dict[Any, list[Any] | WorkflowsError]:
        return {}

    # --- one preset ---

    def _row(self, target: Target, journal: Pin) -> dict[str, Any]:
        row = _new_row(target)
        try:
            if target.failure is not None:
                raise target.failure
            if target.reason is None:
                with documented_form():
                    self._evaluate(target, self._read(target), row, journal)
        except REJECTIONS as rejected:
            if target.preset_id in (journal.value or NOTHING_DONE_YET)["open"]:
                words = f"An earlier try has perhaps changed the preset; {describe(rejected).rstrip('.')}"
                self._fail(row, OutcomeUnknown(words, advice=RETRY_READS))
            else:
                row["reason"] = str(rejected)
        except (*READ_FAULTS, OutcomeUnknown, PresetConflict) as failure:
            self._fail(row, failure)
        return row

    def _fail(self, row: dict[str, Any], failure: WorkflowsError) -> None:
        self.log.warning("Preset %s: %s", row["preset_id"], failure)
        self._failures.append(failure)
        row["status"] = "unknown" if isinstance(failure, OutcomeUnknown) else "failed"
        row["reason"] = str(failure)

    def _evaluate(self, target: Target, preset: dict[str, Any], row: dict[str, Any], journal: Pin) -> None:
        replace = self.members == "replace"
        logins = rules.logins_of(self._possible(target.place))
        intended = (journal.value or NOTHING_DONE_YET)["open"].get(target.preset_id)  # by an earlier try
        earlier = self._changed_earlier(target, preset, journal)
        for _ in range(MAX_READS):
            after = rules.members_after(preset, target.desired_groups, replace=replace)
            groups = rules.group_changes(preset, target.desired_groups, replace=replace, logins=logins)
            row.update(valid=preset.get("valid"), groups=groups)
            if not rules.differences(preset, after):
                all_rejected = all(
                    desired_group.reason or (desired_group.rejected and not desired_group.ids)
                    for desired_group in target.desired_groups
                )
                row["status"] = "rejected" if all_rejected else "applied" if earlier else "unchanged"
                row["reason"] = (
                    "; ".join(target.rejections) if all_rejected else "by an earlier try" if earlier else None
                )
                return
            if earlier:
                raise _differs(target, rules.differences(preset, after))
            if more := self._beyond_approval(target, groups):
                row["reason"] = f"not in the approved plan: {'; '.join(more)}"
                return
            if self.mode == "plan":
                row["status"] = "change"
                return
            self._record(target, journal, {"before": rules.members_of(preset), "after": dict(after)})
            # A change carries every group, so whoever was added since the first read must be in it.
            try:
                now = self._read(target)
            except WorkflowsError:
                self._record(target, journal, intended)  # nothing was sent
                raise
            if rules.is_unchanged(now, preset):
                self._change(target, preset, after, row, journal)
                return
            preset = now
        self._record(target, journal, intended)
        row["reason"] = f"somebody else is editing it: {MAX_READS} reads showed {MAX_READS} states of it"

    def _changed_earlier(self, target: Target, preset: Mapping[str, Any], journal: Pin) -> bool:
        """
        Tell whether an earlier try of the task has changed a preset.

        :raises PresetConflict: a try was cut off while it did, and the preset is neither as it was nor as it should be.
        """
        stored = journal.value or NOTHING_DONE_YET
        intent = stored["open"].get(target.preset_id)
        if intent is None:
            return target.preset_id in stored["done"]
        messages = self._differences(target, preset, intent["after"])
        if messages and self._differences(target, preset, intent["before"]):
            raise _differs(target, messages)
        if not messages:
            self._record(target, journal, is_done=True)
        return not messages

    def _differences(
        self, target: Target, preset: Mapping[str, Any], members: Mapping[str, Sequence[str]]
    ) -> list[str]:
        """Say in words where a preset lacks members, or has others in a group that may have none."""
        replaced = [str(desired_group.uuid) for desired_group in target.desired_groups if desired_group.reason is None]
        return rules.differences(preset, members, closed=replaced if self.members == "replace" else ())

    @staticmethod
    def _record(target: Target, journal: Pin, intent: dict[str, Any] | None = None, *, is_done: bool = False) -> None:
        """Store what is about to be done to a preset; or that it was done, or is not going to be."""
        stored = journal.value or NOTHING_DONE_YET
        still_open = {preset_id: other for preset_id, other in stored["open"].items() if preset_id != target.preset_id}
        now_open = {} if intent is None else {target.preset_id: intent}
        now_done = [target.preset_id] if is_done else []
        journal.persist({"done": [*stored["done"], *now_done], "open": {**still_open, **now_open}})

    def _change(
        self,
        target: Target,
        preset: dict[str, Any],
        after: Mapping[str, Sequence[str]],
        row: dict[str, Any],
        journal: Pin,
    ) -> None:
        body = rules.assignees_to_send(preset, after)
        lost: WorkflowsError | None = None
        try:
            self.hook.update_preset_assignees(target.preset_id, **body, project_id=target.place.level)
        except REJECTIONS:
            self._record(target, journal)
            raise
        except (OutcomeUnknown, UnexpectedResponse, ServerError) as fault:
            self.log.warning("%s Reading whether preset %s was changed.", describe(fault), target.preset_id)
            lost = fault
        self._verify(target, preset, after, lost)
        self._record(target, journal, is_done=True)
        row["status"] = "applied"
        changes = [f"{group['group']}: {_change_message(group)}" for group in row["groups"] if _change_message(group)]
        self.log.info(
            "Changed preset %s (template %s, project %s) as user %s: %s.",
            *(target.preset_id, target.template, target.place.level, self.hook.user_id, "; ".join(changes)),
        )

    def _beyond_approval(self, target: Target, groups: Sequence[Mapping[str, Any]]) -> list[str]:
        if self.approved_plan is None:
            return []
        rows = [row for row in self.approved_plan["presets"] if str(row.get("preset_id")) == target.preset_id]
        return rules.beyond(groups, rows[0] if rows else None)

    def _verify(
        self,
        target: Target,
        before: Mapping[str, Any],
        after: Mapping[str, Sequence[str]],
        lost: WorkflowsError | None,
    ) -> None:
        """
        Read until a preset holds what was written; that may show later.

        :param lost: What is known of a change without a response, else None.
        :raises PresetConflict: it shows something else.
        :raises OutcomeUnknown: it shows nothing of a change without a response, or cannot be read.
        """
        shown: list[dict[str, Any]] = []
        differing: list[str] = []

        def holds() -> bool | None:
            shown[:] = [self._read(target)]
            differing[:] = self._differences(target, shown[0], after) + rules.losses(shown[0], before)
            return None if differing else True

        if poll_until_found(holds, self.confirm_timeout):
            return
        what = "The change was taken" if lost is None else describe(lost).rstrip(".")
        if not shown:
            words = f"{what}; and preset {target.preset_id} cannot be read"
            raise OutcomeUnknown(words, advice=RETRY_READS) from lost
        if lost is not None and rules.is_unchanged(shown[0], before):
            if isinstance(lost, ServerError):
                raise lost  # it says that it has failed, and nothing shows otherwise
            words = f"{what}; and {self.confirm_timeout:.0f} s later preset {target.preset_id} shows no other members"
            raise OutcomeUnknown(words, advice=RETRY_READS) from lost
        raise _differs(target, differing)

    def _read(self, target: Target) -> dict[str, Any]:
        return self.hook.get_preset(target.preset_id, project_id=target.place.level)


def _new_row(target: Target, status: str = "rejected", reason: str | None = None) -> dict[str, Any]:
    return {
        "preset_id": target.preset_id,
        "project_id": target.place.level,
        "template": target.template,
        "valid": None,
        "status": status,
        "reason": reason or target.reason,
        "groups": [],
    }


def _untried(target: Target) -> dict[str, Any]:
    return _new_row(
        target, "failed", f"not tried: {MAX_CONSECUTIVE_FAILURES} presets of its project have failed in a row"
    )


def _unknown_target(place: PresetPlace, preset_id: str, template: str | None, fault: WorkflowsError) -> Target:
    """Return a target that cannot be changed, because Procore rejects or fails to show what is needed for it."""
    is_rejected = isinstance(fault, REJECTIONS)
    return Target(
        *(place, preset_id, template),
        reason=str(fault) if is_rejected else None,
        failure=None if is_rejected else fault,
    )


def _is_meant(preset: Mapping[str, Any], assignment: Mapping[str, Any]) -> bool:
    if assignment["preset_id"] is not None:
        return str(preset.get("id")) == str(assignment["preset_id"])
    template = preset.get("template") or {}
    desired = str(assignment["template"]).casefold()
    return desired in (str(template.get("id")), str(template.get("name")).casefold())


def _change_message(group: Mapping[str, Any]) -> str:
    return ", ".join(f"{kind} {', '.join(group[kind])}" for kind in ("added", "removed") if group[kind])


def _differs(target: Target, messages: Sequence[str]) -> PresetConflict:
    return PresetConflict(
        f"Preset {target.preset_id} does not hold what was written: {'; '.join(messages)}. Somebody else has edited it "
        "meanwhile, or Procore changed what it was sent. It is not written over; look at it, then clear the task."
    )
