"""Operators that keep the assignees of Procore's workflows in step with who works where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.exceptions import (
    ApiError,
    ConfigurationError,
    ContractError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    PresetDiffers,
    ServerError,
    WorkflowsError,
)
from airflow_provider_workflows.operators.attachments import storage_path
from airflow_provider_workflows.operators.base import Pin, Progress, WaitingOperator, read_until_found, told
from airflow_provider_workflows.operators.procore_base import ProcoreWideOperator
from airflow_provider_workflows.rules import procore_assignees as rules
from airflow_provider_workflows.rules.forms import is_id
from airflow_provider_workflows.rules.parameters import check_choice, check_required, listed, text_id
from airflow_provider_workflows.rules.procore import COMPANY_LEVEL
from airflow_provider_workflows.triggers.procore import ProcoreBulkReplaceWaitTrigger
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context


ACTIONS = ("create", "stop")
REPLACEMENT_TYPES = ("permanent", "temporary")
OVER = ("completed", "expired", "failed", "stopped")
MODES = ("plan", "apply")
MEMBERS = ("merge", "replace")
ON_REFUSED = ("fail", "skip")
MOST_READS = 3  # of a preset that changes from read to read


@dataclass(frozen=True)
class Scope:
    """Where presets are: one tool in one project, or at the level ``company``."""

    tool_type: str
    tool_subtype: str | None
    level: str


@dataclass
class Target:
    """One preset and what is wished for its groups; or why there is none to change."""

    scope: Scope
    preset_id: str
    template: str | None
    wishes: list[rules.Wish] = field(default_factory=list)
    reason: str | None = None

    @property
    def refusals(self) -> list[str]:
        told = [f"{wish.name}: {wish.reason}" for wish in self.wishes if wish.reason]
        told += [f"{wish.name}: {one['who']} {one['reason']}" for wish in self.wishes for one in wish.refused]
        return [*([self.reason] if self.reason else []), *told]


class ProcorePresetAssigneesOperator(ProcoreWideOperator):
    """
    Brings the members of the role groups of workflow presets in step with a list of who should be in them.

    Presets say whom the instances that start from now on ask; running ones stay as they are. First everything
    is resolved that can be refused; then each preset is read, changed if it must be, and read again. Only role
    groups are touched, and a group is left without members only when told. A change carries every group as read
    right before it. A preset that ``confirm_timeout`` seconds later does not hold what was written has been edited by
    somebody else: that fails with the difference and is not written over. A retry goes on where the last try ended.

    Returns ``{mode, changed, unchanged, refused, presets: [{preset_id, project_id, template, valid, status, reason,
    groups: [{group, uuid, added, removed, unchanged, refused: [{who, reason}], reason}]}]}``; a ``status`` is
    ``change`` (planned), ``applied``, ``unchanged`` or ``refused``; ``refused`` counts the presets of which anything
    is refused, whatever becomes of the rest. The same is a table in the log.

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
        that is refused (templated).
    :param on_refused: ``fail`` (default): refuse everything if anything can be refused beforehand, and fail at the
        end if Procore refused something; ``skip``: do the rest.
    :param confirm_timeout: Seconds, or a timedelta, to read on until a preset shows a change; default 60.
    :raises ConfigurationError: the assignments have not this form, name a preset twice, or something is refused.
    :raises PresetDiffers: a preset does not hold what was written; never retried.
    :raises OutcomeUnknown: the answer was lost and reading shows the old members; never retried.
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
        on_refused: str = "fail",
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
        self.on_refused = on_refused
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any]:
        assignments = self._checked_assignments()
        targets = self._targets(assignments)
        rows: list[dict[str, Any]] = []
        try:
            if self.mode == "apply" and self.on_refused == "fail":
                self._check_refusals(targets)
            if self.mode == "apply":
                _ = self.hook.user_id  # for the log: after a change nothing may fail for it
            journal = Pin(task_state_store(context), "presets", None)
            progress = Progress("presets " + ("planned" if self.mode == "plan" else "worked on"), len(targets))
            rows.extend(self._row(target, journal) for target in progress.of(targets))
        finally:
            if rows:
                self.log.info("%s\n%s", "Plan:" if self.mode == "plan" else "Done:", rules.table_of(rows))
        result = {
            "mode": self.mode,
            "changed": sum(row["status"] in ("change", "applied") for row in rows),
            "unchanged": sum(row["status"] == "unchanged" for row in rows),
            "refused": sum(rules.is_refused(row) for row in rows),
            "presets": rows,
        }
        if (
            self.mode == "apply"
            and self.on_refused == "fail"
            and (bad := [r for r in rows if r["status"] == "refused"])
        ):
            told = "; ".join(f"preset {row['preset_id']}: {row['reason']}" for row in bad)
            raise ConfigurationError(f"assignments: {len(bad)} preset(s) were not changed. {told}")
        return result

    # --- what is wished for ---

    def _checked_assignments(self) -> list[dict[str, Any]]:
        check_choice("mode", self.mode, MODES)
        check_choice("members", self.members, MEMBERS)
        check_choice("on_refused", self.on_refused, ON_REFUSED)
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
        ids = [(target.scope, target.preset_id) for target in targets if target.reason is None]
        if twice := {preset_id for scope, preset_id in ids if ids.count((scope, preset_id)) > 1}:
            raise ConfigurationError(
                f"assignments: preset {', '.join(sorted(twice))} is meant by several of them; give its groups in one."
            )
        return targets

    def _targets_of(self, assignment: Mapping[str, Any]) -> Iterator[Target]:
        tool_type, tool_subtype = assignment["tool_type"], assignment["tool_subtype"] or text_id(self.tool_subtype)
        given = self.project_id if assignment["project_id"] is None else assignment["project_id"]
        for project_id in listed(given):
            scope = Scope(tool_type, tool_subtype, self.hook.level_for(text_id(project_id), tool_type))
            presets = [preset for preset in self._presets(scope) if _is_meant(preset, assignment)]
            if not presets:
                what = f"of template {assignment['template']!r}" if assignment["template"] else "with this id"
                known = {str((preset.get("template") or {}).get("name")) for preset in self._presets(scope)}
                named = ", ".join(sorted(known)) or "none"
                reason = f"no preset {what} is there, or visible to us; templates with presets: {named}"
                yield Target(scope, assignment["preset_id"] or "-", assignment["template"], reason=reason)
            for preset in presets:
                yield self._target(scope, preset, assignment["groups"])

    def _target(self, scope: Scope, preset: Mapping[str, Any], wanted: Mapping[str, Sequence[str]]) -> Target:
        template = preset.get("template") or {}
        groups = self._groups(text_id(template.get("last_published_version_id")))
        wishes = [
            rules.wish_for(
                name,
                people,
                groups=groups,
                possible=self._possible(scope),
                replace=self.members == "replace",
                allow_empty=self.allow_empty,
            )
            for name, people in wanted.items()
        ]
        return Target(scope, str(preset["id"]), template.get("name"), wishes)

    def _check_refusals(self, targets: Sequence[Target]) -> None:
        told = [f"preset {target.preset_id}: {refusal}" for target in targets for refusal in target.refusals]
        if told:
            raise ConfigurationError(
                f"assignments: nothing was changed, for some of it is refused. {'; '.join(told)}. Correct it, or set "
                "on_refused to 'skip' to do the rest."
            )

    # --- what all presets share is asked for once ---

    def _presets(self, scope: Scope) -> list[dict[str, Any]]:
        if scope not in self._known_presets:
            found = self.hook.list_presets(scope.tool_type, tool_subtype=scope.tool_subtype, project_id=scope.level)
            self._known_presets[scope] = list(found)
            if not self._known_presets[scope]:
                self.hook.check_tool(scope.tool_type)
        return self._known_presets[scope]

    def _groups(self, version_id: str | None) -> list[Any]:
        if version_id is None:
            return []
        if version_id not in self._known_groups:
            groups = self.hook.get_template_version(version_id).get("responsible_groups")
            self._known_groups[version_id] = groups if isinstance(groups, list) else []
        return self._known_groups[version_id]

    def _possible(self, scope: Scope) -> list[dict[str, Any]]:
        if scope not in self._known_people:
            people = self.hook.list_possible_assignees(
                scope.tool_type, tool_subtype=scope.tool_subtype, project_id=scope.level
            )
            self._known_people[scope] = list(people)
        return self._known_people[scope]

    @cached_property
    def _known_presets(self) -> dict[Scope, list[dict[str, Any]]]:
        return {}

    @cached_property
    def _known_groups(self) -> dict[str, list[Any]]:
        return {}

    @cached_property
    def _known_people(self) -> dict[Scope, list[dict[str, Any]]]:
        return {}

    # --- one preset ---

    def _row(self, target: Target, journal: Pin) -> dict[str, Any]:
        row: dict[str, Any] = {
            "preset_id": target.preset_id,
            "project_id": target.scope.level,
            "template": target.template,
            "valid": None,
            "status": "refused",
            "reason": target.reason,
            "groups": [],
        }
        if target.reason is None:
            try:
                preset = self._read(target)
            except (InvalidRequest, NotFound, PermissionDenied) as refused:
                row["reason"] = str(refused)
            else:
                self._judge(target, preset, row, journal)
        return row

    def _judge(self, target: Target, preset: dict[str, Any], row: dict[str, Any], journal: Pin) -> None:
        replace = self.members == "replace"
        logins = rules.logins_of(self._possible(target.scope))
        earlier = self._changed_earlier(target, preset, journal)
        for _ in range(MOST_READS):
            after = rules.members_after(preset, target.wishes, replace=replace)
            groups = rules.group_changes(preset, target.wishes, replace=replace, logins=logins)
            row.update(valid=preset.get("valid"), groups=groups)
            if not rules.differences(preset, after):
                all_refused = all(wish.reason or (wish.refused and not wish.ids) for wish in target.wishes)
                row["status"] = "refused" if all_refused else "applied" if earlier else "unchanged"
                row["reason"] = "; ".join(target.refusals) if all_refused else "by an earlier try" if earlier else None
                return
            if earlier:
                raise _differs(target, rules.differences(preset, after))
            if more := self._beyond_approval(target, groups):
                row["reason"] = f"not in the approved plan: {'; '.join(more)}"
                return
            if self.mode == "plan":
                row["status"] = "change"
                return
            self._intend(target, preset, after, journal)
            # A change carries every group, so whoever was added since the first read must be in it.
            now = self._read(target)
            if rules.is_unchanged(now, preset):
                self._change(target, preset, after, row, journal)
                return
            preset = now
        row["reason"] = f"somebody else is editing it: {MOST_READS} reads showed {MOST_READS} states of it"

    def _changed_earlier(self, target: Target, preset: Mapping[str, Any], journal: Pin) -> bool:
        """
        Tell whether an earlier try of the task has changed a preset.

        :raises PresetDiffers: a try was cut off while it did, and the preset is neither as it was nor as it should be.
        """
        kept = journal.value or {"done": [], "open": None}
        if kept["open"] is None or kept["open"]["preset_id"] != target.preset_id:
            return target.preset_id in kept["done"]
        told = self._differences(target, preset, kept["open"]["after"])
        if told and self._differences(target, preset, kept["open"]["before"]):
            raise _differs(target, told)
        if not told:
            journal.keep({"done": [*kept["done"], target.preset_id], "open": None})
        return not told

    def _differences(
        self, target: Target, preset: Mapping[str, Any], members: Mapping[str, Sequence[str]]
    ) -> list[str]:
        """Say in words where a preset lacks members, or has others in a group that may have none."""
        replaced = [str(wish.uuid) for wish in target.wishes if wish.reason is None]
        return rules.differences(preset, members, closed=replaced if self.members == "replace" else ())

    @staticmethod
    def _intend(target: Target, preset: Mapping[str, Any], after: Mapping[str, Sequence[str]], journal: Pin) -> None:
        done = (journal.value or {"done": []})["done"]
        intent = {"preset_id": target.preset_id, "before": rules.members_of(preset), "after": dict(after)}
        journal.keep({"done": done, "open": intent})

    def _change(
        self,
        target: Target,
        preset: dict[str, Any],
        after: Mapping[str, Sequence[str]],
        row: dict[str, Any],
        journal: Pin,
    ) -> None:
        done = (journal.value or {"done": []})["done"]
        body = rules.assignees_to_send(preset, after)
        lost: WorkflowsError | None = None
        try:
            self.hook.update_preset_assignees(target.preset_id, **body, project_id=target.scope.level)
        except (InvalidRequest, NotFound, PermissionDenied) as refused:
            journal.keep({"done": done, "open": None})
            row["reason"] = str(refused)
            return
        except (OutcomeUnknown, ContractError, ServerError) as fault:
            self.log.warning("%s Reading whether preset %s was changed.", told(fault), target.preset_id)
            lost = fault
        self._verify(target, preset, after, lost)
        journal.keep({"done": [*done, target.preset_id], "open": None})
        row["status"] = "applied"
        changes = [f"{group['group']}: {_told_change(group)}" for group in row["groups"] if _told_change(group)]
        self.log.info(
            "Changed preset %s (template %s, project %s) as user %s: %s.",
            *(target.preset_id, target.template, target.scope.level, self.hook.user_id, "; ".join(changes)),
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
        :raises PresetDiffers: it shows something else.
        :raises OutcomeUnknown: it shows nothing of a change without a response, or cannot be read.
        """
        shown: list[dict[str, Any]] = []
        differing: list[str] = []

        def holds() -> bool | None:
            shown[:] = [self._read(target)]
            differing[:] = self._differences(target, shown[0], after) + rules.losses(shown[0], before)
            return None if differing else True

        if read_until_found(holds, self.confirm_timeout):
            return
        what = "The change was taken" if lost is None else told(lost).rstrip(".")
        if not shown:
            raise OutcomeUnknown(f"{what}; and preset {target.preset_id} cannot be read") from lost
        if lost is not None and rules.is_unchanged(shown[0], before):
            raise OutcomeUnknown(
                f"{what}; and {self.confirm_timeout:.0f} s later preset {target.preset_id} does not show other members"
            ) from lost
        raise _differs(target, differing)

    def _read(self, target: Target) -> dict[str, Any]:
        return self.hook.get_preset(target.preset_id, project_id=target.scope.level)


class ProcoreBulkReplaceAssigneesOperator(ProcoreWideOperator, WaitingOperator):
    """
    Lets Procore replace a person in presets and running workflows, once, for good or for some days; or stops that.

    What the first try sent is kept in Airflow's task state store (3.3+). A request whose answer was lost is looked
    for in Procore's list, and never sent again.

    Returns ``{request_id, status, errors, errors_path}``; ``errors`` is the number of lines of Procore's list of
    what it could not do.

    Reference: https://developers.procore.com/reference/rest/workflows-bulk-replace-requests

    :param action: ``create`` (default) or ``stop`` (templated).
    :param request_id: The request to stop (templated).
    :param old_assignee: Login or login information id of who is replaced (templated).
    :param new_assignees: Logins or ids of who takes over, one or several (templated).
    :param reason: Why, for Procore's record (templated).
    :param replacement_type: ``permanent`` (default) or ``temporary`` (templated).
    :param first_day: First day of a temporary replacement, ``YYYY-MM-DD`` (templated).
    :param last_day: Its last day (templated).
    :param modify_project_roles: Whether to replace the person in project roles, too; default False.
    :param new_workflow_manager: Login or id of who manages the workflows from then on (templated).
    :param project_ids: Only in these projects (templated); default: ``project_id`` of the task, else all of them.
    :param tools: Only for these tools: types, or ``{type, sub_type}`` (templated).
    :param wait_for_completion: Wait until Procore has done it; default True.
    :param errors_path: File for the list of what could not be done, as CSV, in any object storage that Airflow
        knows (templated); written when there is something on it.
    :param confirm_timeout: Seconds, or a timedelta, to look for a request whose answer was lost; default 60.
    :param wait_timeout: Seconds that the wait may take; default 7 days.
    :param poll_interval: Seconds between two looks; by default ``[workflows] poke_interval``, else 60.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    :raises ConfigurationError: a parameter is missing or wrong, or no such user.
    :raises OutcomeUnknown: the answer was lost and the list shows no new request; never retried.
    """

    template_fields: Sequence[str] = (
        *ProcoreWideOperator.template_fields,
        "action",
        "request_id",
        "old_assignee",
        "new_assignees",
        "reason",
        "replacement_type",
        "first_day",
        "last_day",
        "new_workflow_manager",
        "project_ids",
        "tools",
        "errors_path",
    )

    def __init__(
        self,
        *,
        action: str = "create",
        request_id: str | int | None = None,
        old_assignee: str | int | None = None,
        new_assignees: str | int | Sequence[str | int] | None = None,
        reason: str | None = None,
        replacement_type: str = "permanent",
        first_day: str | date | None = None,
        last_day: str | date | None = None,
        modify_project_roles: bool = False,
        new_workflow_manager: str | int | None = None,
        project_ids: str | int | Sequence[str | int] | None = None,
        tools: str | Sequence[str | Mapping[str, Any]] | None = None,
        wait_for_completion: bool = True,
        errors_path: Any = None,
        confirm_timeout: timedelta | float = 60.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.action = action
        self.request_id = request_id
        self.old_assignee = old_assignee
        self.new_assignees = new_assignees
        self.reason = reason
        self.replacement_type = replacement_type
        self.first_day = first_day  # a task's start_date is another thing
        self.last_day = last_day
        self.modify_project_roles = modify_project_roles
        self.new_workflow_manager = new_workflow_manager
        self.project_ids = project_ids
        self.tools = tools
        self.wait_for_completion = wait_for_completion
        self.errors_path = errors_path
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> Any:
        self._check_parameters()
        if self.action == "stop":
            return self._stop(str(text_id(self.request_id)))
        store = task_state_store(context)
        if store is None and self.retries:
            raise ConfigurationError(
                "retries must be 0 on an Airflow before 3.3: without its task state store a retry cannot know whether "
                "the replacement was asked for already."
            )
        journal = Pin(store, "bulk_replace", None)
        request_id = self._created(journal) or self._create(journal)
        if not self.wait_for_completion:
            return self._result(request_id, None)
        return self.wait(
            context,
            partial(
                ProcoreBulkReplaceWaitTrigger,
                procore_conn_id=self.procore_conn_id,
                company_id=text_id(self.company_id),
                request_id=request_id,
            ),
        )

    def finish(self, context: Context, answer: Mapping[str, Any]) -> dict[str, Any]:
        self.log.info("%s", answer["reason"])
        result = self._result(answer["result"]["request_id"], answer["result"]["status"])
        if answer["word"] == "fail":
            where = f" What could not be done is in {result['errors_path']}." if result["errors_path"] else ""
            raise AirflowFailException(f"WaitFailed: {answer['reason']}.{where}")
        return result

    def _check_parameters(self) -> None:
        check_choice("action", self.action, ACTIONS)
        self.check_wait()
        if self.action == "stop":
            check_required(request_id=self.request_id)
            if not (self.old_assignee is self.new_assignees is self.reason is None):
                raise ConfigurationError("old_assignee, new_assignees and reason go with action='create'.")
            return
        if self.request_id is not None:
            raise ConfigurationError("request_id goes with action='stop'; a new request gets its own.")
        check_required(old_assignee=self.old_assignee, new_assignees=self.new_assignees, reason=self.reason)
        if not listed(self.new_assignees):
            raise ConfigurationError("new_assignees is an empty list.")
        for who in listed(self.new_assignees):
            check_required(new_assignees=who)
        self._check_others([str(text_id(who)) for who in (self.old_assignee, *listed(self.new_assignees))])
        check_choice("replacement_type", self.replacement_type, REPLACEMENT_TYPES)
        if self.replacement_type == "temporary":
            check_required(first_day=self.first_day, last_day=self.last_day)
            if _day("last_day", self.last_day) < _day("first_day", self.first_day):
                raise ConfigurationError("last_day is before first_day.")
        elif self.first_day is not None or self.last_day is not None:
            raise ConfigurationError("first_day and last_day go with replacement_type='temporary'.")
        # An empty list may mean all of them to Procore.
        for name in ("project_ids", "tools"):
            if getattr(self, name) is not None and not listed(getattr(self, name)):
                raise ConfigurationError(f"{name} is an empty list; leave it out to mean all.")
        for project in self._projects() or []:
            check_required(project_ids=project)
        for tool in [] if self.tools is None else listed(self.tools):
            check_required(tools=tool)
            if not isinstance(tool, str) and not (isinstance(tool, Mapping) and tool.get("type")):
                raise ConfigurationError(f"tools: give types, or {{type, sub_type}}; got {tool!r}.")
        if self.errors_path is not None:
            storage_path("errors_path", self.errors_path)

    @staticmethod
    def _check_others(people: Sequence[str]) -> None:
        if people[0].casefold() in [who.casefold() for who in people[1:]]:
            raise ConfigurationError(f"old_assignee and new_assignees name the same person: {people[0]}.")

    def _projects(self) -> list[Any] | None:
        """Return where to replace: ``project_ids``, else the task's ``project_id``, else everywhere (None)."""
        projects = self.project_id if self.project_ids is None else self.project_ids
        return None if projects in (None, COMPANY_LEVEL) else listed(projects)

    def _created(self, journal: Pin) -> str | None:
        """Return the request that an earlier try made, or None if there is none to be expected."""
        if journal.value is None or not journal.value["sent"]:
            return None
        if journal.value["request_id"] is not None:
            request_id = str(journal.value["request_id"])
            self.log.info("An earlier try of this task has made request %s; nothing is sent.", request_id)
            return request_id
        return self._settle(journal, "An earlier try was cut off while it made the request")

    def _create(self, journal: Pin) -> str:
        request = self._request()
        before = [str(row["id"]) for row in self._requests()]
        kept = {"before": before, "request": request, "sent": True, "request_id": None}
        journal.keep(kept)
        try:
            request_id = str(self.hook.create_bulk_replace_request(request)["bulk_replace_request_id"])
        except (OutcomeUnknown, ContractError, ServerError, KeyError) as lost:
            return self._settle(journal, told(lost))
        except ApiError:
            journal.keep({**kept, "sent": False})
            raise
        return self._made(journal, request_id)

    def _made(self, journal: Pin, request_id: str) -> str:
        kept = journal.value or {}
        journal.keep({**kept, "request_id": request_id})
        request = kept["request"]
        days = f" from {request['start_date']} to {request['end_date']}" if "start_date" in request else ""
        self.log.info(
            "Requested the %s replacement of user %s by %s%s as user %s: request %s.",
            *(request["replacement_type"], request["old_assignee_id"], ", ".join(request["new_assignee_ids"])),
            *(days, self.hook.user_id, request_id),
        )
        return request_id

    def _settle(self, journal: Pin, what_happened: str) -> str:
        """Look for a request that was not there before; none is made after an unknown outcome."""
        self.log.warning("%s Looking for it in the list of requests.", what_happened)
        kept = journal.value or {}
        found: dict[str, bool | None] = {}

        def read() -> list[str] | None:
            new = (row for row in self._requests() if str(row["id"]) not in kept["before"])
            found.update({str(row["id"]): self._is_ours(row, kept["request"]) for row in new})
            return [request_id for request_id, is_ours in found.items() if is_ours] or None

        new = read_until_found(read, self.confirm_timeout) or []
        if len(new) != 1:
            candidates = ", ".join(request_id for request_id, is_ours in found.items() if is_ours is not False)
            shown = f"shows requests that it could be: {candidates}" if candidates else "shows no new request"
            raise OutcomeUnknown(
                f"{what_happened.rstrip('.')}; and after {self.confirm_timeout:.0f} s the list {shown}"
            )
        return self._made(journal, new[0])

    def _request(self) -> dict[str, Any]:
        request: dict[str, Any] = {
            "replacement_type": self.replacement_type,
            "old_assignee_id": self._user_id("old_assignee", self.old_assignee),
            "new_assignee_ids": [self._user_id("new_assignees", who) for who in listed(self.new_assignees)],
            "modify_project_roles": self.modify_project_roles,
            "reason": self.reason,
        }
        self._check_others([request["old_assignee_id"], *request["new_assignee_ids"]])
        if self.new_workflow_manager is not None:
            request["new_workflow_manager_id"] = self._user_id("new_workflow_manager", self.new_workflow_manager)
        if self.replacement_type == "temporary":
            request["start_date"] = _day("first_day", self.first_day).isoformat()
            request["end_date"] = _day("last_day", self.last_day).isoformat()
        if (projects := self._projects()) is not None:
            request["project_ids"] = [str(text_id(project)) for project in projects]
        if self.tools is not None:
            request["tools"] = [{"type": tool} if isinstance(tool, str) else dict(tool) for tool in listed(self.tools)]
        return request

    def _user_id(self, parameter: str, who: Any) -> str:
        given = str(text_id(who))
        return given if given.isdecimal() else self.hook.find_user_id(given, parameter=parameter)

    def _requests(self) -> Iterator[dict[str, Any]]:
        """List all requests: how the filters take several people is not documented, nor whether they are heeded."""
        return (row for row in self.hook.list_bulk_replace_requests() if is_id(row.get("id")))

    def _is_ours(self, row: Mapping[str, Any], request: Mapping[str, Any]) -> bool | None:
        """Tell whether a row is the request that was sent; None where nobody can."""
        is_ours = rules.is_request(row, request, self.hook.user_id)
        if is_ours is None:  # shown by itself, it may say more
            shown = self.hook.get_bulk_replace_request(str(row["id"]))
            is_ours = rules.is_request({**row, **shown}, request, self.hook.user_id)
        return is_ours

    def _stop(self, request_id: str) -> dict[str, Any]:
        status = self.hook.get_bulk_replace_request(request_id).get("status")
        if status in OVER:
            self.log.info("Request %s is %s; nothing is sent.", request_id, status)
        else:
            self.hook.stop_bulk_replace_request(request_id)
            self.log.info("Stopped request %s as user %s.", request_id, self.hook.user_id)
            status = self.hook.get_bulk_replace_request(request_id).get("status")
        return self._result(request_id, status)

    def _result(self, request_id: str, status: str | None) -> dict[str, Any]:
        errors = self._errors(request_id) if status is not None else ""
        lines = [line for line in errors.splitlines() if line.strip()][1:]  # the first one names the columns
        path = self._write(errors) if lines and self.errors_path is not None else None
        if lines:
            self.log.warning("Procore could not do everything:\n%s", "\n".join(lines[:20]))
        return {"request_id": request_id, "status": status, "errors": len(lines), "errors_path": path}

    def _errors(self, request_id: str) -> str:
        try:
            return self.hook.get_bulk_replace_errors(request_id)
        except NotFound:
            return ""  # nobody says whether a request without errors has an empty list or none

    def _write(self, errors: str) -> str:
        file = storage_path("errors_path", self.errors_path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as stream:
            stream.write(errors.encode())
        return str(file)


def _day(parameter: str, given: Any) -> date:
    if isinstance(given, date):
        return given.date() if isinstance(given, datetime) else given
    try:
        return date.fromisoformat(str(given).strip())
    except ValueError:
        raise ConfigurationError(f"{parameter} must be a day, YYYY-MM-DD; got {str(given)!r}.") from None


def _is_meant(preset: Mapping[str, Any], assignment: Mapping[str, Any]) -> bool:
    if assignment["preset_id"] is not None:
        return str(preset.get("id")) == str(assignment["preset_id"])
    template = preset.get("template") or {}
    wanted = str(assignment["template"]).casefold()
    return wanted in (str(template.get("id")), str(template.get("name")).casefold())


def _told_change(group: Mapping[str, Any]) -> str:
    return ", ".join(f"{kind} {', '.join(group[kind])}" for kind in ("added", "removed") if group[kind])


def _differs(target: Target, told: Sequence[str]) -> PresetDiffers:
    return PresetDiffers(
        f"Preset {target.preset_id} does not hold what was written: {'; '.join(told)}. Somebody else has edited it "
        "meanwhile, or Procore changed what it was sent. It is not written over; look at it, then clear the task."
    )
