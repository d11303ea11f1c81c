"""Operators for Procore's Legacy Workflows (v1) API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_workflows.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    ContractError,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    ServerError,
    StepMoved,
)
from airflow_provider_workflows.operators.attachments import AttachedFile, attached_files
from airflow_provider_workflows.operators.base import Pin, WaitingOperator, read_until_found, told
from airflow_provider_workflows.operators.procore import ON_STEP_MOVED, ProcoreConnectionOperator
from airflow_provider_workflows.rules import procore_legacy as rules
from airflow_provider_workflows.rules.parameters import check_choice, check_required, listed, one_of, text_id
from airflow_provider_workflows.rules.times import parse_time
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

Json = Mapping[str, Any]

LARGEST_ATTACHMENTS = 32 * 2**20  # bytes of all files together: the form they are sent in is held in memory


class ProcoreLegacyConnectionOperator(ProcoreConnectionOperator):
    """An operator on Procore's Legacy Workflows (v1) API."""

    @cached_property
    def hook(self) -> ProcoreLegacyHook:
        from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

        return ProcoreLegacyHook(self.procore_conn_id, company_id=self.company_id, project_id=self.project_id)


class ProcoreLegacyOperator(ProcoreLegacyConnectionOperator):
    """
    An operator on one legacy workflow instance.

    :param procore_conn_id: Id of a connection of type ``procore`` (templated).
    :param company_id: Company to work in; beats the connection's (templated).
    :param project_id: Project of the object; beats the connection's (templated).
    :param instance_id: The instance (templated); or give the object.
    :param object_type: Tool or class of the object, such as ``PurchaseOrderContract`` (templated).
    :param object_id: The object whose instance is meant (templated).
    """

    template_fields: Sequence[str] = (
        *ProcoreConnectionOperator.template_fields,
        "instance_id",
        "object_type",
        "object_id",
    )

    def __init__(
        self,
        *,
        instance_id: str | int | None = None,
        object_type: str | None = None,
        object_id: str | int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.instance_id = instance_id
        self.object_type = object_type
        self.object_id = object_id

    def check_instance(self) -> None:
        """Require either an instance or an object."""
        one_of(instance_id=self.instance_id, object_id=self.object_id)
        if self.object_id is not None:
            check_required(object_type=self.object_type)

    def find_instance_id(self) -> str:
        """Return the id of the instance that is meant."""
        if self.instance_id is not None:
            return str(text_id(self.instance_id))
        return self.hook.find_instance_id(str(self.object_type), str(text_id(self.object_id)))

    def link_to(self, instance: Json) -> None:
        """Let the task link to the object in Procore."""
        self.item_url = self.hook.item_url(
            instance_id=instance["instance_id"],
            item_id=instance["object_id"],
            tool_type=instance["object_type"],
            project_id=instance["project_id"],
        )


class ProcoreLegacyPerformActivityOperator(ProcoreLegacyOperator, WaitingOperator):
    """
    Performs one activity of a legacy workflow instance, once.

    The activity belongs to one visit of a state. Give ``state_id`` and ``state_set_at`` from
    ``ProcoreLegacyInstanceSensor``; without them the state found by the first try is kept in Airflow's task
    state store (3.3+), and every retry performs the activity in that visit or not at all. An activity that
    the history already shows for this visit succeeds without writing, whoever performed it. Clearing the task
    asks for it anew, perhaps in a later visit.

    One activity need not move the state: other roles may have to act, too. With ``wait_for_state_change`` the
    task then waits, and neither its resumption nor a retry performs the activity again. For anything but the
    next state use ``ProcoreLegacyInstanceSensor`` instead.

    A try that was killed while it sent is settled by reading; if the history does not show the activity, the
    task fails with ``OutcomeUnknown`` and never sends it a second time.

    Returns ``{instance_id, object_id, object_type, project_id, activity, activity_id, role_id, history_id,
    performed_by, comments, performed_at, state_before: {id, name, status, set_at}, already_performed}``, with
    ``wait_for_state_change`` also ``state_after: {id, name, status, set_at}``, the state found when it had moved
    on; or None with ``on_state_moved="succeed"``. Hand ``history_id`` on as ``after`` of
    ``ProcoreLegacyInstanceSensor``.

    Reference: https://developers.procore.com/documentation/tutorial-workflows

    :param instance_id: The instance (templated); or give the object.
    :param object_type: Tool or class of the object, such as ``PurchaseOrderContract`` (templated).
    :param object_id: The object whose instance is meant (templated).
    :param state_id: Id of the state that the activity is meant for (templated); goes with ``state_set_at``.
    :param state_set_at: When that state was entered, as an ISO-8601 time (templated).
    :param activity: Name of the activity, in any case (templated).
    :param activity_id: Its id (templated); instead of ``activity``.
    :param role: Name or id of the role to act in (templated); needed only where an activity is open to several.
    :param performed_by: Login information id, login or e-mail address of a user of that role; default: the
        connection's own user (templated).
    :param comments: A note for the history (templated).
    :param attachments: Path, URL or ``ObjectStoragePath`` of a file to attach, or a list of them; 32 MiB in all
        at most (templated).
    :param prostore_file_ids: Ids of files to attach that Procore stores already (templated).
    :param on_state_moved: What to do when that visit of the state is over, or the instance ended, without the
        activity: ``fail`` (default), ``skip`` or ``succeed`` (templated).
    :param confirm_timeout: Seconds, or a timedelta, to read on for an activity whose answer was lost; default 60.
    :param wait_for_state_change: Wait until the state has moved on, or the instance ended; default False.
    :param wait_timeout: Seconds to wait for that, by the clock on the wall from the first try that waited;
        default 7 days.
    :param poll_interval: Seconds between two looks; by default ``[workflows] poke_interval``, else 60.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    :raises ConfigurationError: a parameter is missing or fits nothing; the candidates are listed; a file is not
        there or too large.
    :raises AirflowFailException: the state did not move on within ``wait_timeout``; never retried.
    :raises StepMoved: the visit is over, with ``on_state_moved="fail"``; never retried.
    :raises OutcomeUnknown: the answer was lost and the history does not show the activity; never retried.
    """

    template_fields: Sequence[str] = (
        *ProcoreLegacyOperator.template_fields,
        "state_id",
        "state_set_at",
        "activity",
        "activity_id",
        "role",
        "performed_by",
        "comments",
        "attachments",
        "prostore_file_ids",
        "on_state_moved",
    )

    def __init__(
        self,
        *,
        state_id: str | int | None = None,
        state_set_at: str | None = None,
        activity: str | None = None,
        activity_id: str | int | None = None,
        role: str | int | None = None,
        performed_by: str | int | None = None,
        comments: str | None = None,
        attachments: Any = None,
        prostore_file_ids: Sequence[str | int] | str | int | None = None,
        on_state_moved: str = "fail",
        confirm_timeout: timedelta | float = 60.0,
        wait_for_state_change: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.state_id = state_id
        self.state_set_at = state_set_at
        self.activity = activity
        self.activity_id = activity_id
        self.role = role
        self.performed_by = performed_by
        self.comments = comments
        self.attachments = attachments
        self.prostore_file_ids = prostore_file_ids
        self.on_state_moved = on_state_moved
        self.confirm_timeout = confirm_timeout
        self.wait_for_state_change = wait_for_state_change

    def act(self, context: Context) -> Any:
        performed = self._perform_once(context)
        if performed is None or not self.wait_for_state_change:
            return performed
        # Imported where it is needed: a DAG file is parsed far more often than anybody waits here.
        from airflow_provider_workflows.triggers.procore_legacy import ProcoreLegacyStateChangeWaitTrigger

        return self.wait(
            context,
            partial(
                ProcoreLegacyStateChangeWaitTrigger,
                procore_conn_id=self.procore_conn_id,
                company_id=text_id(self.company_id),
                project_id=text_id(self.project_id),
                instance_id=performed["instance_id"],
                visit=performed["state_before"],
                performed=performed,
            ),
        )

    def finish(self, context: Context, answer: Mapping[str, Any]) -> dict[str, Any]:
        self.log.info("%s", answer["reason"])
        result: dict[str, Any] = answer["result"]
        self.link_to(result)
        return result

    def _perform_once(self, context: Context) -> dict[str, Any] | None:
        self._check_parameters()
        visit = self.pinned(context, "visit", self._given_visit(), "state_id and state_set_at")
        # Kept beside the visit, for it is known only when the visit is: what was chosen, and whether it was sent.
        sent = Pin(task_state_store(context), "activity", None)
        # A try that sent it already sends nothing more, so the files need not be there any longer.
        files = [] if sent.value is not None and sent.value["sent"] else self._attached()
        pinned = visit.value or {"instance_id": None, "state": None}
        instance_id = pinned["instance_id"] or self.find_instance_id()
        wish = self._wish(sent)
        now, row = self._look(instance_id, pinned["state"], wish)
        self.link_to(now)
        if visit.value is None:
            visit.keep({"instance_id": instance_id, "state": rules.visit_of(now)})
        state = pinned["state"] or rules.visit_of(now)
        is_open = rules.same_visit(state, rules.visit_of(now)) and not rules.has_ended(now)
        if is_open:
            state = rules.visit_of(now)  # a given visit has no names

        if row is None and is_open and sent.value is not None and sent.value["sent"]:
            row = self._settle(instance_id, state, wish, "An earlier try was cut off while it performed the activity")
        if row is not None:
            self.log.info("The history already shows the activity for this visit of the state; nothing is sent.")
            return self._result(now, state, row, sent, already_performed=True)
        if not is_open:
            self._moved(now, state)
            return None
        activity = rules.choose_activity(now["activities"], **wish)
        return self._perform(now, state, activity, sent, files)

    def _check_parameters(self) -> None:
        self.check_instance()
        one_of(activity=self.activity, activity_id=self.activity_id)
        if self.state_id is not None or self.state_set_at is not None:
            check_required(state_id=self.state_id, state_set_at=self.state_set_at)
            if parse_time(str(self.state_set_at)) is None:
                raise ConfigurationError(f"state_set_at must be an ISO-8601 time; got {self.state_set_at!r}.")
        for name in ("role", "performed_by"):
            if getattr(self, name) is not None:
                check_required(**{name: getattr(self, name)})
        performer = str(text_id(self.performed_by))
        if self.performed_by is not None and not performer.isdecimal() and "@" not in performer:
            raise ConfigurationError(
                "performed_by must be a login information id, which is a number, or a login, which is an e-mail "
                f"address; got {self.performed_by!r}."
            )
        if not all(file_id.isdecimal() for file_id in self._stored_files()):
            raise ConfigurationError(f"prostore_file_ids must hold ids, numbers; got {self.prostore_file_ids!r}.")
        check_choice("on_state_moved", self.on_state_moved, ON_STEP_MOVED)
        self.check_wait()

    def _stored_files(self) -> list[str]:
        return [] if self.prostore_file_ids is None else [str(text_id(i)) for i in listed(self.prostore_file_ids)]

    def _attached(self) -> list[AttachedFile]:
        files = attached_files("attachments", self.attachments, largest=LARGEST_ATTACHMENTS)
        size = sum(file.size for file in files)
        if size > LARGEST_ATTACHMENTS:
            raise ConfigurationError(
                f"attachments: the files have {size} bytes together; the most is {LARGEST_ATTACHMENTS}. Store them "
                "in Procore first, and give their prostore_file_ids."
            )
        return files

    def _given_visit(self) -> dict[str, Any] | None:
        if self.state_id is None:
            return None
        state = {"id": text_id(self.state_id), "name": None, "status": None, "set_at": str(self.state_set_at)}
        return {"instance_id": text_id(self.instance_id), "state": state}

    def _wish(self, sent: Pin) -> dict[str, str | None]:
        if sent.value is not None:
            return {"activity_id": sent.value["id"], "role": sent.value["role_id"]}
        return {"name": self.activity, "activity_id": text_id(self.activity_id), "role": text_id(self.role)}

    @cached_property
    def _user_id(self) -> str:
        if self.performed_by is None:
            return self.hook.user_id
        given = str(text_id(self.performed_by))
        return given if given.isdecimal() else self.hook.find_user_id(given, parameter="performed_by")

    def _look(self, instance_id: str, state: Json | None, wish: Mapping[str, str | None]) -> tuple[dict[str, Any], Any]:
        """Return where the instance stands, and the row that shows the activity in the visit, or None."""
        now = rules.describe_instance(self.hook.get_instance(instance_id))
        histories = self.hook.list_activity_histories(instance_id)
        visit = state or rules.visit_of(now)
        return now, rules.find_performed(histories, visit=visit, instance=now, wish=wish, user_id=self._user_id)

    def _perform(
        self, now: Json, state: Json, activity: Json, sent: Pin, files: list[AttachedFile]
    ) -> dict[str, Any] | None:
        instance_id = now["instance_id"]
        wish = {"activity_id": activity["id"], "role": activity["role_id"]}
        attachments = [_content(file) for file in files]
        sent.keep({**activity, "sent": True})
        try:
            row = self.hook.perform_activity(
                instance_id,
                activity_id=str(activity["id"]),
                role_id=str(activity["role_id"]),
                performed_by=self._user_id,
                comments=self.comments,
                attachments=attachments,
                prostore_file_ids=self._stored_files(),
            )
        except (OutcomeUnknown, ContractError) as lost:
            row = self._settle(instance_id, state, wish, told(lost))
        except (AuthenticationError, ConnectionFailed, RateLimited):
            sent.keep({**activity, "sent": False})
            raise
        except ApiError as refused:
            sent.keep({**activity, "sent": False})
            # Perhaps somebody, or an earlier try of ours, was faster. The record decides.
            now, found = self._look(instance_id, state, wish)
            if found is None and isinstance(refused, ServerError):  # it may have failed after it was done
                found = read_until_found(lambda: self._look(instance_id, state, wish)[1], self.confirm_timeout)
            if found is not None:
                return self._result(now, state, found, sent, already_performed=True)
            if rules.has_ended(now) or not rules.same_visit(state, rules.visit_of(now)):
                self._moved(now, state)
                return None
            if isinstance(refused, PermissionDenied):
                raise PermissionDenied(
                    f"User {self._user_id} may not perform {activity['name']!r} as {activity['role']!r}. Give a user "
                    f"of that role in performed_by. {refused}"
                ) from refused
            raise
        self._check_attached(row, files)
        return self._result(now, state, row, sent, already_performed=False)

    def _check_attached(self, row: Json, files: list[AttachedFile]) -> None:
        shown = len(row.get("attachments") or row.get("file_attachments") or [])
        if shown < len(files):
            # Too late to fail: the activity is performed, and would not be a second time.
            self.log.warning("Procore shows %d of the %d attached files in history %s.", shown, len(files), row["id"])

    def _settle(self, instance_id: str, state: Json, wish: Mapping[str, str | None], what_happened: str) -> Any:
        """Read until the history shows the activity; nothing is ever sent after an unknown outcome."""
        self.log.warning("%s Reading whether it was performed.", what_happened)

        row = read_until_found(lambda: self._look(instance_id, state, wish)[1], self.confirm_timeout)
        if row is None:
            raise OutcomeUnknown(
                f"{what_happened.rstrip('.')}; and {self.confirm_timeout:.0f} s later the history of instance "
                f"{instance_id} shows no activity {wish['activity_id']} since {state['set_at']}"
            )
        return row

    def _moved(self, now: Json, state: Json) -> None:
        if now["terminated_at"]:
            why = f"was terminated at {now['terminated_at']}"
        elif rules.same_visit(state, rules.visit_of(now)):
            why = "has no activity left there"
        else:
            why = f"is in state {now['state']!r} since {now['state_set_at']}"
        message = (
            f"Activity {self.activity or self.activity_id} was not performed while instance {now['instance_id']} was "
            f"in state {state['name'] or state['id']!r} since {state['set_at']}, and cannot be any more: it {why}"
            f"{', with no activity left' if not now['activities'] and 'left' not in why else ''}."
        )
        if self.on_state_moved == "fail":
            raise StepMoved(f"{message} Set on_state_moved to 'skip' or 'succeed' if that is no failure.")
        self.log.info("%s", message)
        if self.on_state_moved == "skip":
            raise AirflowSkipException(message)

    def _result(self, now: Json, state: Json, row: Json, sent: Pin, *, already_performed: bool) -> dict[str, Any]:
        performed = rules.performed_activity(row)
        if row.get("performed_by_id") != self._user_id:
            self.log.warning(
                "Procore recorded activity %s as performed by user %s, not by %s.",
                performed["id"],
                row.get("performed_by_id"),
                self._user_id,
            )
        return {
            "instance_id": now["instance_id"],
            "object_id": now["object_id"],
            "object_type": now["object_type"],
            "project_id": now["project_id"],
            "activity": performed["name"] or (sent.value or {}).get("name") or self.activity,
            "activity_id": performed["id"],
            "role_id": performed["role_id"],
            "history_id": row["id"],
            "performed_by": row.get("performed_by_id"),
            "comments": row.get("comments"),
            "performed_at": row.get("created_at"),
            "state_before": dict(state),
            "already_performed": already_performed,
        }

    def _time_out(self, last_look: str) -> None:
        where = f"{self.object_type} {self.object_id}" if self.instance_id is None else f"instance {self.instance_id}"
        raise AirflowFailException(
            f"WaitFailed: the activity {self.activity or self.activity_id} of {where} was performed, but the state "
            f"has not moved on within {timedelta(seconds=self.wait_timeout)}: perhaps other roles must act, too. "
            f"It is not performed again. To wait on, use ProcoreLegacyInstanceSensor, or a longer wait_timeout. "
            f"{last_look}"
        )


class ProcoreLegacyListActivityHistoriesOperator(ProcoreLegacyOperator):
    """
    Returns the activities that were performed in a legacy workflow instance, newest first.

    Returns a list of rows as Procore gives them, ids as strings: ``{id, workflow_activity_id,
    workflow_user_role_id, performed_by_id, comments, created_at, bic_start, bic_end, attachments, ...}``; only
    newer versions of the API add names and the state. The list is sorted here, whatever order Procore has.

    Reference: https://developers.procore.com/documentation/tutorial-workflows

    :param instance_id: The instance (templated); or give the object.
    :param object_type: Tool or class of the object, such as ``PurchaseOrderContract`` (templated).
    :param object_id: The object whose instance is meant (templated).
    :raises ConfigurationError: both instance and object given, or neither.
    """

    returns_mapping = False

    def act(self, context: Context) -> list[dict[str, Any]]:
        self.check_instance()
        instance_id = self.find_instance_id()
        self.link_to(rules.describe_instance(self.hook.get_instance(instance_id)))
        return self.hook.list_activity_histories(instance_id)


def _content(file: AttachedFile) -> tuple[str, bytes, str]:
    try:
        return file.name, b"".join(file.parts(2**20)), file.content_type
    except OSError as error:
        raise ConfigurationError(f"attachments: {str(file.path)!r} cannot be read: {error}") from error
