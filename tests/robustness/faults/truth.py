"""What tasks report about their work, compared with what the emulator has recorded of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Effect = Mapping[str, Any]

# Errors by which a task reports that it has changed nothing, or that another user has changed something.
NOT_OWN = re.compile(
    r"(StepMoved|NotFound|InvalidRequest|PermissionDenied|ConfigurationError|ResponseConflict|InstanceActive"
    r"|PresetConflict|ConnectionFailed|RateLimited|AuthenticationError): "
)
NOTHING_SENT = re.compile(r"\bnothing (is|was|has been) (sent|performed|changed)\b|\bwas not (sent|performed)\b", re.I)


@dataclass(frozen=True)
class Seen:
    """
    What the emulator shows of a task's work.

    :param effects: What was changed through the APIs since the task started.
    :param new: What of it was changed during the try that is evaluated.
    :param sent: Whether this try has sent a write request.
    :param alone: Whether nothing else was at work meanwhile: no second try, no request of a dead one.
    :param state: Returns the state of everything by now.
    """

    effects: Sequence[Effect]
    new: Sequence[Effect]
    sent: bool
    alone: bool
    state: Callable[[], Mapping[str, Any]]

    def rows(self, action: str, **target: Any) -> list[Effect]:
        """Return the effects of an action on a target."""
        requested = target.items()
        return [row for row in self.effects if row["action"] == action and requested <= row["target"].items()]


def untrue_error(message: str, seen: Seen) -> Iterator[str]:
    """Yield what an error says that contradicts what is recorded."""
    if not seen.effects:
        return
    if NOT_OWN.match(message) or NOTHING_SENT.search(message):
        done = ", ".join(row["action"] for row in seen.effects)
        yield f"it failed as if it had not acted ({message}), but recorded is: {done}"


def _differences(result: Mapping[str, Any], recorded: Mapping[str, Any]) -> Iterator[str]:
    for name, value in recorded.items():
        if result[name] != value:
            yield f"{name} is {result[name]!r} in the result, but {value!r} was recorded"


def _already(result: Mapping[str, Any], flag: str, row: Effect, seen: Seen) -> Iterator[str]:
    """Yield how it contradicts the record whether a result says that the work was done before."""
    if not result[flag] and not seen.sent:
        yield f"{flag} is False, but this try has sent nothing"
    if result[flag] and seen.alone and row in seen.new:
        yield f"{flag} is True, but this try did it"


def responded(result: Any, seen: Seen) -> Iterator[str]:
    rows = seen.rows("respond", step_occurrence_id=result["step_occurrence_id"])
    for row in rows[:1]:
        recorded = {"option": row["detail"]["option"], "comment": row["detail"]["comment"], "user_id": row["by"]}
        yield from _differences(result, {**recorded, "instance_id": row["target"]["instance_id"]})
        yield from _already(result, "already_recorded", row, seen)
    if not rows:
        yield f"success, but step occurrence {result['step_occurrence_id']} has no response"


def all_responded(result: Any, seen: Seen) -> Iterator[str]:
    for row in result["rows"]:
        rows = seen.rows("respond", step_occurrence_id=row["step_occurrence_id"])
        for found in rows[:1]:
            recorded = {"option": found["detail"]["option"], "comment": found["detail"]["comment"]}
            yield from _differences(row, {**recorded, "instance_id": found["target"]["instance_id"]})
            if row["status"] == "already_recorded" and seen.alone and found in seen.new:
                yield f"row {row['row']} was recorded before, but this try did it"
        if (row["status"] in ("sent", "already_recorded")) != bool(rows):
            yield f"row {row['row']} is {row['status']}, but {len(rows)} responses are recorded"


def performed(result: Any, seen: Seen) -> Iterator[str]:
    rows = seen.rows("perform_activity", history_id=result["history_id"])
    for row in rows[:1]:
        recorded = {"activity": row["detail"]["activity"], "comments": row["detail"]["comments"]}
        yield from _differences(result, {**recorded, "performed_by": row["by"]})
        yield from _differences(result["state_before"], {"name": row["detail"]["state"]})
        yield from _already(result, "already_performed", row, seen)
    if not rows:
        yield f"success, but history {result['history_id']} is no activity of this task"
    if "state_after" in result:
        (now,) = (instance for instance in seen.state()["procore_legacy"] if instance["id"] == result["instance_id"])
        yield from _differences(result["state_after"], {"name": now["state"]})


def started(result: Any, seen: Seen) -> Iterator[str]:
    rows = seen.rows("start", instance_id=result["instance_id"], item_id=result["item_id"])
    if not rows:
        yield f"success, but instance {result['instance_id']} was not started"
    if result["adopted"] and seen.alone and rows and rows[0] in seen.new:
        yield "adopted is True, but this try has started the instance"
    if result["outcome"] is not None:
        (now,) = (instance for instance in seen.state()["procore"] if instance["id"] == result["instance_id"])
        yield from _differences(result["outcome"], {"state": now["state"]})


def waited(result: Any, seen: Seen) -> Iterator[str]:
    (now,) = (instance for instance in seen.state()["procore"] if instance["id"] == result["instance_id"])
    yield from _differences(result, {"state": now["state"], "item_status": now["item_status"]})


def all_started(result: Any, seen: Seen) -> Iterator[str]:
    for name in ("completed", "already_active"):
        for item in result[name]:
            if not seen.rows("start", **item):
                yield f"{name} names {item}, which was not started"
    if result["failed"]:
        yield f"failed names {result['failed']}"


def terminated(result: Any, seen: Seen) -> Iterator[str]:
    rows = seen.rows("terminate", instance_id=result["instance_id"])
    for row in rows[:1]:
        yield from _already(result, "already_ended", row, seen)
        if not result["ended_at"]:
            yield f"success, but ended_at is {result['ended_at']!r}"
    if not rows:
        yield f"success, but instance {result['instance_id']} was not terminated"


def restarted(result: Any, seen: Seen) -> Iterator[str]:
    rows = seen.rows("restart", instance_id=result["restarted_instance_id"])
    for row in rows[:1]:
        yield from _differences(result, {"instance_id": row["detail"]["new_instance_id"]})
    if not rows:
        yield f"success, but instance {result['restarted_instance_id']} was not restarted"


def added(result: Any, seen: Seen) -> Iterator[str]:
    rows = seen.rows("add_assignees", step_occurrence_id=result["step_occurrence_id"])
    recorded = {user_id for row in rows for user_id in row["detail"]["assignee_ids"]}
    if not {*result["added"]} <= recorded:
        yield f"added is {result['added']}, but recorded were {sorted(recorded)}"
    if seen.alone and (
        both := {*result["already_assigned"]} & {i for r in seen.new for i in r["detail"]["assignee_ids"]}
    ):
        yield f"already_assigned names {sorted(both)}, whom this try has added"


def replaced(result: Any, seen: Seen) -> Iterator[str]:
    if not seen.rows("bulk_replace", bulk_replace_request_id=result["request_id"]):
        yield f"success, but request {result['request_id']} replaced no one"
    if (result["status"], result["errors"]) != ("completed", 0):
        yield f"the replacement is completed without errors; it says {result}"


def presets_changed(result: Any, seen: Seen) -> Iterator[str]:
    for row in result["presets"]:
        changes = seen.rows("update_preset_assignees", preset_id=row["preset_id"])
        was_changed = bool(changes)
        if (row["status"] in ("applied", "unchanged")) != was_changed:
            yield f"preset {row['preset_id']} is {row['status']}, but recorded is {was_changed}"
        if row["status"] == "unchanged" and seen.alone and any(change in seen.new for change in changes):
            yield f"preset {row['preset_id']} is unchanged, but this try has changed it"


def received(result: Any, seen: Seen) -> Iterator[str]:
    shown = {instance["integration_instance_id"] for instance in seen.state()["workflowsoft"]}
    for instance in result:
        if instance["integration_instance_id"] not in shown:
            yield f"received {instance['integration_instance_id']}, which is no instance"


def written(result: Any, seen: Seen) -> Iterator[str]:
    rows = seen.rows("write_fields", integration_instance_id=result["integration_instance_id"])
    recorded = {name for row in rows for name in row["detail"]["fields"]}
    if {*result["written"]} - recorded:
        yield f"written are {result['written']}, but recorded were {sorted(recorded)}"


def completed(result: Any, seen: Seen) -> Iterator[str]:
    rows = seen.rows("complete", integration_instance_id=result["integration_instance_id"])
    for row in rows[:1]:
        yield from _differences(result, {"custom_action": row["detail"]["custom_action"]})
        yield from _already(result, "already_completed", row, seen)
    if not rows:
        yield f"success, but instance {result['integration_instance_id']} is not completed"


def handled(result: Any, seen: Seen) -> Iterator[str]:
    yield from written(result, seen)
    yield from completed(result, seen)


def process_started(result: Any, seen: Seen) -> Iterator[str]:
    if not seen.rows("start_process", process_instance_id=result["process_instance_id"]):
        yield f"success, but process {result['process_instance_id']} was not started"


def task_created(result: Any, seen: Seen) -> Iterator[str]:
    if not seen.rows("create_task", task_id=result["task_id"]):
        yield f"success, but task {result['task_id']} was not created"
