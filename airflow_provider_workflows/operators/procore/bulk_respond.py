"""The operator that responds to the steps of many Procore workflow instances (Workflows v2): plan, approval, apply."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import (
    TRANSIENT_ERRORS,
    ConfigurationError,
    OutcomeUnknown,
    ResponseConflict,
    ResponsesUnfinished,
    WorkflowsError,
)
from airflow_provider_workflows.files.object_storage import check_writable, named_write_errors, storage_path
from airflow_provider_workflows.files.table_writer import replace_files
from airflow_provider_workflows.operators.base import Progress, WritingOperator
from airflow_provider_workflows.operators.procore.base import ACCEPTED, DONE, NOT_ACCEPTED, ProcoreWideOperator
from airflow_provider_workflows.operators.procore.bulk_instances import CONCERNS_ALL, BulkInstanceReader, Place
from airflow_provider_workflows.operators.procore.bulk_journal import ResponseJournal
from airflow_provider_workflows.operators.procore.bulk_row import REPORTED, RowPin, RowResponder, RowSkipped
from airflow_provider_workflows.operators.procore.step_response import View
from airflow_provider_workflows.operators.unknown_outcome import describe, poll_until
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules import procore_bulk_responses as bulk_rules
from airflow_provider_workflows.rules import procore_responses as response_rules
from airflow_provider_workflows.rules.parameters import check_choice, check_optional, str_id
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_provider_workflows.rules.procore_bulk_responses import RequestedResponse

MODES = ("plan", "apply")
DEFAULT_MAX_RESPONSES = 100
# Responses that fail; each can take as long as confirm_timeout, and so many do not fail for a reason of their own.
MAX_CONSECUTIVE_FAILURES = 5
MAX_CONSECUTIVE_REJECTIONS = 20
UNSENT = (None, NOT_ACCEPTED)  # outcomes of a row that was not sent, or that Procore rejected


class ProcoreBulkRespondOperator(ProcoreWideOperator, WritingOperator):
    """
    Respond to the steps of many workflow instances as the connection's user, each once.

    With ``mode="plan"`` the operator only reads, and returns what it would send to what, what it would skip and why,
    and a hash of all that it would send. With ``mode="apply"`` it sends exactly that plan: the one of an earlier task
    (``plan``), the one with a given hash (``plan_hash``), or without both the one that it makes itself. A person can
    approve the plan in between.

    Each response belongs to the step occurrence of the plan and is sent once. The operator stores the plan and the
    outcome of each row in Airflow's task state store (3.3+), so that a retry continues where the try before it ended. A
    failed row concerns only itself; the task fails at its end. The operator stays within Procore's rate limit, and
    waits for it for up to an hour.

    With ``plan`` it returns ``{mode, plan_hash, company_id, user_id, to_send, skipped, totals, csv_path, options,
    rows}``, where ``skipped`` counts the rows of each reason. With ``apply`` it returns ``{mode, plan_hash, sent,
    already_recorded, skipped, failed, unknown, unconfirmed, totals, csv_path, rows}``. A row is ``{row, action, status,
    skipped, reason, project_id, tool_type, tool_subtype, item_id, instance_id, step, step_occurrence_id, response,
    option, option_id, type, matched_by, comment, confirmed, columns, options}``: ``action`` is ``send`` or ``skip``;
    ``status`` is ``sent``, ``already_recorded``, ``skipped``, ``failed`` or ``unknown``, and None in a plan;
    ``skipped`` is ``not_pending``, ``moved_on``, ``ended``, ``between_steps``, ``unknown_option``,
    ``already_responded``, ``duplicate`` or ``unreadable``, else None. ``confirmed`` is False where Procore accepted the
    response (204), but the record does not show it, as far as the user may read it.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param responses: A mapping of instance ids to responses, a list of rows, or a data frame of pandas or
        polars (templated). A row has ``response`` (label or id of the option) and ``instance_id`` or ``item_id``. It
        may have ``project_id``, ``tool_type``, ``tool_subtype``, ``comment``, the expected ``step`` or
        ``step_occurrence_id``, and any other columns with single values. Rows of ``ProcoreResponseRequestedSensor``
        have most of these.
    :param mode: ``plan`` (default) only reads; ``apply`` sends (templated).
    :param plan: With ``apply``, instead of ``responses``: the result of a task with ``mode="plan"`` (templated).
    :param plan_hash: With ``apply``: the hash of the approved plan. If the plan has another one, nothing is
        sent (templated).
    :param tool_type: Tool of the rows that name none; needed for rows with ``item_id`` (templated).
    :param tool_subtype: Its subtype; needed for correspondence (templated).
    :param project_id: Project of the rows that name none; default: where the tool is, else that of the
        connection (templated).
    :param max_responses: Maximum number of responses to send; default 100. A plan with more of them fails.
    :param max_total: Maximum total of columns with amounts, such as ``{"amount": 100000}``: of all rows that are sent,
        without their signs, exactly. Every row must have the amount.
    :param csv_path: File for the plan, or for the result, as CSV, in any object storage that Airflow knows (templated).
    :param confirm_timeout: Seconds, or a timedelta, to poll for the responses after they were sent; default 60.
    :param dry_run: Only read, and return with ``apply`` what would be sent, as ``{dry_run: True, would_send: [{method,
        path, body}], ...}``, where the rows that would be sent have no status (templated).
    :raises ConfigurationError: a row or a parameter is malformed, a cap is exceeded, or the plan is not the approved
        one; nothing was sent.
    :raises ResponsesUnfinished: after the other rows, some failed or have an unknown outcome; a retry sends only the
        failed ones.
    :raises OutcomeUnknown: the outcome of some responses is unknown, and nothing else failed; never retried.
    :raises ResponseConflict: the user has given other responses than requested, and nothing else failed; never retried.
    """

    template_fields: Sequence[str] = (
        *ProcoreWideOperator.template_fields,
        "responses",
        "mode",
        "plan",
        "plan_hash",
        "tool_type",
        "tool_subtype",
        "csv_path",
        "dry_run",
    )

    def __init__(
        self,
        *,
        responses: Any = None,
        mode: str = "plan",
        plan: Any = None,
        plan_hash: str | None = None,
        tool_type: str | None = None,
        tool_subtype: str | int | None = None,
        max_responses: int = DEFAULT_MAX_RESPONSES,
        max_total: Mapping[str, Any] | None = None,
        csv_path: Any = None,
        confirm_timeout: timedelta | float = 60.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.responses = responses
        self.mode = mode
        self.plan = plan
        self.plan_hash = plan_hash
        self.tool_type = tool_type
        self.tool_subtype = tool_subtype
        self.max_responses = max_responses
        self.max_total = max_total
        self.csv_path = csv_path
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any]:
        requested = self._checked_parameters()
        self.hook.client.use_whole_rate_limit()
        self._fresh: set[int] = set()  # rows that this try has seen waiting for the user
        if self.mode == "plan":
            plan = self._planned(requested)
            self._check_plan(plan)
            return {"mode": self.mode, **plan, "csv_path": self._write_csv(plan["rows"])}
        journal = self._journal(context, requested)
        if (stored := journal.plan()) is not None:
            if self.plan_hash not in (None, stored["plan_hash"]):
                raise ConfigurationError(
                    f"An earlier try of this task applies the plan {stored['plan_hash']}, and plan_hash is "
                    f"{self.plan_hash}. Clear the task to apply another plan."
                )
            plan = stored
            if self.plan is None and self.plan_hash is None and (unread := _unread(stored)):
                plan = self._planned_on(stored, [request for request in requested if request.row in unread])
                self._check_plan(plan)
                journal.persist_plan(plan)
        else:
            plan = self._planned(requested) if self.plan is None else self._approved_plan()
            self._check_plan(plan)
            self._write_csv(plan["rows"])  # also to find out whether the path can be written to
            if journal.is_outdated:
                return self.act(context)
            journal.persist_plan(plan)
        try:
            self._apply(plan, journal)
        finally:
            journal.flush()
            self.log.info(
                "%s:\n%s", "Plan" if self.has_unsent_calls else "Done", bulk_rules.table_of(plan["rows"], self._caps)
            )
        csv_path = self._write_csv(plan["rows"])
        self._check_outcome(plan["rows"])
        return self._result(plan, csv_path)

    def _checked_parameters(self) -> list[RequestedResponse]:
        check_choice("mode", self.mode, MODES)
        check_optional(self, "project_id", "plan_hash", "tool_type", "tool_subtype")
        self._caps = bulk_rules.checked_caps(self.max_responses, self.max_total)
        if self.csv_path is not None:
            check_writable("csv_path", storage_path("csv_path", self.csv_path))
        if self.mode == "plan" and not (self.plan is self.plan_hash is None):
            raise ConfigurationError("plan and plan_hash go with mode='apply'.")
        if (self.responses is None) == (self.plan is None):
            raise ConfigurationError(
                "Give exactly one of responses, plan (with mode='apply'); got "
                f"{'none' if self.plan is None else 'both'}."
            )
        requested = [] if self.responses is None else bulk_rules.requested_responses(self.responses)
        if without := [
            row.row for row in requested if row.instance_id is None and not (row.tool_type or self.tool_type)
        ]:
            raise ConfigurationError(f"responses, row {without[0]}: a row with item_id needs tool_type.")
        bulk_rules.totals(((row.row, row.columns) for row in requested), self._caps)
        return requested

    def _journal(self, context: Context, requested: Iterable[RequestedResponse]) -> ResponseJournal:
        store = task_state_store(context)
        if store is None and self.retries and any(row.step_occurrence_id is None for row in requested):
            raise ConfigurationError(
                "retries must be 0 before Airflow 3.3: without its task state store a retry could respond to another "
                "occurrence of a step. Give each row its step_occurrence_id, or apply the plan of an earlier task."
            )
        return ResponseJournal(store)

    # --- the plan ---

    def _planned(self, requested: Sequence[RequestedResponse]) -> dict[str, Any]:
        """Read where all instances stand, and decide what to send."""
        places = [self._place(row) for row in requested]
        reader = BulkInstanceReader(self.hook, self.log)
        waiting = reader.waiting(places)
        rows, options = [], []
        progress = Progress("rows planned", len(requested))
        for request, place in progress.of(zip(requested, places, strict=True)):
            row = _new_row(request, place)
            rows.append(row)
            error: WorkflowsError | None = None
            try:
                view = self._view(row, waiting.get(place.row), reader)
                available = self._decide(row, request, view, reader)
            except WorkflowsError as unreadable:
                row.update(skipped=bulk_rules.UNREADABLE, reason=describe(unreadable))
                error = unreadable
            else:
                if available is not None:
                    options += [] if available in options else [available]
                    row.update(action=bulk_rules.SEND, options=options.index(available))
            reader.check_server(error)
        bulk_rules.mark_duplicates(rows)
        self._fresh = {row["row"] for row in rows}
        return self._plan_of(rows, options)

    def _planned_on(self, stored: Mapping[str, Any], unread: Sequence[RequestedResponse]) -> dict[str, Any]:
        """Return a stored plan in which the rows that an earlier try could not read are decided; the others stay."""
        planned = self._planned(unread)
        first = {row["instance_id"]: row["row"] for row in stored["rows"] if row["action"] == bulk_rules.SEND}
        for row in planned["rows"]:
            if row["action"] == bulk_rules.SEND:
                row["options"] += len(stored["options"])
                if (number := first.get(row["instance_id"])) is not None:
                    reason = f"row {number} is of instance {row['instance_id']}, too, and was planned before"
                    row.update(action=bulk_rules.SKIP, skipped=bulk_rules.DUPLICATE, reason=reason)
        rows = {row["row"]: row for row in planned["rows"]}
        options = [*stored["options"], *planned["options"]]
        return self._plan_of([rows.get(row["row"], row) for row in stored["rows"]], options)

    def _plan_of(self, rows: list[dict[str, Any]], options: list[Any]) -> dict[str, Any]:
        sent = [row for row in rows if row["action"] == bulk_rules.SEND]
        company_id, user_id = self.hook.company_id, self.hook.user_id
        totals = bulk_rules.totals(((row["row"], row["columns"]) for row in sent), self._caps)
        return {
            "plan_hash": bulk_rules.plan_hash(company_id, user_id, rows),
            "company_id": company_id,
            "user_id": user_id,
            "to_send": len(sent),
            "skipped": bulk_rules.counts(rows, "skipped"),
            "totals": {column: f"{total:f}" for column, total in totals.items()},
            "options": options,
            "rows": rows,
        }

    def _approved_plan(self) -> dict[str, Any]:
        plan = bulk_rules.checked_plan(self.plan, self.hook.company_id, self.hook.user_id)
        return self._plan_of(plan["rows"], plan["options"])

    def _check_plan(self, plan: Mapping[str, Any]) -> None:
        """Log the plan, and check it against the approved hash and the caps."""
        self.log.info(
            "Plan %s: %d of %d rows are sent as user %s. %s\n%s",
            *(plan["plan_hash"], plan["to_send"], len(plan["rows"]), plan["user_id"]),
            *(plan["totals"] or "", bulk_rules.table_of(plan["rows"], self._caps)),
        )
        if self.plan_hash not in (None, plan["plan_hash"]):
            raise ConfigurationError(
                f"The plan has the hash {plan['plan_hash']}, and plan_hash is {self.plan_hash}: it would send other "
                "responses than the approved plan. Nothing was sent. Make a new plan and have it approved."
            )
        bulk_rules.check_caps(plan, self.max_responses, self._caps)

    def _place(self, row: RequestedResponse) -> Place:
        tool_type = row.tool_type or self.tool_type
        return Place(
            row=row.row,
            level=self.hook.level_for(row.project_id or self.project_id, tool_type),
            instance_id=row.instance_id,
            item_id=row.item_id,
            tool_type=tool_type,
            tool_subtype=row.tool_subtype or str_id(self.tool_subtype),
            occurrence_id=row.step_occurrence_id,
        )

    def _view(self, row: dict[str, Any], waiting: dict[str, Any] | None, reader: BulkInstanceReader) -> View:
        """Return where the instance of a row stands; read it alone if the bulk history did not show that it waits."""
        user_id, requested = self.hook.user_id, row["step_occurrence_id"]
        if waiting is not None:
            current = str(waiting["current_step_occurrence"]["id"])
            if requested in (None, current):
                return View(waiting, current, user_id)
        if row["instance_id"] is None:
            instances = self.hook.list_item_instances(
                row["tool_type"], row["item_id"], row["project_id"], tool_subtype=row["tool_subtype"]
            )
            row["instance_id"] = rules.newest_instance(instances)
        return RowResponder(self, row, reader.show).view(row["instance_id"], requested)

    def _decide(
        self, row: dict[str, Any], request: RequestedResponse, view: View, reader: BulkInstanceReader
    ) -> list[dict[str, Any]] | None:
        """Complete a row; return the options of its step if its response is to be sent, else None."""
        step = view.step
        row.update(
            instance_id=str_id(view.instance.get("id")) or row["instance_id"],
            **{name: row[name] or str_id(view.instance.get(name)) for name in ("item_id", "tool_type", "tool_subtype")},
            step=None if step is None else step.get("name"),
            step_occurrence_id=view.occurrence_id,
        )
        responder = RowResponder(self, row, reader.show)
        if (problem := responder.problem_of(view, request.step)) is not None:
            row.update(skipped=problem[0], reason=problem[1])
            return None
        options = rules.response_options(step or {})
        try:
            chosen = response_rules.choose_option(options, option=request.response)
        except ConfigurationError as unknown:
            row.update(skipped=bulk_rules.UNKNOWN_OPTION, reason=str(unknown))
            return None
        row.update(option=chosen["name"], option_id=chosen["id"], type=chosen["type"], matched_by=chosen["matched_by"])
        return options

    # --- sending ---

    def _apply(self, plan: dict[str, Any], journal: ResponseJournal) -> None:
        """Send the rows of a plan that are not done yet, verify them, and complete all rows with their outcomes."""
        for row in plan["rows"]:
            row.update(status=bulk_rules.SKIPPED if row["action"] == bulk_rules.SKIP else None, confirmed=None)
        self._is_retryable = self.plan is None and self.plan_hash is None and bool(_unread(plan))
        self._stopped_by: WorkflowsError | None = None
        to_send = [row for row in plan["rows"] if row["action"] == bulk_rules.SEND]
        chosen = {row["row"]: _chosen(row, plan["options"][row["options"]]) for row in to_send}
        waiting = self._still_waiting(to_send, journal)
        failures = 0
        for row in Progress("responses processed", len(to_send)).of(to_send):
            if self._stopped_by is not None:
                row.update(status=bulk_rules.FAILED, reason="not tried, because the rows before it failed")
                self._is_retryable = True
                continue
            error = self._send(row, chosen[row["row"]], journal, waiting)
            failures = 0 if error is None else failures + 1
            is_server = isinstance(error, (*TRANSIENT_ERRORS, OutcomeUnknown))
            most = MAX_CONSECUTIVE_FAILURES if is_server else MAX_CONSECUTIVE_REJECTIONS
            if isinstance(error, CONCERNS_ALL) or failures >= most:
                self._stopped_by = error
        if not isinstance(self._stopped_by, CONCERNS_ALL):
            self._verify([row for row in to_send if row["status"] == bulk_rules.SENT], chosen)

    def _still_waiting(self, rows: Sequence[dict[str, Any]], journal: ResponseJournal) -> dict[int, dict[str, Any]]:
        """Read again where the instances stand that this try has not seen; the plan may be days old."""
        unseen = [row for row in rows if row["row"] not in self._fresh and journal.outcome(row["row"]) in UNSENT]
        return BulkInstanceReader(self.hook, self.log).waiting([_place_of(row) for row in unseen])

    def _send(
        self,
        row: dict[str, Any],
        chosen: dict[str, Any],
        journal: ResponseJournal,
        waiting: Mapping[int, dict[str, Any]],
    ) -> WorkflowsError | None:
        """Send the response of one row, and complete the row; return the error if it failed."""
        number = row["row"]
        outcome = journal.outcome(number)
        if outcome in (ACCEPTED, DONE):
            self._take(row, journal, is_recorded=outcome == DONE)
            return None
        stored = RowPin(journal, number, chosen)
        responder = RowResponder(self, row)
        try:
            result = None
            if outcome in UNSENT and number not in self._fresh:
                result = self._read_again(row, responder, chosen, stored, waiting.get(number))
            if result is None:
                with self.continuing_dry_run():
                    result = responder.send(chosen, stored)
        except RowSkipped as skipped:
            row.update(status=bulk_rules.SKIPPED, skipped=skipped.code, reason=str(skipped))
        except OutcomeUnknown as unknown:
            journal.record(number, REPORTED)
            row.update(status=bulk_rules.UNKNOWN, reason=describe(unknown))
            return unknown
        except WorkflowsError as error:
            self.log.warning("Row %d, instance %s: %s", number, row["instance_id"], error)
            row.update(status=bulk_rules.FAILED, reason=str(error))
            self._is_retryable = self._is_retryable or error.retryable
            return error
        else:
            if result is not None:  # in a dry run there is none
                self._take(row, journal, is_recorded=result["already_recorded"])
        return None

    @staticmethod
    def _take(row: dict[str, Any], journal: ResponseJournal, *, is_recorded: bool) -> None:
        if is_recorded:
            journal.record(row["row"], DONE)
        row.update(status=bulk_rules.ALREADY_RECORDED if is_recorded else bulk_rules.SENT, confirmed=is_recorded)

    def _read_again(
        self,
        row: Mapping[str, Any],
        responder: RowResponder,
        chosen: Mapping[str, Any],
        stored: RowPin,
        waiting: dict[str, Any] | None,
    ) -> dict[str, Any] | None:
        """
        Check that the step occurrence of the plan still waits; return the result if the response is recorded already.

        :raises RowSkipped: it does not wait any more.
        """
        occurrence_id = str(row["step_occurrence_id"])
        view = View(waiting or {}, occurrence_id, self.hook.user_id)
        if not view.is_current:
            view = responder.view(responder.instance_id, occurrence_id)
        if view.recorded is not None:
            return responder.recorded_before(view, chosen, stored)
        if (problem := responder.problem_of(view)) is not None:
            if problem[0] in (bulk_rules.BETWEEN_STEPS, bulk_rules.UNREADABLE):
                raise WorkflowsError(f"{problem[1].rstrip('.')}. A retry reads it again")
            raise RowSkipped(*problem)
        if chosen["id"] not in [option["id"] for option in rules.response_options(view.step or {})]:
            raise ConfigurationError(f"The step does not have the option {chosen['name']!r} of the plan any more.")
        return None

    # --- verifying ---

    def _verify(self, rows: Sequence[dict[str, Any]], chosen: Mapping[int, dict[str, Any]]) -> None:
        """Poll until the record shows the responses that Procore has accepted, many in one request."""
        left = {row["row"]: row for row in rows}
        reader = BulkInstanceReader(self.hook, self.log)

        def read() -> bool:
            occurrences = {number: str(row["step_occurrence_id"]) for number, row in left.items()}
            found = reader.recorded([_place_of(row) for row in left.values()], occurrences)
            for number, row in list(left.items()):
                responder = RowResponder(self, row)
                recorded = found.get(number)
                if recorded is None and reader.is_bulk_missing:
                    recorded = reader.read(partial(responder.view, row["instance_id"], occurrences[number])).recorded
                if recorded is not None:
                    self._complete(left.pop(number), partial(responder.is_requested, recorded, chosen[number]))
            return not left

        if left:
            poll_until(read, bool, self.confirm_timeout)
        for number, row in left.items():
            self._complete(row, partial(RowResponder(self, row).check_accepted, chosen[number]))
        if unconfirmed := [row["instance_id"] for row in rows if not row["confirmed"]]:
            self.log.warning(
                "Procore accepted the responses (204), but %.0f s later the record does not show these: instances %s.",
                *(self.confirm_timeout, ", ".join(unconfirmed)),
            )

    def _complete(self, row: dict[str, Any], confirm: Callable[[], bool]) -> None:
        """Complete a row that Procore has accepted with what the record shows of it."""
        try:
            row["confirmed"] = confirm()
        except OutcomeUnknown as unknown:
            row.update(status=bulk_rules.UNKNOWN, reason=describe(unknown))
        except ResponseConflict as conflict:
            row.update(status=bulk_rules.FAILED, reason=str(conflict))
        except WorkflowsError as error:
            self.log.warning("Instance %s: %s", row["instance_id"], error)

    # --- results ---

    def _check_outcome(self, rows: Sequence[dict[str, Any]]) -> None:
        """Fail the task if a row failed, is unknown, or could not be read."""
        if isinstance(self._stopped_by, CONCERNS_ALL):
            raise self._stopped_by
        bad = [row for row in rows if row["status"] in bulk_rules.UNFINISHED or row["skipped"] == bulk_rules.UNREADABLE]
        if not bad:
            return
        unknown = bulk_rules.UNKNOWN in bulk_rules.counts(bad, "status")
        error = ResponsesUnfinished if self._is_retryable else OutcomeUnknown if unknown else ResponseConflict
        raise error(
            f"{len(bad)} of {len(rows)} responses failed, have an unknown outcome or could not be read:\n"
            f"{bulk_rules.table_of(bad)}\nAll others are done."
        )

    def _result(self, plan: Mapping[str, Any], csv_path: str | None) -> dict[str, Any]:
        rows = plan["rows"]
        found = bulk_rules.counts(rows, "status")
        counts = {status: found.get(status, 0) for status in bulk_rules.STATUSES}
        unconfirmed = sum(row["status"] == bulk_rules.SENT and not row["confirmed"] for row in rows)
        self.log.info("%s.", ", ".join(f"{status.replace('_', ' ')}: {count}" for status, count in counts.items()))
        return {
            "mode": self.mode,
            "plan_hash": plan["plan_hash"],
            **counts,
            "unconfirmed": unconfirmed,
            "totals": plan["totals"],
            "csv_path": csv_path,
            "rows": rows,
        }

    def _write_csv(self, rows: Sequence[Mapping[str, Any]]) -> str | None:
        if self.csv_path is None:
            return None
        target = storage_path("csv_path", self.csv_path)
        with tempfile.TemporaryDirectory(prefix="workflows-plan-") as folder:
            local = Path(folder, "rows.csv")
            local.write_text(bulk_rules.csv_of(rows), encoding="utf-8", newline="")
            with named_write_errors("csv_path", target):
                replace_files([(local, target)])
        return str(target)


def _unread(plan: Mapping[str, Any]) -> set[int]:
    return {row["row"] for row in plan["rows"] if row["skipped"] == bulk_rules.UNREADABLE}


def _new_row(request: RequestedResponse, place: Place) -> dict[str, Any]:
    """Return the row of a plan for a requested response, before it is decided."""
    return {
        "row": request.row,
        "action": bulk_rules.SKIP,
        "status": None,
        "skipped": None,
        "reason": None,
        "project_id": place.level,
        "tool_type": place.tool_type,
        "tool_subtype": place.tool_subtype,
        "item_id": place.item_id,
        "instance_id": place.instance_id,
        "step": None,
        "step_occurrence_id": request.step_occurrence_id,
        "response": request.response,
        "option": None,
        "option_id": None,
        "type": None,
        "matched_by": None,
        "comment": request.comment,
        "confirmed": None,
        "columns": dict(request.columns),
        "options": None,
    }


def _place_of(row: Mapping[str, Any]) -> Place:
    names = ("project_id", "instance_id", "item_id", "tool_type", "tool_subtype", "step_occurrence_id")
    return Place(row["row"], *(row[name] for name in names))


def _chosen(row: Mapping[str, Any], options: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the option of a row, as the single response stores it."""
    names = {"id": "option_id", "name": "option", "type": "type", "matched_by": "matched_by"}
    return {
        **{name: row[column] for name, column in names.items()},
        "others": [dict(option) for option in options if option["id"] != row["option_id"]],
        "step": row["step"],
        "item_id": row["item_id"],
        "step_occurrence_id": row["step_occurrence_id"],
    }
