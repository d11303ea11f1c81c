"""Operators for Procore's Workflows v2 API."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_workflows.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    ContractError,
    InstanceActive,
    InstanceBlocked,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    ResponseConflict,
    ServerError,
    StepMoved,
    WorkflowsError,
)
from airflow_provider_workflows.links.procore import ProcoreItemLink
from airflow_provider_workflows.operators.attachments import AttachedFile, attached_files
from airflow_provider_workflows.operators.base import Pin, WaitingOperator, WorkflowsOperator, read_until_found, told
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.parameters import (
    check_choice,
    check_given,
    check_required,
    listed,
    one_of,
    text_id,
)
from airflow_provider_workflows.triggers.procore import ProcoreInstanceWaitTrigger
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_provider_workflows.hooks.procore import ProcoreHook

ON_STEP_MOVED = ("fail", "skip", "succeed")
ON_ACTIVE_INSTANCE = ("adopt", "fail")
RESTART_MODES = ("defaults", "current_configuration")
UPLOAD_PART = 16 * 2**20  # bytes; Procore takes parts of 5 to 100 MiB
MOST_PARTS = 10_000
LARGEST_FILE = UPLOAD_PART * MOST_PARTS  # bytes


class ProcoreConnectionOperator(WorkflowsOperator):
    """
    An operator on one Procore connection, to whichever of its two workflow APIs.

    :param procore_conn_id: Id of a connection of type ``procore`` (templated).
    :param company_id: Company to work in; beats the connection's (templated).
    :param project_id: Project to work in; beats the connection's (templated).
    """

    operator_extra_links: Collection[BaseOperatorLink] = (ProcoreItemLink(),)
    template_fields: Sequence[str] = ("procore_conn_id", "company_id", "project_id")

    def __init__(
        self,
        *,
        procore_conn_id: str = "procore_default",
        company_id: str | int | None = None,
        project_id: str | int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.procore_conn_id = procore_conn_id
        self.company_id = company_id
        self.project_id: Any = project_id  # or several, in operators that look in several


class ProcoreOperator(ProcoreConnectionOperator):
    """An operator on Procore's Workflows v2 API."""

    @cached_property
    def hook(self) -> ProcoreHook:
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        return ProcoreHook(self.procore_conn_id, company_id=self.company_id, project_id=self.project_id)

    @cached_property
    def level(self) -> str:
        """The project to work in, or ``company``."""
        return self.hook.level_for(None, getattr(self, "tool_type", None))

    def link_to(self, instance: Mapping[str, Any]) -> None:
        """Let the task link to an instance's item in Procore."""
        self.item_url = self.hook.item_url(
            instance_id=text_id(instance.get("id")),
            item_id=text_id(instance.get("item_id")),
            tool_type=instance.get("tool_type"),
            project_id=self.level,
        )


class ProcoreWideOperator(ProcoreOperator):
    """An operator that looks in several tools and projects: its task links to no single item."""

    operator_extra_links = ()

    @cached_property
    def hook(self) -> ProcoreHook:
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        return ProcoreHook(self.procore_conn_id, company_id=self.company_id)  # the project goes with each call


class ProcoreInstanceOperator(ProcoreOperator):
    """
    An operator on one workflow instance.

    :param procore_conn_id: Id of a connection of type ``procore`` (templated).
    :param company_id: Company to work in; beats the connection's (templated).
    :param project_id: Project to work in, or ``company``; default: where the tool is, if ``tool_type`` is given,
        else the connection's (templated).
    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item, such as ``purchase_order_contract`` (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose instance is meant: the active one, else the newest (templated).
    """

    template_fields: Sequence[str] = (
        *ProcoreOperator.template_fields,
        "instance_id",
        "tool_type",
        "tool_subtype",
        "item_id",
    )

    def __init__(
        self,
        *,
        instance_id: str | int | None = None,
        tool_type: str | None = None,
        tool_subtype: str | int | None = None,
        item_id: str | int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.instance_id = instance_id
        self.tool_type = tool_type
        self.tool_subtype = tool_subtype
        self.item_id = item_id

    def check_instance(self) -> None:
        """Require either an instance or an item."""
        one_of(instance_id=self.instance_id, item_id=self.item_id)
        if self.item_id is not None:
            check_required(tool_type=self.tool_type)
        check_given(self, "project_id", "tool_type", "tool_subtype")

    def find_instance_id(self) -> str:
        """Return the id of the instance that is meant."""
        if self.instance_id is not None:
            return str(text_id(self.instance_id))
        instances = self.hook.list_item_instances(
            str(self.tool_type), str(text_id(self.item_id)), self.level, tool_subtype=text_id(self.tool_subtype)
        )
        return rules.newest_instance(instances)

    def kept_instance_id(self, context: Context) -> str:
        """Return the id of the instance that is meant, from Airflow 3.3 on the same one in all tries of the task."""
        if self.instance_id is not None:
            return self.find_instance_id()
        pin = Pin(task_state_store(context), "instance", None)
        if pin.value is None:
            pin.keep({"instance_id": self.find_instance_id()})
        return str((pin.value or {})["instance_id"])

    def pinned_instance_id(self, context: Context, key: str) -> str:
        """Return the id of the instance that is meant, the same one in all tries of the task."""
        given = None if self.instance_id is None else {"instance_id": text_id(self.instance_id)}
        pin = self.pinned(context, key, given, "instance_id")
        if pin.value is None:
            pin.keep({"instance_id": self.find_instance_id()})
        return str((pin.value or {})["instance_id"])

    def show(self, instance_id: str) -> dict[str, Any]:
        """Show an instance, and let the task link to its item."""
        instance = self.hook.get_instance(instance_id, project_id=self.level)
        self.link_to(instance)
        return instance

    def moved(self, message: str, on_step_moved: str) -> None:
        """End the task as it wishes to end when a step is over that it was meant for."""
        if on_step_moved == "fail":
            raise StepMoved(f"{message} Set on_step_moved to 'skip' or 'succeed' if that is no failure.")
        self.log.info("%s", message)
        if on_step_moved == "skip":
            raise AirflowSkipException(message)


class ProcoreRespondOperator(ProcoreInstanceOperator):
    """
    Answers one step occurrence of a workflow instance as the connection's user, once.

    The answer belongs to one visit of the step. Give ``step_occurrence_id`` from
    ``ProcoreResponseRequestedSensor``; without it the step found by the first try is kept in Airflow's task
    state store (3.3+) and every retry answers that one or nothing. A retry that finds the same option
    recorded succeeds without writing. Clearing the task asks for a new decision: it may answer a later visit.

    Returns ``{instance_id, item_id, project_id, step, step_occurrence_id, option, option_id, type, comment,
    user_id, already_recorded}``, or None with ``on_step_moved="succeed"``.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance to answer (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose active instance to answer (templated).
    :param step_occurrence_id: The step occurrence that the answer is meant for (templated).
    :param option: Label of the response option, in any case (templated).
    :param option_id: Its id (templated); instead of ``option``.
    :param option_type: Its type, such as ``approve`` (templated); instead of ``option``.
    :param comment: A note about the response (templated).
    :param attachments: Ids of what is in Procore already, by kind, such as ``{"file_version_ids": ["1"]}``: kinds
        prostore_file_ids, drawing_revision_ids, file_version_ids, form_ids, image_ids, upload_ids (templated).
    :param files: Paths or URLs of files to upload and attach, one or several, on the worker or in any object
        storage that Airflow knows (templated).
    :param on_step_moved: What to do when that step occurrence is over, or the instance ended, without our
        answer: ``fail`` (default), ``skip`` or ``succeed`` (templated).
    :param confirm_timeout: Seconds, or a timedelta, to read on for the answer after it was sent; default 60.
    :raises ConfigurationError: a parameter is missing or fits nothing; the candidates are listed.
    :raises ResponseConflict: another option is already recorded at this step; never retried.
    :raises StepMoved: the step is over, with ``on_step_moved="fail"``; never retried.
    :raises OutcomeUnknown: the answer was lost twice and reading does not show it; never retried.
    """

    template_fields: Sequence[str] = (
        *ProcoreInstanceOperator.template_fields,
        "step_occurrence_id",
        "option",
        "option_id",
        "option_type",
        "comment",
        "attachments",
        "files",
        "on_step_moved",
    )

    def __init__(
        self,
        *,
        step_occurrence_id: str | int | None = None,
        option: str | None = None,
        option_id: str | int | None = None,
        option_type: str | None = None,
        comment: str | None = None,
        attachments: Mapping[str, Sequence[str]] | None = None,
        files: Any = None,
        on_step_moved: str = "fail",
        confirm_timeout: timedelta | float = 60.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.step_occurrence_id = step_occurrence_id
        self.option = option
        self.option_id = option_id
        self.option_type = option_type
        self.comment = comment
        self.attachments = attachments
        self.files = files
        self.on_step_moved = on_step_moved
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any] | None:
        self._check_parameters()
        pin = self.pinned(context, "respond", self._given_pin(), "step_occurrence_id")
        self._chosen = Pin(task_state_store(context), "chosen_option", None)
        instance_id = (pin.value or {}).get("instance_id") or self.kept_instance_id(context)
        instance = self.show(instance_id)
        step = rules.current_step(instance)
        if pin.value is None:
            if step is None:
                self.moved(f"Instance {instance_id} has ended; no step of it waits for an answer.", self.on_step_moved)
                return None
            pin.keep({"instance_id": instance_id, "step_occurrence_id": str(step["id"])})
        occurrence_id = str((pin.value or {})["step_occurrence_id"])

        recorded = self._recorded(instance, instance_id, occurrence_id)
        if recorded is not None:
            self._check_same(recorded)
            self.log.info("The response %r is already recorded; nothing is sent.", recorded["name"])
            return self._result(instance, occurrence_id, recorded, already_recorded=True)
        if step is None or str(step["id"]) != occurrence_id:
            where = f"now stands at {step.get('name')!r} ({step['id']})" if step else "has ended"
            self.moved(
                f"Step occurrence {occurrence_id} of instance {instance_id} is over without a response of user "
                f"{self.hook.user_id}; the instance {where}.",
                self.on_step_moved,
            )
            return None
        files = attached_files("files", self.files, largest=LARGEST_FILE)
        self._check_pending(step)
        chosen = rules.choose_option(rules.response_options(step), **self._wish())
        self._chosen.keep(chosen)
        self._send(instance_id, occurrence_id, chosen, files)
        self._confirm(instance_id, occurrence_id)
        answer = {**chosen, "step": step.get("name"), "comment": self.comment}
        return self._result(instance, occurrence_id, answer, already_recorded=False)

    def _check_parameters(self) -> None:
        self.check_instance()
        one_of(option=self.option, option_id=self.option_id, option_type=self.option_type)
        check_given(self, "step_occurrence_id")
        check_choice("on_step_moved", self.on_step_moved, ON_STEP_MOVED)
        if not isinstance(self.attachments or {}, Mapping):
            raise ConfigurationError(f"attachments must be ids by kind, a mapping; got {self.attachments!r}.")
        for kind, ids in (self.attachments or {}).items():
            check_choice("the keys of attachments (paths go into files)", kind, rules.ATTACHMENT_KINDS)
            if not ids or any(str(one).strip() in ("", "None") for one in listed(ids)):
                raise ConfigurationError(f"attachments: {kind} must hold ids, none of them empty.")

    def _given_pin(self) -> dict[str, Any] | None:
        if self.step_occurrence_id is None:
            return None
        return {
            "instance_id": text_id(self.instance_id),
            "step_occurrence_id": text_id(self.step_occurrence_id),
        }

    def _wish(self) -> dict[str, str | None]:
        return {"name": self.option, "option_id": text_id(self.option_id), "option_type": self.option_type}

    def _recorded(self, instance: Mapping[str, Any], instance_id: str, occurrence_id: str) -> dict[str, Any] | None:
        user_id = self.hook.user_id
        step = rules.current_step(instance)
        if step is not None and str(step["id"]) == occurrence_id:
            return rules.recorded_response(instance, occurrence_id, user_id)
        return rules.recorded_in_history(
            self.hook.get_instance_history(instance_id, project_id=self.level), occurrence_id, user_id
        )

    def _check_same(self, recorded: Mapping[str, Any]) -> None:
        wish = self._wish()
        if recorded.get("id") is None and wish["option_id"] is not None:
            # Of a step that is over Procore tells the option's name and type only; the id is what we chose by.
            chosen = self._chosen.value
            if chosen is None:
                self.log.warning("The record does not tell the id of the option %r; taken for ours.", recorded["name"])
                return
            wish = {"name": chosen["name"], "option_id": None, "option_type": chosen["type"]}
        if not rules.option_fits(recorded, **wish):
            raise ResponseConflict(
                f"This step already carries the response {recorded['name']!r} (type {recorded['type']}, at "
                f"{recorded['at']}) of user {self.hook.user_id}; it was not changed to "
                f"{next(value for value in wish.values() if value is not None)!r}. Procore keeps the first response."
            )
        if (recorded.get("comment") or "") != (self.comment or ""):
            self.log.warning("The recorded response has another comment; Procore keeps the first one.")

    def _check_pending(self, step: Mapping[str, Any]) -> None:
        pending = rules.pending_assignees(step)
        if any(str(assignee.get("id")) == self.hook.user_id for assignee in pending):
            return
        names = ", ".join(f"{a.get('name')} ({a.get('login')}, id {a.get('id')})" for a in pending) or "nobody"
        raise ConfigurationError(
            f"User {self.hook.user_id} of connection {self.procore_conn_id!r} is not a pending assignee of step "
            f"{step.get('name')!r}; it waits for {names}. Make the integration's user an assignee of the step."
        )

    def _send(self, instance_id: str, occurrence_id: str, chosen: Mapping[str, Any], files: list[AttachedFile]) -> None:
        attachments = {
            kind: [str(one).strip() for one in listed(ids)] for kind, ids in (self.attachments or {}).items()
        }
        token = rules.idempotency_token(
            self.hook.company_id,
            instance_id,
            occurrence_id,
            self.hook.user_id,
            chosen["id"],
            self.comment,
            {kind: sorted(ids) for kind, ids in sorted(attachments.items())},
            [(file.name, file.sha256) for file in files],
        )
        if files:
            attachments["upload_ids"] = [*attachments.get("upload_ids", []), *map(self._upload, files)]
        unsettled: WorkflowsError
        for last_try in (False, True):
            try:
                self.hook.respond(
                    instance_id,
                    step_occurrence_id=occurrence_id,
                    option_id=chosen["id"],
                    comment=self.comment,
                    attachments=attachments,
                    idempotency_token=token,
                    project_id=self.level,
                )
                return
            except OutcomeUnknown as lost:
                self.log.warning("%s Reading whether the response arrived.", told(lost))
                found = read_until_found(lambda: self._read_back(instance_id, occurrence_id), self.confirm_timeout)
                if found is None and not last_try:
                    continue  # by contract the identical response is a no-op if the first one arrives after all
                unsettled = lost
            except (InvalidRequest, NotFound, PermissionDenied, ServerError) as refused:
                # Perhaps an earlier try of ours was faster, or the server failed after it was done. The record decides.
                found = self._read_back(instance_id, occurrence_id)
                unsettled = refused
            if found is None:
                raise unsettled
            self._check_same(found)
            return

    def _confirm(self, instance_id: str, occurrence_id: str) -> None:
        # 204 says it is recorded; what follows from it may take Procore a while.
        if read_until_found(lambda: self._read_back(instance_id, occurrence_id), self.confirm_timeout) is None:
            self.log.warning("Procore accepted the response but does not show it after %.0f s.", self.confirm_timeout)

    def _read_back(self, instance_id: str, occurrence_id: str) -> dict[str, Any] | None:
        return self._recorded(self.hook.get_instance(instance_id, project_id=self.level), instance_id, occurrence_id)

    def _upload(self, file: AttachedFile) -> str:
        self.log.info("Uploading %s (%d bytes).", file.name, file.size)
        whole = hashlib.sha256()
        segments = []
        for part in file.parts(UPLOAD_PART):
            whole.update(part)
            md5 = hashlib.md5(part, usedforsecurity=False).hexdigest()
            segments.append({"size": len(part), "sha256": hashlib.sha256(part).hexdigest(), "md5": md5})
        return self.hook.upload(
            file.name,
            file.content_type,
            segments,
            file.parts(UPLOAD_PART),
            sha256=whole.hexdigest(),
            project_id=self.level,
        )

    def _result(
        self,
        instance: Mapping[str, Any],
        occurrence_id: str,
        answer: Mapping[str, Any],
        *,
        already_recorded: bool,
    ) -> dict[str, Any]:
        return {
            "instance_id": str(instance["id"]),
            "item_id": str(instance.get("item_id")),
            "project_id": self.level,
            "step": answer["step"],
            "step_occurrence_id": occurrence_id,
            "option": answer["name"],
            "option_id": answer["id"],
            "type": answer["type"],
            "comment": answer.get("comment"),
            "user_id": self.hook.user_id,
            "already_recorded": already_recorded,
        }


class ProcoreStartInstanceOperator(ProcoreOperator, WaitingOperator):
    """
    Starts the workflow of an item, once, and waits for its end if asked to.

    An item has one active instance at most. One that is there already is adopted: the task succeeds with it, as
    does a retry whose earlier try started it. What the first try saw and did is kept in Airflow's task state
    store (3.3+); on an older Airflow a retry knows only the active instance, and would start anew an item whose
    instance has ended in between.

    Returns ``{instance_id, item_id, tool_type, project_id, step, step_occurrence_id, started_at, ended_at,
    adopted, outcome}``; ``outcome`` is None, or with ``wait_for_completion`` what ``ProcoreInstanceSensor`` returns.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool of the item, such as ``purchase_order_contract`` (templated).
    :param item_id: The item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param template_id: Template to start from (templated).
    :param preset_id: Preset to start from; beats the template; with neither, the default preset (templated).
    :param on_active_instance: What to do when the item has an active instance already that the task did not
        start: ``adopt`` (default) or ``fail``.
    :param wait_for_completion: Wait until the instance is complete or terminated.
    :param cancel_on_kill: Terminate the instance when the task is killed while it waits, unless it was adopted. In
        a triggerer that takes Airflow 3.3.
    :param confirm_timeout: Seconds, or a timedelta, to read on for an instance whose answer was lost; default 60.
    :param wait_timeout: Seconds that the wait may take; default 7 days.
    :param poll_interval: Seconds between two looks; by default ``[workflows] poke_interval``, else 60.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    :raises ConfigurationError: a parameter is missing, an unknown tool, or a preset that is not valid.
    :raises InstanceActive: the item has an active instance, with ``on_active_instance="fail"``; never retried.
    :raises OutcomeUnknown: the answer was lost and reading shows no new instance; never retried.
    """

    template_fields: Sequence[str] = (
        *ProcoreOperator.template_fields,
        "tool_type",
        "item_id",
        "tool_subtype",
        "template_id",
        "preset_id",
    )

    def __init__(
        self,
        *,
        tool_type: str,
        item_id: str | int,
        tool_subtype: str | int | None = None,
        template_id: str | int | None = None,
        preset_id: str | int | None = None,
        on_active_instance: str = "adopt",
        wait_for_completion: bool = False,
        cancel_on_kill: bool = False,
        confirm_timeout: timedelta | float = 60.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.tool_type = tool_type
        self.item_id = item_id
        self.tool_subtype = tool_subtype
        self.template_id = template_id
        self.preset_id = preset_id
        self.on_active_instance = on_active_instance
        self.wait_for_completion = wait_for_completion
        self.cancel_on_kill = cancel_on_kill
        self.confirm_timeout = confirm_timeout
        self._awaited: str | None = None  # the instance that a kill would terminate

    def act(self, context: Context) -> Any:
        self._check_parameters()
        journal = Pin(task_state_store(context), "start", None)
        instance_id, adopted = self._started(journal) or self._start(journal)
        instance = self.hook.get_instance(instance_id, project_id=self.level)
        self.link_to(instance)
        if not self.wait_for_completion:
            return self._result(instance, adopted, None)
        cancels = self.cancel_on_kill and not adopted
        self._awaited = instance_id if cancels else None
        return self.wait(
            context,
            partial(
                ProcoreInstanceWaitTrigger,
                procore_conn_id=self.procore_conn_id,
                company_id=text_id(self.company_id),
                project_id=self.level,
                instance_id=instance_id,
                tool_type=self.tool_type,
                item_id=text_id(self.item_id),
                terminate_on_kill=cancels,
                carry={"adopted": adopted},
            ),
        )

    def finish(self, context: Context, answer: Mapping[str, Any]) -> dict[str, Any]:
        outcome = answer["result"]
        instance = self.hook.get_instance(outcome["instance_id"], project_id=self.level)
        self.link_to(instance)
        self.log.info("%s", answer["reason"])
        if outcome["state"] == "terminated" and self.cancel_on_kill and not answer["carry"]["adopted"]:
            self._check_kill(outcome["instance_id"])
        return self._result(instance, answer["carry"]["adopted"], outcome)

    def _check_kill(self, instance_id: str) -> None:
        """Fail when it was an earlier, killed try of the task that terminated the instance."""
        by = rules.terminated_by(self.hook.get_instance_history(instance_id, project_id=self.level))
        if by == self.hook.user_id:
            raise AirflowFailException(
                f"WaitFailed: instance {instance_id} was terminated by user {by} of this connection, by a killed try "
                "of this task most likely. Clear the task to start another instance."
            )

    def on_kill(self) -> None:
        if self._awaited is not None:
            self.log.info("Terminating instance %s, for the task was killed.", self._awaited)
            self.hook.terminate_instance(self._awaited, project_id=self.level)

    def _check_parameters(self) -> None:
        check_required(tool_type=self.tool_type, item_id=self.item_id)
        check_choice("on_active_instance", self.on_active_instance, ON_ACTIVE_INSTANCE)
        check_given(self, "project_id", "tool_subtype", "template_id", "preset_id")
        self.check_wait()

    def _started(self, journal: Pin) -> tuple[str, bool] | None:
        """Return the instance that is there already and whether it is another's, or None if one is to be started."""
        if journal.value is not None:
            if journal.value["instance_id"] is not None:
                return str(journal.value["instance_id"]), bool(journal.value["adopted"])
            if journal.value["sent"]:
                return self._settle(journal, "An earlier try was cut off while it started the workflow")
            new = self._new_instance(journal.value["before"])
            if journal.value["failed"] and new is not None:  # it shows only now that it was started all the same
                return self._ours(journal, new)
        active = rules.active_instance(self._instances())
        return None if active is None else self._adopt(journal, active)

    def _start(self, journal: Pin) -> tuple[str, bool]:
        self._check_preset()
        before = [str(instance["id"]) for instance in self._instances()]
        found = {"before": before, "sent": True, "failed": False, "instance_id": None, "adopted": False}
        journal.keep(found)
        try:
            instance = self.hook.start_instance(
                self.tool_type,
                str(text_id(self.item_id)),
                tool_subtype=text_id(self.tool_subtype),
                template_id=text_id(self.template_id),
                preset_id=text_id(self.preset_id),
                project_id=self.level,
            )
            instance_id = str(instance["id"])
        except (OutcomeUnknown, ContractError, KeyError) as lost:
            return self._settle(journal, told(lost))
        except ServerError:
            journal.keep({**found, "sent": False, "failed": True})
            new = read_until_found(partial(self._new_instance, before), self.confirm_timeout)
            if new is None:
                raise
            instance_id = new  # it failed after it was done
        except ApiError as refused:
            journal.keep({**found, "sent": False})
            if isinstance(refused, (AuthenticationError, ConnectionFailed, RateLimited)):
                raise
            active = rules.active_instance(self._instances())
            if active is None:
                self.hook.check_tool(self.tool_type)
                raise
            return self._adopt(journal, active)  # somebody was faster
        return self._ours(journal, instance_id)

    def _settle(self, journal: Pin, what_happened: str) -> tuple[str, bool]:
        """Read until the item has a new instance; nothing is started after an unknown outcome."""
        self.log.warning("%s Reading whether it was started.", what_happened)
        before = (journal.value or {})["before"]
        instance_id = read_until_found(partial(self._new_instance, before), self.confirm_timeout)
        if instance_id is None:
            raise OutcomeUnknown(
                f"{what_happened.rstrip('.')}; and {self.confirm_timeout:.0f} s later item {self.item_id} of tool "
                f"{self.tool_type} shows no new instance"
            )
        return self._ours(journal, instance_id)

    def _new_instance(self, before: Sequence[str]) -> str | None:
        new = [instance for instance in self._instances() if str(instance["id"]) not in before]
        return rules.newest_instance(new) if new else None

    @staticmethod
    def _ours(journal: Pin, instance_id: str) -> tuple[str, bool]:
        journal.keep({**(journal.value or {}), "instance_id": instance_id, "adopted": False})
        return instance_id, False

    def _adopt(self, journal: Pin, instance_id: str) -> tuple[str, bool]:
        if self.on_active_instance == "fail":
            raise InstanceActive(
                f"Item {self.item_id} of tool {self.tool_type} has the active instance {instance_id}. Set "
                "on_active_instance to 'adopt' if that is no failure."
            )
        self.log.info("Item %s has the active instance %s; no other one is started.", self.item_id, instance_id)
        journal.keep({"before": [], "sent": False, "failed": False, "instance_id": instance_id, "adopted": True})
        return instance_id, True

    def _check_preset(self) -> None:
        if self.preset_id is None:
            return
        preset_id = str(text_id(self.preset_id))
        if self.hook.get_preset(preset_id, project_id=self.level).get("valid") is False:
            raise ConfigurationError(
                f"preset_id: preset {preset_id} is not valid, so no workflow can start from it. Complete it in Procore."
            )

    def _instances(self) -> list[dict[str, Any]]:
        return list(
            self.hook.list_instances(
                self.tool_type,
                tool_subtype=text_id(self.tool_subtype),
                item_id=text_id(self.item_id),
                project_id=self.level,
            )
        )

    def _result(self, instance: Mapping[str, Any], adopted: bool, outcome: Mapping[str, Any] | None) -> dict[str, Any]:
        step = rules.current_step(instance) or {}
        return {
            "instance_id": str(instance["id"]),
            "item_id": text_id(instance.get("item_id")),
            "tool_type": instance.get("tool_type"),
            "project_id": self.level,
            "step": step.get("name"),
            "step_occurrence_id": text_id(step.get("id")),
            "started_at": instance.get("started_at"),
            "ended_at": instance.get("ended_at"),
            "adopted": adopted,
            "outcome": outcome,
        }


class ProcoreTerminateInstanceOperator(ProcoreInstanceOperator):
    """
    Ends a workflow instance; one that has ended already stays as it is.

    By item, the instance found by the first try is kept in Airflow's task state store (3.3+): no retry ends
    another one.

    Returns ``{instance_id, item_id, tool_type, project_id, ended_at, already_ended}``.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose instance is meant: the active one, else the newest (templated).
    :raises ConfigurationError: both instance and item given, or neither; an unknown tool.
    :raises PermissionDenied: the user may not, or terminating is switched off for the tool.
    """

    def act(self, context: Context) -> dict[str, Any]:
        self.check_instance()
        instance_id = self.pinned_instance_id(context, "terminate")
        instance = self.show(instance_id)
        already_ended = instance.get("ended_at") is not None
        if already_ended:
            self.log.info("Instance %s has ended at %s; nothing is sent.", instance_id, instance["ended_at"])
        else:
            instance = self.hook.terminate_instance(instance_id, project_id=self.level)
        return {
            "instance_id": instance_id,
            "item_id": text_id(instance.get("item_id")),
            "tool_type": instance.get("tool_type"),
            "project_id": self.level,
            "ended_at": instance.get("ended_at"),
            "already_ended": already_ended,
        }


class ProcoreRestartInstanceOperator(ProcoreInstanceOperator):
    """
    Ends a workflow instance and starts a new one for the same item, once.

    Procore answers a repetition with the new instance that is there already. By item, the instance found by the
    first try is kept in Airflow's task state store (3.3+): no retry restarts the new one.

    Returns ``{instance_id, item_id, tool_type, project_id, step, step_occurrence_id, started_at,
    restarted_instance_id}``,
    ``instance_id`` being the new one.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose instance is meant: the active one, else the newest (templated).
    :param restart_mode: ``defaults`` or ``current_configuration``: who is asked by the new instance; default:
        Procore's own choice (templated).
    :raises ConfigurationError: both instance and item given, or neither; an unknown tool or mode.
    """

    template_fields: Sequence[str] = (*ProcoreInstanceOperator.template_fields, "restart_mode")

    def __init__(self, *, restart_mode: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.restart_mode = restart_mode

    def act(self, context: Context) -> dict[str, Any]:
        self.check_instance()
        if self.restart_mode is not None:
            check_choice("restart_mode", self.restart_mode, RESTART_MODES)
        instance_id = self.pinned_instance_id(context, "restart")
        new = self.hook.restart_instance(instance_id, restart_mode=self.restart_mode, project_id=self.level)
        if new.get("id") is None or str(new["id"]) == instance_id:
            raise ContractError(f"Restarting instance {instance_id} gave no new instance")
        self.link_to(new)
        step = rules.current_step(new) or {}
        return {
            "instance_id": str(new["id"]),
            "item_id": text_id(new.get("item_id")),
            "tool_type": new.get("tool_type"),
            "project_id": self.level,
            "step": step.get("name"),
            "step_occurrence_id": text_id(step.get("id")),
            "started_at": new.get("started_at"),
            "restarted_instance_id": instance_id,
        }


class ProcoreRefreshInstanceOperator(ProcoreInstanceOperator):
    """
    Lets a blocked workflow instance try its failed step again, a few times at most.

    An instance that is not blocked is left alone, so is one that Procore says cannot be tried again.

    Returns ``{instance_id, item_id, state, step, project_id, blocked_reason, refreshes}``: where it stands now, why
    it was blocked at first, and how often it was tried.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose instance is meant: the active one, else the newest (templated).
    :param max_refreshes: How often to try; default 3.
    :param confirm_timeout: Seconds, or a timedelta, to wait after each for the instance to come free; default 60.
    :raises ConfigurationError: both instance and item given, or neither; an unknown tool.
    :raises InstanceBlocked: it cannot be tried again, or is blocked still; never retried.
    """

    def __init__(self, *, max_refreshes: int = 3, confirm_timeout: timedelta | float = 60.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_refreshes = max_refreshes
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any]:
        self.check_instance()
        if not isinstance(self.max_refreshes, int) or self.max_refreshes < 1:
            raise ConfigurationError(f"max_refreshes must be a whole number, 1 or more; got {self.max_refreshes!r}.")
        instance_id = self.pinned_instance_id(context, "refresh")
        item_id = text_id(self.show(instance_id).get("item_id"))
        history = self._history(instance_id)
        reason = history.get("blocked_reason")
        refreshes = 0
        while rules.is_blocked(history):
            if history.get("blocked_is_retriable") is False:
                raise InstanceBlocked(f"{self._blocked(instance_id, history)} It cannot be tried again.")
            if refreshes == self.max_refreshes:
                raise InstanceBlocked(f"{self._blocked(instance_id, history)} It was tried again {refreshes} times.")
            self._refresh(instance_id)
            refreshes += 1
            history = read_until_found(partial(self._free, instance_id), self.confirm_timeout) or self._history(
                instance_id
            )
        now = rules.describe_instance(history, instance_id=instance_id, item_id=item_id)
        shown = {name: now[name] for name in ("instance_id", "item_id", "state", "step")}
        return {**shown, "project_id": self.level, "blocked_reason": reason, "refreshes": refreshes}

    def _refresh(self, instance_id: str) -> None:
        try:
            self.hook.refresh_instance(instance_id, project_id=self.level)
        except OutcomeUnknown as lost:
            self.log.warning("%s Reading whether the instance comes free.", told(lost))
        except InvalidRequest:
            if rules.is_blocked(self._history(instance_id)):  # else somebody was faster
                raise

    def _history(self, instance_id: str) -> dict[str, Any]:
        return self.hook.get_instance_history(instance_id, project_id=self.level)

    def _free(self, instance_id: str) -> dict[str, Any] | None:
        history = self._history(instance_id)
        return None if rules.is_blocked(history) else history

    @staticmethod
    def _blocked(instance_id: str, history: Mapping[str, Any]) -> str:
        more = f" See {history['blocked_learn_more_url']}." if history.get("blocked_learn_more_url") else ""
        return f"Instance {instance_id} is blocked: {history.get('blocked_reason') or 'no reason given'}.{more}"


class ProcoreAddAssigneesOperator(ProcoreInstanceOperator):
    """
    Asks more people at the step where a workflow instance stands, each of them once.

    Who is asked there already is left alone. The step occurrence is kept over retries as by
    ``ProcoreRespondOperator``.

    Returns ``{instance_id, item_id, project_id, step, step_occurrence_id, added: [ids], already_assigned: [ids]}``,
    or None with ``on_step_moved="succeed"``.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param assignees: Logins (e-mail addresses) or login information ids, one or several (templated).
    :param reason: new_employee, original_assignee_left_company, original_assignee_left_the_project,
        original_assignee_on_extended_leave, original_assignee_on_vacation or other (templated).
    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose instance is meant: the active one, else the newest (templated).
    :param step_occurrence_id: The step occurrence that they are to be asked at (templated).
    :param required: Whether the step waits for them; default True.
    :param role_type: ``responder`` or ``commenter``; default: Procore's own choice (templated).
    :param comment: A note for the history (templated).
    :param message: A message to those who are added (templated).
    :param on_step_moved: What to do when that step occurrence is over: ``fail`` (default), ``skip`` or ``succeed``
        (templated).
    :param confirm_timeout: Seconds, or a timedelta, to read on for a change whose answer was lost; default 60.
    :raises ConfigurationError: a parameter is missing or wrong, or somebody is not a possible assignee.
    :raises StepMoved: the step is over, with ``on_step_moved="fail"``; never retried.
    :raises OutcomeUnknown: the answer was lost and reading does not show them; never retried.
    """

    template_fields: Sequence[str] = (
        *ProcoreInstanceOperator.template_fields,
        "assignees",
        "reason",
        "step_occurrence_id",
        "role_type",
        "comment",
        "message",
        "on_step_moved",
    )

    def __init__(
        self,
        *,
        assignees: str | int | Sequence[str | int],
        reason: str,
        step_occurrence_id: str | int | None = None,
        required: bool = True,
        role_type: str | None = None,
        comment: str | None = None,
        message: str | None = None,
        on_step_moved: str = "fail",
        confirm_timeout: timedelta | float = 60.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.assignees = assignees
        self.reason = reason
        self.step_occurrence_id = step_occurrence_id
        self.required = required
        self.role_type = role_type
        self.comment = comment
        self.message = message
        self.on_step_moved = on_step_moved
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any] | None:
        self._check_parameters()
        pin = self.pinned(context, "add_assignees", self._given_pin(), "step_occurrence_id")
        done = Pin(task_state_store(context), "added", None)
        instance_id = (pin.value or {}).get("instance_id") or self.kept_instance_id(context)
        instance = self.show(instance_id)
        if done.value is not None:
            return done.value
        step = rules.current_step(instance)
        if pin.value is None and step is not None:
            pin.keep({"instance_id": instance_id, "step_occurrence_id": str(step["id"])})
        meant = (pin.value or {}).get("step_occurrence_id")
        if step is None or str(step["id"]) != meant:
            where = f"now stands at {step.get('name')!r} ({step['id']})" if step else "has ended"
            self.moved(
                f"Step occurrence {meant or ''} of instance {instance_id} is over; it {where}.", self.on_step_moved
            )
            return None
        wanted = self._ids(instance)
        there = rules.assignee_ids(step)
        missing = [one for one in wanted if one not in there]
        if missing:
            self._add(instance_id, str(meant), missing)
        result = {
            "instance_id": instance_id,
            "item_id": text_id(instance.get("item_id")),
            "project_id": self.level,
            "step": step.get("name"),
            "step_occurrence_id": str(meant),
            "added": missing,
            "already_assigned": [one for one in wanted if one in there],
        }
        done.keep(result)
        return result

    def _check_parameters(self) -> None:
        self.check_instance()
        check_given(self, "step_occurrence_id")
        people = listed(self.assignees)
        if not people:
            raise ConfigurationError("assignees must hold logins or ids, and not be empty.")
        for one in people:
            check_required(assignees=one)
        check_choice("reason", self.reason, rules.ADDED_ASSIGNEE_REASONS)
        if self.role_type is not None:
            check_choice("role_type", self.role_type, rules.ROLE_TYPES)
        check_choice("on_step_moved", self.on_step_moved, ON_STEP_MOVED)

    def _given_pin(self) -> dict[str, Any] | None:
        if self.step_occurrence_id is None:
            return None
        return {"instance_id": text_id(self.instance_id), "step_occurrence_id": text_id(self.step_occurrence_id)}

    def _ids(self, instance: Mapping[str, Any]) -> list[str]:
        wanted = list(dict.fromkeys(str(one).strip() for one in listed(self.assignees)))
        if all(one.isdecimal() for one in wanted):
            return wanted
        tool_type = self.tool_type or str(instance.get("tool_type"))
        tool_subtype = instance.get("tool_subtype") if self.tool_subtype is None else self.tool_subtype
        people = self.hook.list_possible_assignees(tool_type, tool_subtype=text_id(tool_subtype), project_id=self.level)
        found, unknown = rules.people_ids(people, wanted)
        if unknown:
            raise ConfigurationError(
                f"assignees: {', '.join(unknown)} can be no assignee of tool {tool_type} here. Add them to the "
                "directory with access to the tool, or correct the login."
            )
        return list(dict.fromkeys(found.values()))

    def _add(self, instance_id: str, step_occurrence_id: str, missing: list[str]) -> None:
        try:
            self.hook.add_assignees(
                instance_id,
                step_occurrence_id=step_occurrence_id,
                assignee_ids=missing,
                reason=self.reason,
                required=self.required,
                role_type=self.role_type,
                comment=self.comment,
                message=self.message,
                project_id=self.level,
            )
        except (OutcomeUnknown, ContractError) as lost:
            self.log.warning("%s Reading whether they were added.", told(lost))
            if read_until_found(partial(self._shows, instance_id, missing), self.confirm_timeout) is None:
                raise OutcomeUnknown(
                    f"{told(lost).rstrip('.')}; and reading does not show all of {', '.join(missing)}"
                ) from lost

    def _shows(self, instance_id: str, missing: list[str]) -> bool | None:
        step = rules.current_step(self.hook.get_instance(instance_id, project_id=self.level))
        return True if step is not None and set(missing) <= rules.assignee_ids(step) else None
