"""The probes of Procore v2 that compare instances with their histories."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from airflow_provider_workflows.diagnostics.contract_check import documented
from airflow_provider_workflows.diagnostics.contract_check.outcomes import (
    Outcome,
    Probe,
    not_seen,
    only_side,
    seen,
    unexpected,
)
from airflow_provider_workflows.diagnostics.contract_check.recording import Records
from airflow_provider_workflows.rules.datetimes import unix_time

NO_HISTORY = "no history could be read"
EVENT_TIMES = ("started_at", "evaluated_at", "terminated_at")
CLOCK_SECONDS = 1.0  # times have whole seconds

Row = dict[str, Any]


def history(records: Records) -> Outcome:
    readings = records.all("history")
    found = [reading.item for reading in readings if reading.item]
    if any(item.get("status") for item in found):
        return seen("full", f"histories: {len(found)}")
    if any("status" in item for item in found):
        return seen("no_status", f"histories: {len(found)}")
    if any("history" in item for item in found):
        return seen("events_only", f"histories: {len(found)}")
    shown = {reading.subject for reading in records.all("instance") if reading.is_ok}
    if any(reading.status == 404 and reading.subject in shown for reading in readings):
        return seen("absent", "status 404 for an instance that can be read")
    return unexpected("a history has neither a status nor events") if found else not_seen(NO_HISTORY)


def termination_event(records: Records) -> Outcome:
    sides = []
    for _, item in _histories(records):
        types = {event.get("type") for event in _events(item)}
        end_types = [str(_details(event).get("end_type")) for event in _events(item) if event.get("type") == "EndStep"]
        has_end = any("terminat" in kind.lower() for kind in end_types)
        if "WorkflowTerminated" in types:
            sides.append("both" if has_end else "terminated")
        elif has_end:
            sides.append("end_step")
    return only_side(sides, "no history shows a termination", "terminations")


def status_case(records: Records) -> Outcome:
    statuses = [str(item["status"]) for _, item in _histories(records) if item.get("status")]
    return only_side(
        ("lower" if status == status.lower() else "upper" for status in statuses), "no history has a status", "statuses"
    )


def more_words(records: Records) -> Outcome:
    histories = list(_histories(records))
    if not histories:
        return not_seen(NO_HISTORY)
    types = [str(event.get("type")) for _, item in histories for event in _events(item)]
    statuses = [str(item["status"]) for _, item in histories if item.get("status")]
    unknown = [kind for kind in types if kind not in documented.EVENT_TYPES]
    unknown += [status for status in statuses if status.lower() not in documented.HISTORY_STATUSES]
    if unknown:
        return seen("more", f"words that the documents lack: {len(set(unknown))}", *dict.fromkeys(unknown))
    return seen("documented", f"none in {len(types)} events")


def history_order(records: Records) -> Outcome:
    sides = []
    for _, item in _histories(records):
        times = [time for event in _events(item) if (time := _time_of(event)) is not None]
        pairs = list(pairwise(times))
        is_rising, is_falling = any(a < b for a, b in pairs), any(a > b for a, b in pairs)
        if is_rising and is_falling:
            return unexpected("the events of a history are in no order of time")
        if is_rising or is_falling:
            sides.append("oldest_first" if is_rising else "newest_first")
    return only_side(sides, "no history has events at different times", "histories with an order")


def history_step_id(records: Records) -> Outcome:
    sides = []
    for instance_id, item in _histories(records):
        current = _shown(records, instance_id).get("current_step_occurrence")
        if not isinstance(current, dict):
            continue
        for step in (step for step in _steps(item) if not step.get("ended_at")):
            if step.get("uuid") == current.get("step_uuid"):
                sides.append("occurrence" if str(step.get("id")) == str(current.get("id")) else "step")
    return only_side(sides, "no open step is in a history", "open steps")


def history_labels(records: Records) -> Outcome:
    options = _options(records)
    sides = []
    for step, response in _responses(records):
        names = {str(option.get("name")) for option in options.get(str(step.get("uuid")), [])}
        if names:
            sides.append("option" if str(response["response"]) in names else "status")
    return _unless_renamed(sides)


def history_response_id(records: Records) -> Outcome:
    options = _options(records)
    sides = []
    for step, response in _responses(records):
        ids = {str(option.get("id")) for option in options.get(str(step.get("uuid")), [])}
        if ids and response.get("response_id") is not None:
            sides.append("option" if str(response["response_id"]) in ids else "response")
    return _unless_renamed(sides)


def _unless_renamed(sides: list[str]) -> Outcome:
    if len(set(sides)) > 1:
        return not_seen("responses differ, as they do after options were changed")
    return only_side(sides, "no response of a step whose options are known", "responses")


def overall_response(records: Records) -> Outcome:
    steps = [step for _, item in _histories(records) for step in _steps(item) if step.get("ended_at")]
    # A step that a manager has skipped, or that ended with its instance, has no response at all.
    decided = [step for step in steps if "overall_response" not in step or step["overall_response"]]
    return only_side(
        ("present" if step.get("overall_response") else "absent" for step in decided),
        "no history has a step that has ended",
        "steps that have ended",
    )


def hidden_events(records: Records) -> Outcome:
    if any(True for _ in _responses(records)):
        return seen("none", "histories have steps and responses")
    steps = [step for _, item in _histories(records) for step in _steps(item)]
    if any(step.get("ended_at") and not step.get("responses") for step in steps):
        return seen("responses", "steps that have ended have no responses")
    for instance_id, item in _histories(records):
        if isinstance(_shown(records, instance_id).get("current_step_occurrence"), dict) and not list(_steps(item)):
            return seen("response_steps", "the current step of an instance is not in its history")
    return not_seen("no history has a step that has ended")


def updated_at(records: Records) -> Outcome:
    sides = []
    for instance_id, item in _histories(records):
        shown = _shown(records, instance_id)
        changed, started = unix_time(shown.get("updated_at")), unix_time(shown.get("started_at"))
        if shown.get("ended_at") or changed is None or started is None:
            continue
        # The start of a step: a response to a step that waits for others may be no change.
        latest = max((time for event in _events(item) if (time := _time_of(event)) is not None), default=started)
        if latest > started + CLOCK_SECONDS:
            sides.append("moves" if changed >= latest - CLOCK_SECONDS else "start_only")
    return only_side(sides, "no active instance has left its first step", "active instances")


def item_history(records: Records) -> Outcome:
    reading = records.last("item_history")
    if reading is None:
        return not_seen("no instance could be read")
    if reading.is_ok:
        return seen("present", f"status {reading.status}")
    is_absent = reading.status in (404, 405)
    return seen("absent", f"status {reading.status}") if is_absent else not_seen(f"status {reading.status}")


def bulk_history(records: Records) -> Outcome:
    reading = records.last("bulk_history")
    if reading is None:
        return not_seen("no instance could be read")
    if not reading.is_ok:
        sides = {404: "absent", 405: "not_allowed"}
        is_known = reading.status in sides
        return (
            seen(sides[reading.status], f"status {reading.status}")
            if is_known
            else not_seen(f"status {reading.status}")
        )
    found = [instance for row in reading.rows for instance in row.get("instances") or [] if isinstance(instance, dict)]
    return only_side(
        ("present" if instance.get("instance_id") else "no_instance_ids" for instance in found),
        "the response has no instance",
        "instances",
    )


def _histories(records: Records) -> Iterator[tuple[str, Row]]:
    """Yield the id of each instance with its history."""
    for reading in records.all("history"):
        if reading.item:
            yield reading.subject, reading.item


def _shown(records: Records, instance_id: str) -> Row:
    return next((r.item for r in records.all("instance") if r.subject == instance_id), {})


def _events(item: Row) -> list[Row]:
    events = item.get("history")
    return [event for event in events if isinstance(event, dict)] if isinstance(events, list) else []


def _details(event: Row) -> Row:
    details = event.get("details")
    return details if isinstance(details, dict) else {}


def _steps(item: Row) -> Iterator[Row]:
    for event in _events(item):
        if event.get("type") == "ResponseStep":
            yield _details(event)


def _responses(records: Records) -> Iterator[tuple[Row, Row]]:
    """Yield each response in a history with its step."""
    for _, item in _histories(records):
        for step in _steps(item):
            for response in step.get("responses") or []:
                if isinstance(response, dict) and response.get("response"):
                    yield step, response


def _options(records: Records) -> dict[str, list[Row]]:
    """Return the options of each step that is current anywhere, by the step's uuid."""
    steps = [(step, "uuid") for _, item in _histories(records) for step in _steps(item)]
    for reading in records.all("instance"):
        current = reading.item.get("current_step_occurrence")
        if isinstance(current, dict):
            steps.append((current, "step_uuid"))
    options: dict[str, list[Row]] = {}
    for step, key in steps:
        found = step.get("available_response_options")
        if isinstance(found, list) and step.get(key):
            options.setdefault(str(step[key]), []).extend(option for option in found if isinstance(option, dict))
    return options


def _time_of(event: Row) -> float | None:
    details = _details(event)
    return next((time for name in EVENT_TIMES if (time := unix_time(details.get(name))) is not None), None)


PROBES: dict[str, Probe] = {
    probe.__name__: probe
    for probe in (
        history,
        termination_event,
        status_case,
        more_words,
        history_order,
        history_step_id,
        history_labels,
        history_response_id,
        overall_response,
        hidden_events,
        updated_at,
        item_history,
        bulk_history,
    )
}
