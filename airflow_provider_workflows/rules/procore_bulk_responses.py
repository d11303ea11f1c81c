"""The plan of responses to many instances: its requested rows, its hash, its caps, its table and its CSV file."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Context, Decimal
from operator import index
from types import MappingProxyType
from typing import Any, NamedTuple

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.parameters import as_text, check_required, str_id
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.rules.procore import (
    ENDED_STATES,
    current_step,
    idempotency_token,
    is_pending,
    response_options,
    timeline_of,
)
from airflow_provider_workflows.rules.procore_decisions import is_given, options_of, rows_of
from airflow_provider_workflows.rules.text_table import aligned

Json = Mapping[str, Any]

# What a plan does with a row, and what happens to it.
SEND, SKIP = "send", "skip"
SENT, ALREADY_RECORDED, SKIPPED, FAILED, UNKNOWN = "sent", "already_recorded", "skipped", "failed", "unknown"
STATUSES = (SENT, ALREADY_RECORDED, SKIPPED, FAILED, UNKNOWN)
UNFINISHED = (FAILED, UNKNOWN)
# Why a row is skipped.
NOT_PENDING = "not_pending"
MOVED_ON = "moved_on"
ENDED = "ended"
BETWEEN_STEPS = "between_steps"
UNKNOWN_OPTION = "unknown_option"
ALREADY_RESPONDED = "already_responded"
DUPLICATE = "duplicate"
UNREADABLE = "unreadable"

IDS = ("instance_id", "item_id", "project_id", "step_occurrence_id")
TEXTS = ("tool_type", "tool_subtype", "response", "comment", "step")
PLAN_COLUMNS = (
    *("row", "action", "status", "skipped", "reason", "project_id", "tool_type", "item_id", "instance_id", "step"),
    *("step_occurrence_id", "response", "option", "option_id", "comment", "confirmed"),
)
TABLE_COLUMNS = ("row", "status", "skipped", "instance_id", "item_id", "step", "option", "comment")
NOT_WAITING = {*ENDED_STATES, "ended", "processing"}  # states of an instance
MAX_TABLE_ROWS = 200
MAX_CELL_CHARACTERS = 60  # in the table
MAX_VALUE_CHARACTERS = 1000  # of a value in a column that this package does not know
CHUNK_BYTES = 30_000  # of one value in Airflow's task state store, which warns above 64 KB
DECIMAL = r"[+-]?\d+(\.\d+)?"  # compiled on use
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes a cell that starts with one of them for a formula


class RequestedResponse(NamedTuple):
    """
    Hold one row of the requested responses.

    :param row: Its place, from 1.
    :param columns: Its other columns, as JSON primitives.
    """

    row: int
    response: str
    instance_id: str | None = None
    item_id: str | None = None
    tool_type: str | None = None
    tool_subtype: str | None = None
    project_id: str | None = None
    comment: str | None = None
    step: str | None = None
    step_occurrence_id: str | None = None
    columns: Mapping[str, Any] = MappingProxyType({})


# --- the requested rows ---


def requested_responses(responses: Any) -> list[RequestedResponse]:
    """
    Return the requested responses.

    :param responses: A mapping of instance ids to responses, a list of rows, or a data frame of pandas or polars.
    :raises ConfigurationError: there is no row, or a row is malformed; the message names the row and the column.
    """
    rows = _rows_of(responses)
    if not rows:
        raise ConfigurationError("responses has no rows. Skip the task when there is nothing to respond to.")
    return [_requested(number, row) for number, row in enumerate(rows, 1)]


def _rows_of(responses: Any) -> list[Any]:
    if isinstance(responses, Mapping):
        return [
            {**(response if isinstance(response, Mapping) else {"response": response}), "instance_id": instance_id}
            for instance_id, response in responses.items()
        ]
    if callable(to_dicts := getattr(responses, "to_dicts", None)):  # polars
        responses = to_dicts()
    elif callable(to_dict := getattr(responses, "to_dict", None)):  # pandas
        responses = to_dict("records")
    if isinstance(responses, (str, bytes)) or not isinstance(responses, Sequence):
        raise ConfigurationError(
            "responses must be a mapping of instance ids to responses, a list of rows or a data frame; got "
            f"{type(responses).__name__}. Pass the output of a task as it is (`task.output`), not as a template in "
            "quotes."
        )
    return list(responses)


def _requested(number: int, row: Any) -> RequestedResponse:
    if not isinstance(row, Mapping) or not all(isinstance(name, str) for name in row):
        raise ConfigurationError(f"responses, row {number}: a row must map names of columns to values; got {row!r}.")
    try:
        values = {name: _text(name, row.get(name)) for name in (*IDS, *TEXTS)}
        check_required(response=values["response"])
    except ConfigurationError as error:
        raise ConfigurationError(f"responses, row {number}: {error}") from None
    if values["instance_id"] is None and values["item_id"] is None:
        raise ConfigurationError(f"responses, row {number}: instance_id is missing. Give it, or give the item_id.")
    # A list, such as the options in a row of the sensor, is no cell of a table.
    cells = {name: value for name, value in row.items() if not isinstance(value, (Mapping, list, tuple, set))}
    columns = {name: _plain(value) for name, value in cells.items() if name not in values}
    return RequestedResponse(row=number, columns=columns, **values)  # type: ignore[arg-type]  # response is not None


def _text(name: str, value: Any) -> str | None:
    """Return an id or a text of a row, or None if the cell is empty as a data frame leaves it."""
    if _is_missing(value) or (name == "comment" and value == ""):
        return None
    text = as_text(name, value if isinstance(value, (str, bool)) else _whole(value, value), is_id=name in IDS)
    check_required(**{name: text})
    return text if name == "comment" else text.strip()


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)  # NaN and NaT
    except (TypeError, ValueError, ArithmeticError) as error:
        return isinstance(error, TypeError)  # pandas.NA


def _plain(value: Any) -> Any:
    """Return a value as a JSON primitive; a decimal as its text, which is exact."""
    if _is_missing(value):
        return None
    if isinstance(value, (str, bool)):
        return value[:MAX_VALUE_CHARACTERS] if isinstance(value, str) else value
    if (whole := _whole(value)) is not None:
        return whole
    if isinstance(value, float):
        return float(value) if abs(value) < float("inf") else str(value)
    if isinstance(value, Decimal) and value.is_finite():
        return format(value, "f")
    return value.isoformat() if isinstance(value, date) else str(value)[:MAX_VALUE_CHARACTERS]


def _whole(value: Any, other: Any = None) -> Any:
    """Return a whole number, such as one of numpy, as an int; ``other`` for any other value."""
    try:
        return index(value)
    except TypeError:
        return other


# --- what the history of an instance shows ---


@documented_form()
def waiting_instance(history: Json, user_id: str, *, instance_id: str, item_id: str) -> dict[str, Any] | None:
    """
    Return an instance in the form of "Show Workflow Instance" if its history shows that its step waits for a user.

    None if the history shows anything else, or not all of it: the id of the step occurrence, its options, and the user
    among its pending assignees.
    """
    found = timeline_of(history)
    steps = found.current_steps("ResponseStep", "Action", "EndStep")
    if len(steps) != 1 or steps[0].kind != "ResponseStep" or found.ended_at or found.state in NOT_WAITING:
        return None
    step = steps[0].details
    options = response_options(step)
    occurrence_id = str_id(step.get("id"))
    if occurrence_id in (None, str_id(step.get("uuid"))) or not options or any(o["id"] is None for o in options):
        return None
    rows = [row for row in rows_of(step.get("responses")) if str_id(row.get("id")) == user_id]
    if not rows or any(is_given(row.get("responded_at")) for row in rows) or step.get("override"):
        return None
    return {
        "id": instance_id,
        "item_id": item_id,
        "ended_at": None,
        "current_step_occurrence": {
            "id": occurrence_id,
            "name": step.get("name"),
            "available_response_options": options_of(step),
            "response_occurrences": [{"submitted_at": None, "assignee": {"id": user_id}}],
        },
    }


def is_same_position(one: Json, other: Json, user_id: str) -> bool:
    """Return whether two reads of an instance show the same step occurrence with the same options, which waits."""
    steps = [current_step(instance) for instance in (one, other)]
    shown = [(step["id"], response_options(step), is_pending(step, user_id)) for step in steps if step is not None]
    return len(shown) == 2 and shown[0] == shown[1] and shown[0][2]


# --- caps ---


def checked_caps(max_responses: Any, max_total: Any) -> dict[str, Decimal]:
    """
    Return the caps on columns as decimals.

    :raises ConfigurationError: a cap is not a number, or negative.
    """
    if type(max_responses) is not int or max_responses < 1:
        raise ConfigurationError(f"max_responses must be a whole number, 1 or more; got {max_responses!r}.")
    if max_total is None:
        return {}
    if not isinstance(max_total, Mapping) or not max_total:
        raise ConfigurationError(
            f"max_total must map columns to their caps, such as {{'amount': 100000}}; got {max_total!r}."
        )
    caps = {}
    for column, cap in max_total.items():
        if column in IDS or column in TEXTS:
            raise ConfigurationError(f"max_total: {column} is not a column with amounts.")
        number = _decimal(_plain(cap))
        if number is None or number < 0:
            raise ConfigurationError(f"max_total: the cap of {column!r} must be a number, 0 or more; got {cap!r}.")
        caps[str(column)] = number
    return caps


def totals(rows: Iterable[tuple[int, Json]], columns: Collection[str]) -> dict[str, Decimal]:
    """
    Return the exact total of each capped column, of the amounts without their signs.

    A credit must not make room for a payment, so a negative amount counts as much as a positive one.

    :param rows: The number and the other columns of each row.
    :raises ConfigurationError: an amount is missing, NaN or not a number; the message names the row.
    """
    exact = Context(prec=10 * MAX_VALUE_CHARACTERS)  # arithmetic of decimals rounds to 28 digits by default
    found = dict.fromkeys(columns, Decimal(0))
    for number, values in rows:
        for column in columns:
            amount = _decimal(values.get(column))
            if amount is None:
                value = values.get(column)
                problem = "is missing or NaN" if value is None else f"is {value!r}, which is not a number"
                raise ConfigurationError(
                    f"responses, row {number}: {column} {problem}, but max_total limits its total. Correct the row, or "
                    "leave it out."
                )
            found[column] = exact.add(found[column], amount.copy_abs())
    return found


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return Decimal(repr(value))
    return Decimal(value.strip()) if isinstance(value, str) and re.fullmatch(DECIMAL, value.strip()) else None


def check_caps(plan: Json, max_responses: int, caps: Mapping[str, Decimal]) -> None:
    """
    Check the rows that a plan sends against the caps.

    :raises ConfigurationError: there are too many, or the total of a column is too large.
    """
    rows = [row for row in plan["rows"] if row["action"] == SEND]
    if len(rows) > max_responses:
        raise ConfigurationError(
            f"The plan has {len(rows)} responses, and max_responses is {max_responses}. Nothing was sent. Give fewer "
            "rows, or raise max_responses."
        )
    for column, total in totals(((row["row"], row["columns"]) for row in rows), caps).items():
        if total > caps[column]:
            raise ConfigurationError(
                f"The total of {column} of the {len(rows)} responses in the plan is {total:f}, and max_total is "
                f"{caps[column]:f}. Nothing was sent. Give fewer rows, or raise max_total."
            )


# --- the plan ---


def mark_duplicates(rows: Sequence[dict[str, Any]]) -> None:
    """
    Skip the rows of an instance that has several, in place.

    Of rows with the same response the first one is sent. Rows with different responses are all skipped, because
    nothing says which of them is right.
    """
    by_instance: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        # A row for another step of the instance is none of them.
        if row["action"] == SEND or row["skipped"] == UNKNOWN_OPTION:
            by_instance.setdefault(row["instance_id"], []).append(row)
    for instance_id, same in by_instance.items():
        numbers = ", ".join(str(row["row"]) for row in same)
        are_equal = len({(row["option_id"] or row["response"], row["comment"]) for row in same}) == 1
        for row in same[1 if are_equal else 0 :] if len(same) > 1 else ():
            what = "the first one is sent" if are_equal else "they request different responses, so none is sent"
            row.update(action=SKIP, skipped=DUPLICATE, reason=f"rows {numbers} are of instance {instance_id}; {what}")


def plan_hash(company_id: str, user_id: str, rows: Iterable[Json]) -> str:
    """Return a hash of all that a plan would send, to what and as whom; it does not depend on the order of rows."""
    sent = [
        [row["project_id"], row["instance_id"], row["step_occurrence_id"], row["option_id"], row["comment"] or ""]
        for row in rows
        if row["action"] == SEND
    ]
    return idempotency_token(company_id, user_id, sorted(sent))


def checked_plan(plan: Any, company_id: str, user_id: str) -> dict[str, Any]:
    """
    Return a plan that was made by an earlier task, after checking that it still is what its hash says.

    :raises ConfigurationError: it is no plan, it was changed, or it was made for another company or user.
    """
    rows = plan.get("rows") if isinstance(plan, Mapping) else None
    if not isinstance(rows, list) or not isinstance(plan.get("options"), list) or not plan.get("plan_hash"):
        raise ConfigurationError("plan must be the result of this operator with mode='plan'; pass `plan=task.output`.")
    try:
        found = plan_hash(company_id, user_id, rows)
        options = [plan["options"][row["options"]] for row in rows if row["action"] == SEND]
        is_complete = all(isinstance(some, list) for some in options) and all("columns" in row for row in rows)
    except (AttributeError, LookupError, TypeError) as error:
        raise ConfigurationError(f"plan has rows that this operator does not write ({type(error).__name__}).") from None
    if found != plan["plan_hash"] or not is_complete:
        raise ConfigurationError(
            f"plan does not match its hash {plan['plan_hash']}: it was changed, or made for another company than "
            f"{company_id} or another user than {user_id}. Nothing was sent. Make a new plan."
        )
    return {**plan, "rows": [dict(row) for row in rows]}


def chunks(rows: Sequence[Json]) -> Iterator[list[Json]]:
    """Yield the rows in parts that are small enough for one value in Airflow's task state store."""
    part: list[Json] = []
    size = 0
    for row in rows:
        length = len(json.dumps(row))
        if part and size + length > CHUNK_BYTES:
            yield part
            part, size = [], 0
        part.append(row)
        size += length
    if part:
        yield part


def counts(rows: Iterable[Json], column: str) -> dict[str, int]:
    """Return how many rows have each value of a column, without those that have none."""
    found: dict[str, int] = {}
    for row in rows:
        if row[column] is not None:
            found[row[column]] = found.get(row[column], 0) + 1
    return found


# --- what people read ---


def table_of(rows: Sequence[Json], extra: Collection[str] = ()) -> str:
    """Return rows of a plan or its result as a table for the log; long ones are cut."""
    lines = [(*TABLE_COLUMNS, *extra, "reason")]
    for row in rows[:MAX_TABLE_ROWS]:
        shown = {**row, "status": row["status"] or row["action"], "option": row["option"] or row["response"]}
        values = [*(shown[name] for name in TABLE_COLUMNS), *(row["columns"].get(name) for name in extra)]
        cells = ("" if value is None else str(value)[:MAX_CELL_CHARACTERS] for value in values)
        lines.append((*cells, row["reason"] or ""))
    left = len(rows) - MAX_TABLE_ROWS
    return aligned(lines) + (f"\n... and {left} more rows; all are in the task's result." if left > 0 else "")


def csv_of(rows: Sequence[Json]) -> str:
    """
    Return rows of a plan or its result as a CSV file.

    A cell that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    extra = list(dict.fromkeys(name for row in rows for name in row["columns"]))
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    headings = [f"given {name}" if name in PLAN_COLUMNS else name for name in extra]
    writer.writerow([_cell(name) for name in (*PLAN_COLUMNS, *headings)])
    for row in rows:
        writer.writerow(
            [_cell(row[name]) for name in PLAN_COLUMNS] + [_cell(row["columns"].get(name)) for name in extra]
        )
    return file.getvalue()


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
