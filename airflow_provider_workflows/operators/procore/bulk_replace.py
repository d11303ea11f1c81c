"""The operator that makes Procore replace a user everywhere, or stops such a replacement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    ServerError,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.files.object_storage import check_writable, named_write_errors, storage_path
from airflow_provider_workflows.operators.base import Pin, WaitingOperator
from airflow_provider_workflows.operators.procore.base import ProcoreWideOperator
from airflow_provider_workflows.operators.unknown_outcome import describe, poll_until_found
from airflow_provider_workflows.rules import procore_replacements as rules
from airflow_provider_workflows.rules.parameters import as_list, as_text, check_choice, check_required, str_id
from airflow_provider_workflows.rules.payload import is_id
from airflow_provider_workflows.rules.procore import COMPANY_LEVEL
from airflow_provider_workflows.rules.procore_presets import is_request
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context


ACTIONS = ("create", "stop")
REPLACEMENT_TYPES = ("permanent", "temporary")
MAX_LOGGED_FAILURES = 20


class ProcoreBulkReplaceAssigneesOperator(ProcoreWideOperator, WaitingOperator):
    """
    Make Procore replace a user in presets and running workflows, once, permanently or for some days; or stop that.

    The first try stores the request that it sends in Airflow's task state store (3.3+). If the response was lost, the
    operator polls Procore's list for the request, and never sends it again.

    Returns ``{request_id, status, errors, errors_path}``. ``errors`` is the number of failures in Procore's error list,
    or None if the list was not read, because the task does not wait or because reading failed (the log has a warning).
    The wait ends with a status that Procore documents: ``completed``, ``active``, ``expired`` (of a temporary
    replacement), or ``upcoming`` while ``first_day`` is in the future; with an unknown status it continues.

    Reference: https://developers.procore.com/reference/rest/workflows-bulk-replace-requests

    :param action: ``create`` (default) or ``stop`` (templated).
    :param request_id: The request to stop (templated).
    :param old_assignee: Login, e-mail address or id of the user to replace (templated).
    :param new_assignees: Logins, e-mail addresses or ids of the new users, one or several (templated).
    :param reason: The reason, for Procore's record (templated).
    :param replacement_type: ``permanent`` (default) or ``temporary`` (templated).
    :param first_day: First day of a temporary replacement, ``YYYY-MM-DD`` (templated).
    :param last_day: Its last day (templated).
    :param modify_project_roles: Whether to replace the user in project roles, too; default False.
    :param new_workflow_manager: Login, e-mail address or id of the new workflow manager (templated).
    :param project_ids: Only in these projects (templated); default: ``project_id`` of the task, else all projects.
    :param tools: Only for these tools: types, or ``{type, sub_type}`` (templated).
    :param wait_for_completion: Wait until Procore has made the replacement; default True.
    :param errors_path: File for Procore's error list, as CSV, in any object storage that Airflow knows (templated);
        written exactly as received, unless the list is empty.
    :param confirm_timeout: Seconds, or a timedelta, to poll for a request whose response was lost, for the stop to
        show, and for the error list to be ready; default 60.
    :param dry_run: Only read, and return what would be sent, as ``{dry_run: True, would_send: [{method, path,
        body}], ...}`` (templated).
    :param wait_timeout: Maximum seconds of the wait; default 7 days.
    :param poll_interval: Seconds between two polls; by default ``[workflows] poke_interval``, else 60.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    :raises ConfigurationError: a parameter is missing or wrong, or a user does not exist or is ambiguous.
    :raises OutcomeUnknown: the response was lost and the list shows no new request; never retried.
    :raises WorkflowsError: the request is still not stopped after ``confirm_timeout``; a retry stops it again.
    """

    template_fields_renderers = {"tools": "json"}
    label_parameters = {"request": "request_id", "assignee": "old_assignee"}
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
        "dry_run",
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
        self.first_day = first_day  # start_date is a parameter of every task
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
            return self._stop(str(str_id(self.request_id)))
        store = task_state_store(context)
        if store is None and self.retries:
            raise ConfigurationError(
                "retries must be 0 before Airflow 3.3: without its task state store a retry cannot know whether an "
                "earlier try has sent the request."
            )
        journal = Pin(store, "bulk_replace", None)
        request_id = self._created(journal) or self._create(journal)
        if not self.wait_for_completion:
            return self._result(request_id, None)
        self.known = {"request_id": request_id}
        # Imported here, because DAG files are parsed far more often than a task waits.
        from airflow_provider_workflows.triggers.procore import ProcoreBulkReplaceWaitTrigger

        return self.wait(
            context,
            partial(
                ProcoreBulkReplaceWaitTrigger,
                procore_conn_id=self.procore_conn_id,
                company_id=str_id(self.company_id),
                request_id=request_id,
                first_day=self._first_day,
            ),
        )

    def finish(self, context: Context, response: Mapping[str, Any]) -> dict[str, Any]:
        self.log.info("%s", response["reason"])
        result = self._result(response["result"]["request_id"], response["result"]["status"])
        if response["action"] == "fail":
            where = f" The error list is in {result['errors_path']}." if result["errors_path"] else ""
            raise AirflowFailException(f"WaitFailed: {response['reason']}.{where}")
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
        if not as_list(self.new_assignees):
            raise ConfigurationError("new_assignees is an empty list.")
        for user in as_list(self.new_assignees):
            check_required(new_assignees=user)
        self._check_others([str(str_id(user)) for user in (self.old_assignee, *as_list(self.new_assignees))])
        check_choice("replacement_type", self.replacement_type, REPLACEMENT_TYPES)
        if self.replacement_type == "temporary":
            check_required(first_day=self.first_day, last_day=self.last_day)
            if _day("last_day", self.last_day) < _day("first_day", self.first_day):
                raise ConfigurationError("last_day is before first_day.")
        elif self.first_day is not None or self.last_day is not None:
            raise ConfigurationError("first_day and last_day go with replacement_type='temporary'.")
        # Procore may read an empty list as all projects or tools.
        for name in ("project_ids", "tools"):
            if getattr(self, name) is not None and not as_list(getattr(self, name)):
                raise ConfigurationError(f"{name} is an empty list; leave it out to mean all.")
        for project in self._projects() or []:
            check_required(project_ids=project)
        for tool in [] if self.tools is None else as_list(self.tools):
            check_required(tools=tool)
            if not isinstance(tool, str) and not (isinstance(tool, Mapping) and tool.get("type")):
                raise ConfigurationError(f"tools must be types, or {{type, sub_type}}; got {tool!r}.")
            if isinstance(tool, Mapping) and (unknown := set(tool) - {"type", "sub_type"}):
                raise ConfigurationError(
                    f"tools: unknown key {', '.join(sorted(map(str, unknown)))}; a tool has only type and sub_type."
                )
            if isinstance(tool, Mapping) and tool.get("sub_type") is not None:
                check_required(**{"the sub_type of tools": tool["sub_type"]})
                as_text("the sub_type of tools", tool["sub_type"], is_id=True)
        if self.errors_path is not None:
            check_writable("errors_path", storage_path("errors_path", self.errors_path))

    @property
    def _first_day(self) -> str | None:
        is_temporary = self.replacement_type == "temporary"
        return _day("first_day", self.first_day).isoformat() if is_temporary else None

    @staticmethod
    def _check_others(users: Sequence[str]) -> None:
        if users[0].casefold() in [user.casefold() for user in users[1:]]:
            raise ConfigurationError(f"old_assignee and new_assignees name the same user: {users[0]}.")

    def _projects(self) -> list[Any] | None:
        """Return the projects to replace in: ``project_ids``, else the task's ``project_id``, else None for all."""
        projects = self.project_id if self.project_ids is None else self.project_ids
        return None if projects in (None, COMPANY_LEVEL) else as_list(projects)

    def _created(self, journal: Pin) -> str | None:
        """Return the request that an earlier try sent, or None if it sent none."""
        if journal.value is None or not journal.value["sent"]:
            return None
        if journal.value["request_id"] is not None:
            request_id = str(journal.value["request_id"])
            self.log.info("An earlier try of this task has sent request %s; nothing is sent.", request_id)
            return request_id
        return self._resolve(journal, "An earlier try was interrupted while it sent the request")

    def _create(self, journal: Pin) -> str:
        request = self._request()
        before = [str(row["id"]) for row in self._requests()]
        stored = {"before": before, "request": request, "sent": True, "request_id": None}
        journal.persist(stored)
        try:
            request_id = self.hook.create_bulk_replace_request(request).get("bulk_replace_request_id")
        except (OutcomeUnknown, UnexpectedResponse, ServerError) as lost:
            return self._resolve(journal, describe(lost))
        except ApiError:
            journal.persist({**stored, "sent": False})
            raise
        if not is_id(request_id):
            return self._resolve(journal, "Procore accepted the request without returning its id")
        return self._made(journal, str(request_id))

    def _made(self, journal: Pin, request_id: str) -> str:
        stored = journal.value or {}
        journal.persist({**stored, "request_id": request_id})
        request = stored["request"]
        days = f" from {request['start_date']} to {request['end_date']}" if "start_date" in request else ""
        self.log.info(
            "Requested the %s replacement of user %s by %s%s as user %s: request %s.",
            *(request["replacement_type"], request["old_assignee_id"], ", ".join(request["new_assignee_ids"])),
            *(days, self.hook.user_id, request_id),
        )
        return request_id

    def _resolve(self, journal: Pin, what_happened: str) -> str:
        """Poll for a new request in Procore's list; the task sends none after an unknown outcome."""
        self.log.warning("%s Polling the list of requests for it.", what_happened)
        stored = journal.value or {}
        found: dict[str, bool | None] = {}

        def read() -> list[str] | None:
            new = (row for row in self._requests() if str(row["id"]) not in stored["before"])
            found.update({str(row["id"]): self._is_own(row, stored["request"]) for row in new})
            return [request_id for request_id, is_own in found.items() if is_own] or None

        new = poll_until_found(read, self.confirm_timeout) or []
        if len(new) != 1:
            candidates = ", ".join(request_id for request_id, is_own in found.items() if is_own is not False)
            shown = f"shows several or uncertain candidates: {candidates}" if candidates else "shows no new request"
            raise OutcomeUnknown(
                f"{what_happened.rstrip('.')}; and {self.confirm_timeout:.0f} s later the list {shown}"
            )
        return self._made(journal, new[0])

    def _request(self) -> dict[str, Any]:
        request: dict[str, Any] = {
            "replacement_type": self.replacement_type,
            "old_assignee_id": self._user_id("old_assignee", self.old_assignee),
            "new_assignee_ids": [self._user_id("new_assignees", user) for user in as_list(self.new_assignees)],
            "modify_project_roles": self.modify_project_roles,
            "reason": self.reason,
        }
        self._check_others([request["old_assignee_id"], *request["new_assignee_ids"]])
        if self.new_workflow_manager is not None:
            request["new_workflow_manager_id"] = self._user_id("new_workflow_manager", self.new_workflow_manager)
        if self.replacement_type == "temporary":
            request["start_date"] = self._first_day
            request["end_date"] = _day("last_day", self.last_day).isoformat()
        if (projects := self._projects()) is not None:
            request["project_ids"] = [str(str_id(project)) for project in projects]
        if self.tools is not None:
            tools = [{"type": tool} if isinstance(tool, str) else tool for tool in as_list(self.tools)]
            request["tools"] = [
                {name: str(str_id(value)) for name, value in tool.items() if value is not None} for tool in tools
            ]
        return request

    def _user_id(self, parameter: str, user: Any) -> str:
        return self.hook.find_user_id(str(user), parameter=parameter)

    def _requests(self) -> Iterator[dict[str, Any]]:
        """List all requests: Procore does not document the filters for several users, nor whether it applies them."""
        return (row for row in self.hook.list_bulk_replace_requests() if is_id(row.get("id")))

    def _is_own(self, row: Mapping[str, Any], request: Mapping[str, Any]) -> bool | None:
        """Return whether a row is the request that was sent; None if the row does not show it."""
        is_own = is_request(row, request, self.hook.user_id)
        if is_own is None:  # the request, read by its id, may show more
            try:
                shown = self.hook.get_bulk_replace_request(str(row["id"]))
            except ApiError as fault:
                self.log.warning("%s Comparing request %s by its row only.", describe(fault), row["id"])
                return None
            is_own = is_request({**row, **shown}, request, self.hook.user_id)
        return is_own

    def _stop(self, request_id: str) -> dict[str, Any]:
        status = self._status(request_id)
        if status in rules.OVER:
            self.log.info("Request %s is %s; nothing is sent.", request_id, status)
            return self._result(request_id, status)
        self.known = {"request_id": request_id, "status": status}
        unclear: ApiError | None = None
        try:
            self.hook.stop_bulk_replace_request(request_id)
        except (AuthenticationError, RateLimited):
            raise
        except ApiError as fault:  # also a rejection: an earlier attempt with a lost response may have stopped it
            self.log.warning("%s Polling whether request %s is stopped.", describe(fault), request_id)
            unclear = fault
        last: str | None = status

        def is_over() -> str | None:
            nonlocal last
            try:
                last = self._status(request_id)
            except NotFound:
                if unclear is None:
                    return "stopped"  # the request existed, and Procore accepted the stop
                raise
            return last if last in rules.OVER else None

        over = poll_until_found(is_over, self.confirm_timeout)
        if over is None:
            if unclear is not None:
                raise unclear
            raise WorkflowsError(
                f"Procore accepted the stop of request {request_id}, but {self.confirm_timeout:.0f} s later it is "
                f"{last}. Check it in Procore; a retry stops it again."
            )
        if over == "stopped":
            self.log.info("Stopped request %s as user %s.", request_id, self.hook.user_id)
        else:
            self.log.warning("Request %s is %s: it ended before it could be stopped.", request_id, over)
        return self._result(request_id, over)

    def _status(self, request_id: str) -> str | None:
        return rules.status_of(self.hook.get_bulk_replace_request(request_id))

    def _result(self, request_id: str, status: str | None) -> dict[str, Any]:
        report = None if status is None else self._report(request_id)
        failures = None if report is None else rules.failures_in(report)
        is_stored = report is not None and self.errors_path is not None and not rules.is_empty(report)
        path = self._write(report) if report is not None and is_stored else None
        if failures:
            shown = "\n".join(", ".join(row) for row in failures[:MAX_LOGGED_FAILURES])
            self.log.warning(
                "Procore could not make all replacements; its error list has %d failure(s):\n%s", len(failures), shown
            )
        errors = None if failures is None else len(failures)
        return {"request_id": request_id, "status": status, "errors": errors, "errors_path": path}

    def _report(self, request_id: str) -> bytes | None:
        """Return Procore's error list, or None if it cannot be read, which is no failure of the replacement."""

        def read() -> tuple[bytes | None] | None:
            try:
                report = self.hook.get_bulk_replace_errors(request_id)
            except NotFound:
                return (b"",)  # Procore does not document whether a request without errors has an empty list
            except WorkflowsError as fault:
                self.log.warning(
                    "%s Reading the error list of request %s failed: the number of errors is unknown.",
                    describe(fault),
                    request_id,
                )
                return (None,)
            return None if report is None else (report,)

        found = poll_until_found(read, self.confirm_timeout)
        if found is None:
            self.log.warning(
                "After %.0f s Procore still prepares the error list of request %s: the number of errors is unknown.",
                *(self.confirm_timeout, request_id),
            )
            return None
        return found[0]

    def _write(self, errors: bytes) -> str:
        file = storage_path("errors_path", self.errors_path)
        with named_write_errors("errors_path", file):
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as stream:
                stream.write(errors)
        return str(file)


def _day(parameter: str, value: Any) -> date:
    if isinstance(value, date):
        return value.date() if isinstance(value, datetime) else value
    try:
        return date.fromisoformat(str(value).strip())
    except ValueError:
        raise ConfigurationError(f"{parameter} must be a date, YYYY-MM-DD; got {str(value)!r}.") from None
