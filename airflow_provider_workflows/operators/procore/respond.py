"""The operator that responds to a step of a Procore workflow instance (Workflows v2), exactly once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import OutcomeUnknown, WorkflowsError
from airflow_provider_workflows.files.object_storage import AttachedFile, attached_files
from airflow_provider_workflows.links.airflow import run_footer, with_footer
from airflow_provider_workflows.operators.base import Pin
from airflow_provider_workflows.operators.procore.base import (
    ACCEPTED,
    ON_STEP_MOVED,
    SERVER_FAILED,
    UNKNOWN,
    ProcoreInstanceOperator,
)
from airflow_provider_workflows.operators.procore.step_response import StepResponder, View
from airflow_provider_workflows.operators.procore.uploads import FileUploads
from airflow_provider_workflows.operators.unknown_outcome import describe
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules import procore_responses as response_rules
from airflow_provider_workflows.rules.parameters import (
    check_choice,
    check_optional,
    require_exactly_one,
    str_id,
)
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

UPLOAD_PART = 16 * 2**20  # bytes; Procore takes parts of 5 to 100 MiB
MAX_PARTS = 10_000
MAX_FILE_BYTES = UPLOAD_PART * MAX_PARTS  # bytes


class ProcoreRespondOperator(ProcoreInstanceOperator, StepResponder):
    """
    Respond to one step occurrence of a workflow instance as the connection's user, once.

    The response belongs to one step occurrence. Give ``step_occurrence_id`` from ``ProcoreResponseRequestedSensor``.
    Without it, the first try that finds the step waiting for the user stores the step occurrence in Airflow's task
    state store (3.3+), and every retry responds to that occurrence or to none. A retry that finds the same option
    recorded succeeds without sending. A cleared task decides again: it may respond to a later occurrence.

    Returns ``{instance_id, item_id, project_id, step, step_occurrence_id, option, option_id, type, matched_by, comment,
    user_id, already_recorded, confirmed}``, or None with ``on_step_moved="succeed"``. ``matched_by`` says
    how the option was found: ``label``, ``id`` or ``type``. ``already_recorded`` is False where this try has sent the
    response and Procore accepted it. It does not pick a winner: if two tasks send the same response at the same moment,
    both may return False. ``confirmed`` is False where Procore accepted the response (204), but the record does not
    show it, as far as the user may read it.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance to respond to (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose active instance to respond to (templated).
    :param step_occurrence_id: The step occurrence to respond to (templated).
    :param option: Label of the response option, in any case, or its id; a label wins over an id (templated).
    :param option_type: Its type, such as ``approve`` (templated); instead of ``option``.
    :param comment: Comment of the response (templated).
    :param comment_footer: Whether to end the comment with the names of the DAG, the run and the task, and with a link
        to them if ``[api] base_url`` is set; default False. The first try that sends the response fixes this text for
        all tries. All who see the response in Procore see it.
    :param attachments: Ids of what is already in Procore, by kind, such as ``{"file_version_ids": ["1"]}``: kinds
        prostore_file_ids, drawing_revision_ids, file_version_ids, form_ids, image_ids, upload_ids (templated).
    :param files: Paths or URLs of files to upload and attach, one or several, on the worker or in any object
        storage that Airflow knows (templated).
    :param on_step_moved: What to do when the step occurrence is over, or the instance has ended, without a response of
        the user: ``fail`` (default), ``skip`` or ``succeed`` (templated).
    :param confirm_timeout: Seconds, or a timedelta, to poll for the response after it was sent; default 60.
    :param dry_run: Only read, and return what would be sent, as ``{dry_run: True, would_send: [{method, path,
        body}], ...}`` (templated).
    :raises ConfigurationError: a parameter is missing or matches nothing; the step does not wait for the user.
    :raises ResponseConflict: the user has given another response to the step occurrence, or one that cannot be compared
        with this one; never retried.
    :raises StepMoved: the step is over, with ``on_step_moved="fail"``; never retried.
    :raises OutcomeUnknown: the response may have been recorded, and the record does not show it; never retried.
    """

    template_fields: Sequence[str] = (
        *ProcoreInstanceOperator.template_fields,
        "step_occurrence_id",
        "option",
        "option_type",
        "comment",
        "attachments",
        "files",
        "on_step_moved",
    )
    template_fields_renderers = {"attachments": "json"}

    def __init__(
        self,
        *,
        step_occurrence_id: str | int | None = None,
        option: str | int | None = None,
        option_type: str | None = None,
        comment: str | None = None,
        comment_footer: bool = False,
        attachments: Mapping[str, Sequence[str]] | None = None,
        files: Any = None,
        on_step_moved: str = "fail",
        confirm_timeout: timedelta | float = 60.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.step_occurrence_id = step_occurrence_id
        self.option = option
        self.option_type = option_type
        self.comment = comment
        self.comment_footer = comment_footer
        self.attachments = attachments
        self.files = files
        self.on_step_moved = on_step_moved
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any] | None:
        self._check_parameters()
        pin, by_item = self.read_pins(context)
        instance_id, occurrence_id = self.target(pin, by_item)
        outcome = None if occurrence_id is None else self._earlier_choice(occurrence_id).get("outcome")
        if outcome == ACCEPTED:
            return self._accepted_before(instance_id, str(occurrence_id))
        is_sent = outcome in (UNKNOWN, SERVER_FAILED)
        if is_sent:
            view = self._view_after_sending(instance_id, str(occurrence_id))
        else:
            view = self.first_view(instance_id, occurrence_id)
        if pin.is_outdated:
            return self.act(context)
        if view.occurrence_id is None or (view.recorded is None and not view.is_current):
            self.moved(self._over(view, instance_id), self.on_step_moved)
            return None
        if view.recorded is None:
            if not is_sent:  # else Procore may have recorded it without showing it
                self.check_pending(view)
            with self._outcome_unknown(outcome == UNKNOWN, view):
                chosen = response_rules.choose_option(rules.response_options(view.step or {}), **self._requested())
                files = attached_files("files", self.files, largest=MAX_FILE_BYTES)
        # Only now it is certain that this step occurrence waits for the user's response.
        self.bind(pin, by_item, instance_id, view)
        if view.recorded is not None:
            return self.already_recorded(view, instance_id, is_outcome_unknown=is_sent)
        at = {"step": (view.step or {}).get("name"), "item_id": str_id(view.instance.get("item_id"))}
        footer = self._earlier_choice(view.occurrence_id).get("footer", self._footer)
        chosen = {**chosen, **at, "step_occurrence_id": view.occurrence_id, "footer": footer}
        response = {**chosen, "comment": with_footer(self.comment, footer)}
        self.known = self._result(view, instance_id, response, already_recorded=False, confirmed=False)
        with self._outcome_unknown(outcome == UNKNOWN, view):
            request = self._request(instance_id, chosen, files)
        return self._respond(request, instance_id, chosen, is_outcome_unknown=outcome == UNKNOWN)

    def read_pins(self, context: Context) -> tuple[Pin, Pin]:
        """Read what earlier tries have stored; return the pins of the step occurrence and of the item's instance."""
        pin = self.pinned(context, "respond", self._requested_pin(), "step_occurrence_id")
        self._store = task_state_store(context)
        self._stored = Pin(self._store, "chosen_option", None)
        self._footer = run_footer(context) if self.comment_footer else None
        # If only the step occurrence is given, the item may have another instance at the next try.
        return pin, Pin(self._store, "instance", None)

    def target(self, pin: Pin, by_item: Pin) -> tuple[str, str | None]:
        """Return the ids of the instance and of the step occurrence to respond to; None if none was given or stored."""
        bound = {**(by_item.value or {}), **{name: value for name, value in (pin.value or {}).items() if value}}
        return str(bound.get("instance_id") or self.find_instance_id()), bound.get("step_occurrence_id")

    @staticmethod
    def bind(pin: Pin, by_item: Pin, instance_id: str, view: View) -> None:
        """Bind all further tries to the step occurrence of a view; call it once that is certainly the right one."""
        if pin.value is None:
            pin.persist({"instance_id": instance_id, "step_occurrence_id": view.occurrence_id})
        elif not pin.value.get("instance_id") and by_item.value is None:
            by_item.persist({"instance_id": instance_id})

    @contextlib.contextmanager
    def _outcome_unknown(self, is_outcome_unknown: bool, view: View) -> Iterator[None]:
        """Raise an error of this try as an unknown outcome if an earlier try has sent a response."""
        try:
            yield
        except WorkflowsError as error:
            if not is_outcome_unknown:
                raise
            raise OutcomeUnknown(
                f"An earlier try of this task has sent a response to step occurrence {view.occurrence_id}, "
                f"{self._no_record(view)}, and it cannot be sent again: {describe(error).rstrip('.')}"
            ) from error

    def _check_parameters(self) -> None:
        self.check_instance()
        require_exactly_one(option=self.option, option_type=self.option_type)
        check_optional(self, "step_occurrence_id")
        check_choice("on_step_moved", self.on_step_moved, ON_STEP_MOVED)
        rules.attachment_ids(self.attachments)

    def _requested_pin(self) -> dict[str, Any] | None:
        if self.step_occurrence_id is None:
            return None
        return {
            "instance_id": str_id(self.instance_id),
            "step_occurrence_id": str_id(self.step_occurrence_id),
        }

    def first_view(self, instance_id: str, occurrence_id: str | None) -> View:
        """Read the instance before the task decides anything; poll it while it is between two steps."""
        view = self.at_a_step(instance_id, partial(self.view, instance_id, occurrence_id), lambda view: view.is_between)
        if view.unreadable is not None:
            raise view.unreadable
        return view

    def _request(self, instance_id: str, chosen: Mapping[str, Any], files: list[AttachedFile]) -> Callable[[], None]:
        """Upload the files, and return a function that sends the response."""
        attachments = rules.attachment_ids(self.attachments)
        if files:
            uploads = FileUploads(self.hook, self.level, self._store, UPLOAD_PART)
            uploaded = [self._upload(uploads, file) for file in files]
            attachments["upload_ids"] = [*attachments.get("upload_ids", []), *uploaded]
        return self.build_request(instance_id, chosen, attachments)

    def _upload(self, uploads: FileUploads, file: AttachedFile) -> str:
        """Upload a file and return the id of the upload, which does not exist in a dry run."""
        with self.continuing_dry_run():
            return uploads.upload(file)
        return f"<id of the upload of {file.name}>"
