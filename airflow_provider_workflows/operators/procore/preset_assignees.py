"""The operator that makes the members of workflow presets match a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_workflows.exceptions import (
    READ_FAULTS,
    REJECTIONS,
    ConfigurationError,
    DryRun,
    OutcomeUnknown,
    PresetConflict,
    PresetsUnfinished,
    ServerError,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.operators.base import Pin, Progress, WritingOperator
from airflow_provider_workflows.operators.procore.base import ProcoreWideOperator
from airflow_provider_workflows.operators.unknown_outcome import describe, poll_until_found
from airflow_provider_workflows.rules import procore_presets as rules
from airflow_provider_workflows.rules.parameters import as_list, check_choice, check_required, str_id
from airflow_provider_workflows.rules.payload import documented_form, is_id
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context


RETRY_READS = "A retry reads the preset, and changes it if it is unchanged."
MODES = ("plan", "apply")
MEMBERS = ("merge", "replace")
ON_REJECTED = ("fail", "skip")
# The state that the tries of a task share: the presets that were changed, and those that may have been, with their
# members before and after.
NOTHING_DONE_YET: Mapping[str, Any] = {"done": [], "open": {}}
MAX_READS = 3  # of a preset that changes between reads
MAX_CONSECUTIVE_FAILURES = 10  # presets of one tool and project; each further failure could take minutes


class PresetPlace(NamedTuple):
    """Name the place of presets: one tool in one project, or at the level ``company``."""

    tool_type: str
    tool_subtype: str | None
    level: str


class Target(NamedTuple):
    """
    Hold one preset and its desired groups, or why the preset cannot be changed.

    :param reason: Why it cannot be changed, or None.
    :param failure: Why the data that a change needs could not be read, or None.
    """

    place: PresetPlace
    preset_id: str
    template: str | None
    desired_groups: Sequence[rules.DesiredGroup] = ()
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
            f"{desired_group.name}: {member['who']} {member['reason']}"
            for desired_group in self.desired_groups
            for member in desired_group.rejected
        ]
        return [*([self.reason] if self.reason else []), *messages]


class ProcorePresetAssigneesOperator(ProcoreWideOperator, WritingOperator):
    """
    Make the members of the role groups of workflow presets match a list.

    Presets define the assignees of instances that start later; running instances do not change. The operator first
    resolves all logins, groups and presets, and rejects what does not exist. Then it reads each preset, changes it if
    necessary, and reads it again. It changes only role groups, and leaves a group without members only with
    ``allow_empty``. A change sends every group as read right before it. If a preset does not show the change after
    ``confirm_timeout``, another user has edited it: the task fails with the difference and does not overwrite it. If
    one preset cannot be read or changed, the task continues with the others and fails at its end, with a table. A retry
    makes only the missing changes.

    Returns ``{mode, changed, unchanged, rejected, presets: [{preset_id, project_id, template, valid, status, reason,
    groups: [{group, uuid, added, removed, unchanged, rejected: [{who, reason}], reason}]}]}``; a ``status`` is
    ``change`` (planned), ``applied``, ``unchanged`` or ``rejected``; ``rejected`` counts the presets with at least one
    rejection. The log has the same as a table, where a status can also be ``failed`` or ``unknown`` (the response was
    lost, and the preset does not show the change).

    Reference: https://developers.procore.com/reference/rest/workflows-presets

    :param assignments: A list of ``{preset_id, groups}`` or ``{template, project_id, groups}``: ``template`` is a
        template's id or name, ``project_id`` one project or several, and ``groups`` maps a group's name or uuid to
        its members: logins, e-mail addresses or ids. Each may have a ``tool_type`` and ``tool_subtype`` (templated).
    :param tool_type: Tool of the assignments that name none (templated).
    :param tool_subtype: Its subtype; needed for correspondence (templated).
    :param project_id: Project of the assignments that name none; default: where the tool is (templated).
    :param mode: ``plan`` (default) only reads; ``apply`` changes (templated).
    :param members: ``merge`` (default) adds members; ``replace`` removes the others, too (templated).
    :param allow_empty: Whether a group may be left without members.
    :param approved_plan: The result of a run with ``mode="plan"``: the task rejects presets that would change in other
        ways (templated).
    :param on_rejected: ``fail`` (default): change nothing if the operator rejects anything before it writes, and fail
        at the end if Procore rejects a change; ``skip``: make the other changes.
    :param confirm_timeout: Seconds, or a timedelta, to poll until a preset shows a change; default 60.
    :param dry_run: With ``mode="apply"``, only read, and return what would be sent, as ``{dry_run: True, would_send:
        [{method, path, body}], ...}``; a preset that would be changed has the status ``change`` (templated).
    :raises ConfigurationError: the assignments are malformed or name a preset twice, or something is rejected.
    :raises PresetsUnfinished: after the other presets, some failed or have an unknown outcome; a retry changes only
        those.
    :raises PresetConflict: a preset does not show what was written, and nothing else has failed; never retried.
    """

    template_fields: Sequence[str] = (
        *ProcoreWideOperator.template_fields,
        "assignments",
        "tool_type",
        "tool_subtype",
        "mode",
        "members",
        "approved_plan",
        "dry_run",
    )
    template_fields_renderers = {"assignments": "json", "approved_plan": "json"}

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
                _ = self.hook.user_id  # for the log: reading it must not fail after a change
            journal = Pin(task_state_store(context), "presets", None)
            progress = Progress("presets " + ("planned" if self.mode == "plan" else "worked on"), len(targets))
            failed: dict[PresetPlace, int] = {}  # consecutive presets
            for target in progress.of(targets):
                is_down = target.is_known and failed.get(target.place, 0) >= MAX_CONSECUTIVE_FAILURES
                rows.append(_untried(target) if is_down else self._row(target, journal))
                if target.is_known:
                    is_edited = bool(self._failures) and isinstance(self._failures[-1], PresetConflict)
                    is_broken = rows[-1]["status"] in rules.UNFINISHED and not is_edited
                    failed[target.place] = failed.get(target.place, 0) + 1 if is_broken else 0
        finally:
            if rows:
                self.log.info(
                    "%s\n%s",
                    "Done:" if self.mode == "apply" and not self.has_unsent_calls else "Plan:",
                    rules.table_of(rows),
                )
        self._check_outcome(rows)
        return {
            "mode": self.mode,
            "changed": sum(row["status"] in ("change", "applied") for row in rows),
            "unchanged": sum(row["status"] == "unchanged" for row in rows),
            "rejected": sum(rules.is_rejected(row) for row in rows),
            "presets": rows,
        }

    def _check_outcome(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Fail the task unless all changes were made."""
        if unfinished := [row for row in rows if row["status"] in rules.UNFINISHED]:
            are_edited = all(isinstance(failure, PresetConflict) for failure in self._failures)
            error = PresetConflict if are_edited else PresetsUnfinished  # a retry cannot resolve a conflict
            raise error(
                f"{len(unfinished)} of {len(rows)} preset(s) failed or have an unknown outcome, the first one: "
                f"{unfinished[0]['reason']}\n"
                f"{rules.table_of(unfinished)}"
            )
        bad = [row for row in rows if row["status"] == "rejected"]
        if self.mode == "apply" and self.on_rejected == "fail" and bad:
            reasons = "; ".join(f"preset {row['preset_id']}: {row['reason']}" for row in bad)
            raise ConfigurationError(f"assignments: {len(bad)} preset(s) were not changed. {reasons}")

    # --- the desired members ---

    def _checked_assignments(self) -> list[dict[str, Any]]:
        check_choice("mode", self.mode, MODES)
        check_choice("members", self.members, MEMBERS)
        check_choice("on_rejected", self.on_rejected, ON_REJECTED)
        for name in ("tool_type", "tool_subtype", "project_id"):
            if getattr(self, name) is not None:
                check_required(**{name: getattr(self, name)})
        assignments = self.assignments
        if isinstance(assignments, (str, bytes, Mapping)) or not isinstance(assignments, Sequence) or not assignments:
            raise ConfigurationError("assignments must be a list with at least one assignment.")
        plan = self.approved_plan
        if plan is not None and (not isinstance(plan, Mapping) or not isinstance(plan.get("presets"), list)):
            raise ConfigurationError("approved_plan must be the result of this operator with mode='plan'.")
        return [rules.checked_assignment(assignment, self.tool_type) for assignment in assignments]

    def _targets(self, assignments: Sequence[Mapping[str, Any]]) -> list[Target]:
        targets = [target for assignment in assignments for target in self._targets_of(assignment)]
        ids = [(target.place, target.preset_id) for target in targets if target.is_known]
        if twice := {preset_id for place, preset_id in ids if ids.count((place, preset_id)) > 1}:
            raise ConfigurationError(
                f"assignments: preset {', '.join(sorted(twice))} is in several of them; give all its groups in one."
            )
        return targets

    def _targets_of(self, assignment: Mapping[str, Any]) -> Iterator[Target]:
        tool_type, tool_subtype = assignment["tool_type"], assignment["tool_subtype"] or str_id(self.tool_subtype)
        project_ids = self.project_id if assignment["project_id"] is None else assignment["project_id"]
        projects = dict.fromkeys(str_id(project_id) for project_id in as_list(project_ids))
        places = (PresetPlace(tool_type, tool_subtype, self.hook.level_for(project, tool_type)) for project in projects)
        for place in dict.fromkeys(places):
            try:
                known = self._presets(place)
            except (*REJECTIONS, *READ_FAULTS) as fault:
                yield _unknown_target(place, assignment["preset_id"] or "-", assignment["template"], fault)
                continue
            presets = [preset for preset in known if _is_assigned(preset, assignment)]
            if not presets:
                described = f"of template {assignment['template']!r}" if assignment["template"] else "with this id"
                names = {str((preset.get("template") or {}).get("name")) for preset in known}
                named = ", ".join(sorted(names)) or "none"
                reason = f"no preset {described} exists, or the user may not see it; templates with presets: {named}"
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
        found = [
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
        uuids = Counter(desired_group.uuid for desired_group in found)
        for desired_group in found:
            if desired_group.uuid is not None and uuids[desired_group.uuid] > 1:
                desired_group.reason = "the assignment names it twice, in different spellings"
        return found

    def _check_rejections(self, targets: Sequence[Target]) -> None:
        messages = [f"preset {target.preset_id}: {rejection}" for target in targets for rejection in target.rejections]
        if messages:
            raise ConfigurationError(
                f"assignments: nothing was changed. Rejected: {'; '.join(messages)}. Correct it, or set "
                "on_rejected to 'skip' to do the rest."
            )

    # --- data that presets share, read once ---

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
        """Return the data of a key, read once; raise the same error again if it could not be read."""
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
        except REJECTIONS as rejection:
            if target.preset_id in (journal.value or NOTHING_DONE_YET)["open"]:
                message = f"An earlier try may have changed the preset; {describe(rejection).rstrip('.')}"
                self._fail(row, OutcomeUnknown(message, advice=RETRY_READS))
            else:
                row["reason"] = str(rejection)
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
            # A change sends every group, so it must include members that were added since the first read.
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
        row["reason"] = f"another user is editing it: {MAX_READS} reads showed {MAX_READS} different states"

    def _changed_earlier(self, target: Target, preset: Mapping[str, Any], journal: Pin) -> bool:
        """
        Return whether an earlier try of the task has changed a preset.

        :raises PresetConflict: a try was interrupted during the change, and the preset has neither its members from
            before nor those from after it.
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
        """Describe which members a preset lacks, and which ones a replaced group should not have."""
        replaced = [str(desired_group.uuid) for desired_group in target.desired_groups if desired_group.reason is None]
        return rules.differences(preset, members, closed=replaced if self.members == "replace" else ())

    @staticmethod
    def _record(target: Target, journal: Pin, intent: dict[str, Any] | None = None, *, is_done: bool = False) -> None:
        """Store the intended change of a preset; without an intent, that the change was made or is not going to be."""
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
        except DryRun as not_sent:
            self.record_not_sent(not_sent)
            row["status"] = "change"
            return
        except REJECTIONS:
            self._record(target, journal)
            raise
        except (OutcomeUnknown, UnexpectedResponse, ServerError) as fault:
            self.log.warning("%s Polling whether preset %s was changed.", describe(fault), target.preset_id)
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
        Poll until a preset shows the members that were written; Procore may show them late.

        :param lost: The error of a change whose response was lost, else None.
        :raises PresetConflict: the preset shows other members.
        :raises OutcomeUnknown: the response was lost and the preset is unchanged, or the preset cannot be read.
        """
        shown: list[dict[str, Any]] = []
        differing: list[str] = []

        def is_shown() -> bool | None:
            shown[:] = [self._read(target)]
            differing[:] = self._differences(target, shown[0], after) + rules.losses(shown[0], before)
            return None if differing else True

        if poll_until_found(is_shown, self.confirm_timeout):
            return
        change = "Procore accepted the change" if lost is None else describe(lost).rstrip(".")
        if not shown:
            message = f"{change}; and preset {target.preset_id} cannot be read"
            raise OutcomeUnknown(message, advice=RETRY_READS) from lost
        if lost is not None and rules.is_unchanged(shown[0], before):
            if isinstance(lost, ServerError):
                raise lost  # the server reported a failure, and the preset is unchanged
            message = f"{change}; and {self.confirm_timeout:.0f} s later preset {target.preset_id} is unchanged"
            raise OutcomeUnknown(message, advice=RETRY_READS) from lost
        raise _differs(target, differing)

    def _read(self, target: Target) -> dict[str, Any]:
        preset = self.hook.get_preset(target.preset_id, project_id=target.place.level)
        rules.check_assignees(preset)
        return preset


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
        target, "failed", f"not tried: {MAX_CONSECUTIVE_FAILURES} consecutive presets of its project have failed"
    )


def _unknown_target(place: PresetPlace, preset_id: str, template: str | None, fault: WorkflowsError) -> Target:
    """Return a target that cannot be changed, because the data that a change needs could not be read."""
    is_rejected = isinstance(fault, REJECTIONS)
    return Target(
        *(place, preset_id, template),
        reason=str(fault) if is_rejected else None,
        failure=None if is_rejected else fault,
    )


def _is_assigned(preset: Mapping[str, Any], assignment: Mapping[str, Any]) -> bool:
    if assignment["preset_id"] is not None:
        return str(preset.get("id")) == str(assignment["preset_id"])
    template = preset.get("template") or {}
    desired = str(assignment["template"]).strip().casefold()
    return desired in (str(template.get("id")), str(template.get("name")).strip().casefold())


def _change_message(group: Mapping[str, Any]) -> str:
    return ", ".join(f"{kind} {', '.join(group[kind])}" for kind in ("added", "removed") if group[kind])


def _differs(target: Target, messages: Sequence[str]) -> PresetConflict:
    return PresetConflict(
        f"Preset {target.preset_id} does not show what was written: {'; '.join(messages)}. Another user has edited it, "
        "or Procore has changed the members. The task does not overwrite it; check it, then clear the task."
    )
