"""The operator that performs an activity of a Procore Legacy (v1) workflow instance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_workflows.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    ResponseConflict,
    ServerError,
    StepMoved,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.files.object_storage import AttachedFile
from airflow_provider_workflows.links.airflow import ApprovalsLink
from airflow_provider_workflows.links.procore import ProcoreItemLink
from airflow_provider_workflows.operators.base import Pin, WaitingOperator
from airflow_provider_workflows.operators.procore.base import ON_STEP_MOVED
from airflow_provider_workflows.operators.procore_legacy.activity_content import (
    attachments_of,
    comment_text,
    content_of,
    count_of_files,
    stored_file_ids,
)
from airflow_provider_workflows.operators.procore_legacy.base import ProcoreLegacyOperator
from airflow_provider_workflows.operators.unknown_outcome import describe, poll_until_found, resolve_unknown_outcome
from airflow_provider_workflows.rules import procore_legacy as rules
from airflow_provider_workflows.rules import procore_legacy_history as history_rules
from airflow_provider_workflows.rules.datetimes import parse_time
from airflow_provider_workflows.rules.parameters import (
    check_choice,
    check_required,
    str_id,
)
from airflow_provider_workflows.rules.payload import documented_form, is_same_comment
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context


Json = Mapping[str, Any]

# An instance that lists no activity may be between two states. After this time without a change it has ended.
ENDED_AFTER = timedelta(minutes=10)


class ProcoreLegacyPerformActivityOperator(ProcoreLegacyOperator, WaitingOperator):
    """
    Perform one activity of a legacy workflow instance, once.

    The activity belongs to one occurrence of a state. Give ``state_id`` and ``state_set_at`` from
    ``ProcoreLegacyInstanceSensor``. Without them the task is bound to the state in which it first finds the
    activity open: Airflow's task state store (3.3+) stores that state, and every retry performs the activity in that
    occurrence or not at all. If the history already shows the activity for this occurrence, the task succeeds without
    sending anything. A row of the user counts always, a row of a colleague when the activity is no longer open to that
    role. A cleared task performs the activity again if that is possible. If not, the result is the row that this DAG
    run created before.

    One activity may not change the state, because other roles still have to act. With ``wait_for_state_change`` the
    task then waits, and neither its resumption nor a retry performs the activity again. To wait for anything but the
    next state, use ``ProcoreLegacyInstanceSensor`` instead.

    After an unknown outcome (a lost response, a 500, a try that was killed while sending) the task only reads: it
    succeeds if the history shows the activity, and otherwise fails with ``OutcomeUnknown``. Before Airflow 3.3
    a retry does not know that an earlier try was killed while sending. With ``state_id`` and ``state_set_at`` it sends
    nothing once the history shows the activity. It sends a second request if the killed one takes effect after the
    retry has read the history, or if Procore stores another user than was sent and still lists the activity as open.
    Set ``retries=0`` where that must not happen.

    Returns ``{instance_id, object_id, object_type, project_id, activity, activity_id, matched_by, role_id,
    history_id, performed_by, comments, performed_at, state_before: {id, name, status, set_at},
    already_performed}``. With ``wait_for_state_change`` also ``state_after: {id, name, status, set_at}``, the next
    state that was found, or None if the instance ended without another state, and ``terminated_at``. Returns None
    with ``on_state_moved="succeed"``. Pass ``history_id`` as ``after`` to ``ProcoreLegacyInstanceSensor``.

    Reference: https://developers.procore.com/documentation/tutorial-workflows

    :param instance_id: Id of the instance; or give the object (templated).
    :param object_type: Tool or class of the object, such as ``PurchaseOrderContract`` (templated).
    :param object_id: Id of the object of the instance (templated).
    :param state_id: Id of the state in which to perform the activity; requires ``state_set_at`` (templated).
    :param state_set_at: When the instance entered that state, as an ISO-8601 time (templated).
    :param activity: Name of the activity, in any case, or its id (templated). A name wins over an id; the log and
        ``matched_by`` say which of them matched.
    :param role: Name or id of the role to act in; required only if the activity is open to several roles (templated).
    :param performed_by: Login information id, login or e-mail address of a user of that role; default: the
        connection's own user (templated).
    :param comments: Comment for the history, a text (templated).
    :param attachments: Path, URL or ``ObjectStoragePath`` of a file to attach, or a list of them; at most 32 MiB
        in all (templated).
    :param prostore_file_ids: Ids of files to attach that Procore stores already (templated).
    :param on_state_moved: What to do if that occurrence of the state is over, or the instance ended, without the
        activity: ``fail`` (default), ``skip`` or ``succeed`` (templated).
    :param confirm_timeout: Seconds, or a timedelta, for which the task reads again after an unknown outcome, and while
        the instance lists no activity, as between two states; default 60.
    :param dry_run: Only read, and return what would be sent, as ``{dry_run: True, would_send: [{method, path,
        body}], ...}`` (templated).
    :param wait_for_state_change: Wait until the state has changed, or the instance ended; default False.
    :param wait_timeout: Seconds to wait for that, wall-clock, from the first try that waited; default 7 days.
    :param poll_interval: Seconds between two polls; by default ``[workflows] poke_interval``, else 60.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    :raises ConfigurationError: a parameter is missing; the activity cannot be performed now or is ambiguous (the
        candidates are listed); a file does not exist or is too large. The task is not bound to an occurrence of a
        state yet, and may be retried.
    :raises AirflowFailException: the state did not change within ``wait_timeout``; never retried.
    :raises StepMoved: the occurrence of the state is over, with ``on_state_moved="fail"``; never retried.
    :raises OutcomeUnknown: the outcome is unknown and the history does not show the activity, or the history does
        not show which of its rows belongs to the activity; never retried.
    :raises ResponseConflict: an earlier try performed another activity than the task requests now; never retried.
    """

    operator_extra_links = (ProcoreItemLink(), ApprovalsLink())
    label_parameters = {"object": "object_id", "instance": "instance_id"}
    template_fields: Sequence[str] = (
        *ProcoreLegacyOperator.template_fields,
        "state_id",
        "state_set_at",
        "activity",
        "role",
        "performed_by",
        "comments",
        "attachments",
        "prostore_file_ids",
        "on_state_moved",
        "dry_run",
    )

    def __init__(
        self,
        *,
        state_id: str | int | None = None,
        state_set_at: str | None = None,
        activity: str | int,
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
        self.check_wait()
        self.known = performed
        # Imported here, because DAG files are parsed far more often than a task waits.
        from airflow_provider_workflows.triggers.procore_legacy import ProcoreLegacyStateChangeWaitTrigger

        return self.wait(
            context,
            partial(
                ProcoreLegacyStateChangeWaitTrigger,
                procore_conn_id=self.procore_conn_id,
                company_id=str_id(self.company_id),
                project_id=str_id(self.project_id),
                instance_id=performed["instance_id"],
                occurrence=performed["state_before"],
                performed=performed,
            ),
        )

    def finish(self, context: Context, response: Mapping[str, Any]) -> dict[str, Any]:
        self.log.info("%s", response["reason"])
        result: dict[str, Any] = response["result"]
        self.link_to(result)
        return result

    def _perform_once(self, context: Context) -> dict[str, Any] | None:
        # The request is stored before it is sent, and binds all later tries. A choice that was not sent does not.
        sent = Pin(task_state_store(context), "activity", None)
        if sent.value is not None and sent.value["sent"]:
            return self._recover(sent.value)
        self._check_parameters()
        occurrence = self.pinned(context, "occurrence", self._requested_occurrence(), "state_id and state_set_at")
        files = attachments_of(self.attachments)
        pinned: dict[str, Any] = occurrence.value or {"instance_id": None, "state": None, "activities": None}
        instance_id = pinned["instance_id"] or self.find_instance_id()
        state = pinned["state"]
        now, histories = self._read(instance_id)
        self.link_to(now)
        shown, row, unclear = self._recorded(context, now, histories, pinned)
        # While the instance may be between two states, only a row of the user counts.
        if _is_between(now, state, histories) and (row is None or row.get("performed_by_id") != self._user_id):
            now, histories = self._read_on(instance_id, state)
            shown, row, unclear = self._recorded(context, now, histories, pinned)
        if occurrence.is_outdated or sent.is_outdated:
            return self._perform_once(context)
        if row is not None and shown is not None:
            return self._result(now, shown, row, already_performed=True)
        if unclear:
            raise OutcomeUnknown(
                f"It is unknown whether activity {self._name} was performed in this state of instance {instance_id}: "
                f"Procore does not show the activity, the role or the time of the rows {', '.join(unclear)} of its "
                "history. Nothing was sent. Give the activity and the role by their ids, if those are missing"
            )
        if now["terminated_at"] or rules.is_idle(now):
            longest_quiet = self.hook.client.server_time() - ENDED_AFTER
            if _is_between(now, state, histories) and not rules.is_quiet(now, histories, longest_quiet):
                raise WorkflowsError(
                    f"Instance {instance_id} lists no activity in state {now['state']!r}, but does not show that it "
                    "has ended: it may be between two states. Nothing was sent. A retry reads it again."
                )
            self._moved(now, state or rules.occurrence_of(now))
            return None
        has_left = state is not None and rules.has_left(state, now, histories)
        if has_left is None:
            raise UnexpectedResponse(
                f"It is unknown whether instance {instance_id} is still in the state of the activity: it shows "
                f"{now['state_set_at']!r} as the time of its state"
            )
        if has_left:
            self._moved(now, state)
            return None
        here = rules.entered_occurrence(now, histories) if state is None else _named(state, now)
        activity = self._choose(now)
        occurrence.persist({"instance_id": instance_id, "state": here, "activities": now["activities"]})
        return self._perform(now, here, activity, occurrence, sent, histories, files)

    def _check_parameters(self) -> None:
        self.check_instance()
        check_required(activity=self.activity)
        if self.state_id is not None or self.state_set_at is not None:
            check_required(state_id=self.state_id, state_set_at=self.state_set_at)
            if parse_time(str(self.state_set_at)) is None:
                raise ConfigurationError(f"state_set_at must be an ISO-8601 time; got {self.state_set_at!r}.")
        for name in ("role", "performed_by"):
            if getattr(self, name) is not None:
                check_required(**{name: getattr(self, name)})
        performer = str(str_id(self.performed_by))
        if self.performed_by is not None and not performer.isdecimal() and "@" not in performer:
            raise ConfigurationError(
                "performed_by must be a login information id, which is a number, or a login, which is an e-mail "
                f"address; got {self.performed_by!r}."
            )
        stored_file_ids(self.prostore_file_ids)
        comment_text(self.comments)
        check_choice("on_state_moved", self.on_state_moved, ON_STEP_MOVED)
        self.check_wait()

    def _requested_occurrence(self) -> dict[str, Any] | None:
        if self.state_id is None:
            return None
        state = {"id": str_id(self.state_id), "name": None, "status": None, "set_at": str(self.state_set_at)}
        return {"instance_id": str_id(self.instance_id), "state": state, "activities": None}

    def _match_activity(self, known: Iterable[Json]) -> None:
        """Decide whether ``activity`` is a name or an id, by the known activities of the instance."""
        matched = rules.requested_activity(str(str_id(self.activity)), known)
        self._matched_by = "id" if matched["name"] is None else "name"
        self._requested = {**matched, "role": str_id(self.role)}

    @cached_property
    def _user_id(self) -> str:
        if self.performed_by is None:
            return self.hook.user_id
        user = str(str_id(self.performed_by))
        return user if user.isdecimal() else self.hook.find_user_id(user, parameter="performed_by")

    def _read(self, instance_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the instance as it is, and its history, newest first."""
        now = rules.describe_instance(self.hook.get_instance(instance_id))
        return now, self.hook.list_activity_histories(instance_id)

    def _read_on(self, instance_id: str, state: Json | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Read an instance that lists no activity again for a while: it may be between two states."""
        self.log.info("Instance %s lists no activity and may be between two states. Reading it again.", instance_id)
        latest = self._read(instance_id)

        def decided() -> bool | None:
            nonlocal latest
            latest = now, histories = self._read(instance_id)
            return None if _is_between(now, state, histories) else True

        poll_until_found(decided, self.confirm_timeout)
        return latest

    def _recorded(
        self, context: Context, now: Json, histories: list[dict[str, Any]], pinned: Json
    ) -> tuple[Json | None, Json | None, tuple[str, ...]]:
        """Return the occurrence and the row that show the activity as performed, or None, and the unclear rows."""
        rows = [history_rules.performed_activity(row) for row in histories]
        self._match_activity([*now["activities"], *(pinned["activities"] or ()), *rows])
        occurrence = pinned["state"]
        if occurrence is None and not (now["terminated_at"] or rules.is_idle(now)):
            occurrence = rules.entered_occurrence(now, histories)
        found = (
            history_rules.Found(None)
            if occurrence is None
            else self._find(now, occurrence, histories, pinned["activities"])
        )
        if occurrence is not None and rules.has_left(occurrence, now, histories) is False:
            occurrence = _named(occurrence, now)
        is_open = not now["terminated_at"] and any(rules.activity_fits(a, **self._requested) for a in now["activities"])
        is_first_try = getattr(context.get("ti"), "try_number", None) == 1  # which has no earlier row
        if found.row is not None or pinned["state"] is not None or is_open or is_first_try:
            return occurrence, found.row, found.unclear
        since = getattr(context.get("dag_run"), "run_after", None)
        own = history_rules.find_own(histories, requested=self._requested, user_id=self._user_id, since=since)
        if own is None:
            return occurrence, None, found.unclear
        self.log.info(
            "Activity %s cannot be performed in state %r. Its last row in the history is by the same user and not "
            "older than this DAG run, so the task created it before it was cleared.",
            self._name,
            now["state"],
        )
        return history_rules.occurrence_of_row(own), own, ()

    @property
    def _name(self) -> str:
        """The activity as given, for messages."""
        text = str(str_id(self.activity))
        return text if text.isdecimal() else repr(text)

    def _find(self, now: Json, state: Json, histories: list[Any], activities: Any) -> history_rules.Found:
        return history_rules.find_performed(
            histories,
            occurrence=state,
            instance=now,
            requested=self._requested,
            user_id=self._user_id,
            listed=activities,
        )

    def _choose(self, now: Json) -> dict[str, Any]:
        try:
            return rules.choose_activity(now["activities"], **self._requested)
        except ConfigurationError as error:
            pending = ", ".join(str(name) for name in now["ball_in_court"]) or "unknown"
            raise ConfigurationError(
                f"{error} Instance {now['instance_id']} is in state {now['state']!r}, pending with: {pending}; the "
                f"activity would be performed by user {self._user_id}. If it opens later, wait for that with "
                "ProcoreLegacyInstanceSensor(activity=...). The task is not bound to this state."
            ) from error

    def _perform(
        self,
        now: dict[str, Any],
        state: dict[str, Any],
        activity: Json,
        occurrence: Pin,
        sent: Pin,
        histories: list[Any],
        files: list[AttachedFile],
    ) -> dict[str, Any] | None:
        instance_id = now["instance_id"]
        comments = comment_text(self.comments)
        attachments = [content_of(file) for file in files]
        now_ids = {name: now[name] for name in ("instance_id", "object_id", "object_type", "project_id")}
        record = {
            "sent": True,
            "instance": now_ids,
            "state": state,
            "activity": activity,
            "user_id": self._user_id,
            "before": [row.get("id") for row in histories if row.get("workflow_activity_id") == activity["id"]],
        }
        self.known = {
            **now_ids,
            "activity": activity["name"],
            "activity_id": activity["id"],
            "matched_by": self._matched_by,
            "role_id": activity["role_id"],
            "performed_by": self._user_id,
            "comments": comments,
            "state_before": _shown_state(state),
            "already_performed": False,
        }
        sent.persist(record)
        try:
            row = self.hook.perform_activity(
                instance_id,
                activity_id=activity["id"],
                role_id=activity["role_id"],
                performed_by=self._user_id,
                comments=comments,
                attachments=attachments,
                prostore_file_ids=stored_file_ids(self.prostore_file_ids),
            )
            if not history_rules.is_row_of(row, record):
                raise UnexpectedResponse("The response is not a new history row of this activity")
        except (OutcomeUnknown, UnexpectedResponse, ServerError) as lost:  # a failed server may have acted
            row = self._resolve(record, describe(lost))
        except (AuthenticationError, ConfigurationError, ConnectionFailed, RateLimited):
            sent.persist({"sent": False})
            raise
        except ApiError as rejected:
            sent.persist({"sent": False})
            return self._after_rejection(rejected, now, state, activity, occurrence)
        self.log.info(
            "Performed %r (matched by %s) as role %r in state %r of instance %s (%s %s) as user %s (history %s, state "
            "entered %s).",
            activity["name"],
            self._matched_by,
            activity["role"],
            state["name"],
            instance_id,
            now["object_type"],
            now["object_id"],
            self._user_id,
            row.get("id"),
            state["set_at"],
        )
        if (shown := count_of_files(row)) < len(files):
            # Too late to fail: the activity was performed, and a retry would not perform it again.
            self.log.warning(
                "Procore shows %d of the %d attached files in history %s.", shown, len(files), row.get("id")
            )
        return self._result(now, state, row, already_performed=False, sent=record)

    def _after_rejection(
        self, rejected: ApiError, now: dict[str, Any], state: dict[str, Any], activity: Json, occurrence: Pin
    ) -> dict[str, Any] | None:
        """Read the history: a colleague, or an earlier try of the task, may have been faster."""
        self.log.warning("Procore rejected activity %r. %s", activity["name"], rejected)
        try:
            now, histories = self._read(now["instance_id"])
        except ApiError as fault:
            self.log.warning("Reading instance %s failed. %s", now["instance_id"], fault)
            raise rejected from fault
        found = self._find(now, state, histories, [activity])
        if found.row is not None:
            return self._result(now, state, found.row, already_performed=True)
        if found.unclear:
            raise rejected
        if now["terminated_at"] or rules.has_left(state, now, histories):
            self._moved(now, state)
            return None
        if isinstance(rejected, PermissionDenied):
            # The user may not perform it in this occurrence, but perhaps in another one.
            occurrence.persist({"instance_id": now["instance_id"], "state": None, "activities": None})
            raise PermissionDenied(
                f"User {self._user_id} may not perform {activity['name']!r} as {activity['role']!r}. Set performed_by "
                f"to a user of that role. {rejected}"
            ) from rejected
        raise rejected

    def _resolve(self, sent: Json, what_happened: str) -> dict[str, Any]:
        """Read until the history shows the activity; send nothing after an unknown outcome."""
        activity, instance_id = sent["activity"], sent["instance"]["instance_id"]

        def read() -> Json | None:
            with documented_form():
                histories = self.hook.list_activity_histories(instance_id)
                return history_rules.find_sent(histories, sent, self._now_or_none(instance_id))

        missing = (
            f"{self.confirm_timeout:.0f} s later the history of instance {instance_id} shows no activity "
            f"{activity['id']} since {sent['state']['set_at']}. It may have been performed: {activity['name']!r} as "
            f"{activity['role']!r} by user {sent['user_id']}"
        )
        lost = OutcomeUnknown(what_happened)
        return dict(resolve_unknown_outcome(lost, read, self.confirm_timeout, missing=missing))

    def _now_or_none(self, instance_id: str) -> Json | None:
        """Return the instance as it is, or None: the history alone may show the activity, too."""
        try:
            return rules.describe_instance(self.hook.get_instance(instance_id))
        except WorkflowsError as error:
            self.log.warning("%s", error)
            return None

    def _recover(self, sent: Json) -> dict[str, Any]:
        """Find what an earlier try sent; send nothing, even if the task requests another activity now."""
        self._match_activity([sent["activity"]])
        row = self._resolve(sent, "An earlier try was interrupted while it performed the activity")
        self.link_to(sent["instance"])
        if not self._is_requested(sent):
            activity, state = sent["activity"], sent["state"]
            raise ResponseConflict(
                f"An earlier try of this task performed {activity['name']!r} as {activity['role']!r} in state "
                f"{state['name']!r} of instance {sent['instance']['instance_id']} (history {row['id']}). The task "
                f"requests activity {self._name} now. Nothing more was sent."
            )
        return self._result(sent["instance"], sent["state"], row, already_performed=True, sent=sent)

    def _is_requested(self, sent: Json) -> bool:
        """Return whether an earlier try sent what the task requests now."""
        requested, state = self._requested_occurrence(), sent["state"]
        then = {"state_id": state["id"], "state_set_at": state["set_at"]}
        if requested is not None and rules.has_left(requested["state"], then):
            return False
        if str_id(self.instance_id) not in (None, sent["instance"]["instance_id"]):
            return False
        return rules.activity_fits(sent["activity"], **self._requested)

    def _moved(self, now: Json, state: Json) -> None:
        if rules.has_ended(now, is_over=rules.is_idle(now) and now["state_id"] == state["id"]):
            why = rules.how_it_ended(now)
        else:
            why = f"has been in state {now['state']!r} since {now['state_set_at']}"
            why += "" if now["activities"] else ", without an activity"
        message = (
            f"The history shows no activity {self._name} of instance {now['instance_id']} in state "
            f"{state['name'] or state['id']!r} since {state['set_at']}, and it can no longer be performed: the "
            f"instance {why}. Nothing was sent."
        )
        if self.on_state_moved == "fail":
            raise StepMoved(f"{message} Set on_state_moved to 'skip' or 'succeed' if that is not a failure.")
        self.log.info("%s", message)
        if self.on_state_moved == "skip":
            raise AirflowSkipException(message)

    def _result(
        self, now: Json, state: Json, row: Json, *, already_performed: bool, sent: Json | None = None
    ) -> dict[str, Any]:
        performed = history_rules.performed_activity(row)
        user_id = self._user_id if sent is None else sent["user_id"]
        if already_performed:
            self.log.info(
                "The history shows activity %s (matched by %s) as performed by user %s at %s (history %s). Nothing was "
                "sent.",
                performed["name"] or performed["id"],
                self._matched_by,
                row.get("performed_by_id"),
                row.get("created_at"),
                row.get("id"),
            )
        if row.get("performed_by_id") != user_id:
            self.log.warning(
                "Procore recorded activity %s as performed by user %s instead of %s.",
                performed["id"],
                row.get("performed_by_id"),
                user_id,
            )
        elif not is_same_comment(row.get("comments"), self.comments):
            self.log.warning("History %s shows another comment than the task gives. It was not changed.", row.get("id"))
        return {
            "instance_id": now["instance_id"],
            "object_id": now["object_id"],
            "object_type": now["object_type"],
            "project_id": now["project_id"],
            "activity": performed["name"] or ((sent or {}).get("activity") or {}).get("name") or str_id(self.activity),
            "activity_id": performed["id"],
            "matched_by": self._matched_by,
            "role_id": performed["role_id"],
            "history_id": row.get("id"),
            "performed_by": row.get("performed_by_id"),
            "comments": row.get("comments"),
            "performed_at": row.get("created_at"),
            "state_before": _shown_state(state),
            "already_performed": already_performed,
        }

    def time_out(self, last_poll: str) -> NoReturn:
        where = f"{self.object_type} {self.object_id}" if self.instance_id is None else f"instance {self.instance_id}"
        raise AirflowFailException(
            f"WaitFailed: activity {self._name} of {where} was performed, but the state "
            f"did not change within {timedelta(seconds=self.wait_timeout)}: perhaps other roles still have to act. "
            f"It is not performed again. To wait longer, use ProcoreLegacyInstanceSensor, or a longer wait_timeout. "
            f"{last_poll}"
        )


def _is_between(now: Json, state: Json | None, histories: list[dict[str, Any]]) -> bool:
    """Return whether an instance lists no activity but may still be in the occurrence of the state."""
    return rules.is_idle(now) and (state is None or rules.has_left(state, now, histories) is not True)


def _named(state: Json, now: Json) -> dict[str, Any]:
    """Return the current occurrence with its names, which an occurrence given by id and time does not have."""
    return {**rules.occurrence_of(now), "set_at": state["set_at"]}


def _shown_state(state: Json) -> dict[str, Any]:
    """Return an occurrence of a state as the result shows it."""
    return {name: state.get(name) for name in ("id", "name", "status", "set_at")}
