"""
A request to decide about a Procore step (Workflows v2) in Airflow's Required Actions: its choices, text and response.

Airflow delivers a person's choice in two forms, as its own event and as the trigger's; :meth:`Choice.of` reads both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules import procore_responses as response_rules
from airflow_provider_workflows.rules.parameters import is_template
from airflow_provider_workflows.rules.procore_decisions import Event, Timeline, has_end_time, is_given, rows_of, str_id

NOTE = "note"  # name of the request's one field
# With "null" among its types a field may stay empty; otherwise Airflow disables the buttons until it is filled.
NOTE_FIELD = {
    NOTE: {
        "value": None,
        "description": "Optional; goes into the comment in Procore.",
        "schema": {"type": ["string", "null"], "title": "Note"},
    }
}
MAX_TEXT_CHARACTERS = 1000  # of one text in the request
PUNCTUATION = r"[!-/:-@\[-`{-~]"  # `re` compiles patterns once when they are first used
# They reorder what is shown, so a text could look like another one.
DIRECTION_MARKS = "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
CONTROLS = r"[\x00-\x1f\x7f-\x9f\s]+"


class Choice(NamedTuple):
    """
    Describe what a person chose in Airflow.

    :param option: The choice, as Airflow showed it.
    :param note: The person's note, or None.
    :param by: Name of the Airflow user, or None.
    :param by_id: Id of the Airflow user, or None.
    :param at: Time of the response as an ISO-8601 time, or None.
    """

    option: str
    note: str | None = None
    by: str | None = None
    by_id: str | None = None
    at: str | None = None

    @classmethod
    def of(cls, event: Any) -> Choice | None:
        """Return the choice in the event that resumed the task, or None if the event is about something else."""
        chosen = event.get("chosen_options") if isinstance(event, Mapping) else None
        if not isinstance(chosen, Sequence) or isinstance(chosen, str) or not chosen:
            return None
        user, entered = event.get("responded_by_user"), event.get("params_input")
        user = user if isinstance(user, Mapping) else {}
        note = entered.get(NOTE) if isinstance(entered, Mapping) else None
        at = event.get("responded_at")
        return cls(
            option=str(chosen[0]),
            note=str(note).strip() or None if is_given(note) else None,
            by=_text(user.get("name")),
            by_id=_text(user.get("id")),
            at=_text(at.isoformat() if hasattr(at, "isoformat") else at),
        )

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> Choice | None:
        """Return the choice that :meth:`to_dict` described; None of nothing."""
        return None if stored is None else cls(**stored)

    def to_dict(self) -> dict[str, Any]:
        return self._asdict()

    @property
    def who(self) -> str:
        """The Airflow user, for a sentence."""
        if self.by is None and self.by_id is None:
            return "an unknown user"
        name = self.by or f"user {self.by_id}"
        return name if self.by_id in (None, self.by) or self.by is None else f"{name} (id {self.by_id})"

    @property
    def comment(self) -> str:
        """The comment of the response in Procore; the same in every try, because it is compared with the record."""
        decided = f"Decided in Airflow by {self.who}."
        return decided if self.note is None else f"{decided} {self.note}"


def _text(value: Any) -> str | None:
    return str(value) if is_given(value) else None


def choices_of(options: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """
    Return the choices for the options of a step: what Airflow shows, and what ``ProcoreRespondOperator`` takes for it.

    A label that several options have is shown with its id.

    :param options: What :func:`.procore.response_options` returned.
    :raises ConfigurationError: the step has no options, or one of them cannot be named.
    """
    if not options:
        raise ConfigurationError("The step has no response options, so there is nothing to decide about it.")
    labels = [_one_line(option["name"]) for option in options]
    choices: dict[str, str] = {}
    for option, label in zip(options, labels, strict=True):
        is_unique = label and [other.casefold() for other in labels].count(label.casefold()) == 1
        shown = label if is_unique else f"{label or _one_line(option['type']) or 'Option'} (id {option['id']})"
        requested = str(option["name"] if is_unique else option["id"])
        # A label wins over an id, so the id of one option could be taken for the label of another.
        chosen = response_rules.choose_option([dict(each) for each in options], option=requested)
        if shown in choices or chosen["id"] != option["id"]:
            raise ConfigurationError(
                f"Options of the step have equal labels: {', '.join(map(repr, labels))}. Rename them in Procore."
            )
        choices[shown] = requested
    return choices


# --- the text of the request ---


def with_original_text(rendered: Mapping[str, Any], given: Any) -> dict[str, Any]:
    """
    Return the fields to show, with each text as the DAG gave it.

    With ``render_template_as_native_obj``, Airflow makes a number or a tuple of a text such as "12.10" or "1,200".

    :param rendered: The fields after rendering.
    :param given: The fields in the DAG file, or a template for all of them.
    :raises ConfigurationError: the original text of a template is unknown.
    """
    return {
        label: _original(label, value, given.get(label) if isinstance(given, Mapping) else given)
        for label, value in rendered.items()
    }


def _original(label: Any, rendered: Any, given: Any) -> Any:
    if isinstance(given, str):
        if not is_template(given):
            return given
        if rendered is None or isinstance(rendered, (str, bool)) or type(rendered) is int:
            return rendered
        raise ConfigurationError(
            f"fields: the template of {label!r} was rendered to {type(rendered).__name__} {str(rendered)[:100]!r}, so "
            "its original text is unknown. End the template with the filters string and tojson, or give the "
            "output of a task instead of a template."
        )
    if isinstance(given, Mapping):
        return {key: _original(label, rendered[key], value) for key, value in given.items()}
    if isinstance(given, (list, tuple)):
        return [_original(label, *values) for values in zip(rendered, given, strict=True)]
    return rendered


def subject_of(instance: Mapping[str, Any], step: Mapping[str, Any]) -> str:
    """Return the headline of the request; Airflow shows it as plain text."""
    return f"{_one_line(step.get('name')) or 'Workflow step'}: {_item(instance)}"


def body_of(
    instance: Mapping[str, Any],
    step: Mapping[str, Any],
    fields: Mapping[str, Any],
    item_url: str | None,
    *,
    is_dry_run: bool = False,
) -> str:
    """
    Return the text of the request as Markdown, with every value escaped.

    :param instance: ``data`` of "Show Workflow Instance".
    :param step: Its current step.
    :param fields: Further values by their labels, as the DAG author chose them.
    :param item_url: URL of the item in Procore, or None.
    :param is_dry_run: Whether a choice is not sent.
    """
    known = {
        "Item": _item(instance),
        "Step": step.get("name"),
        "Waiting since": step.get("started_at"),
        "Due": step.get("overdue_at"),
    }
    rows = {**{label: value for label, value in known.items() if is_given(value)}, **fields}
    lines = [f"- **{escaped(label)}:** {escaped(value)}" for label, value in rows.items()]
    if item_url and item_url.startswith(("https://", "http://")):
        lines += ["", f"[Open the item in Procore](<{quote(item_url, safe=URL_CHARACTERS)}>)"]
    rule = "The first response counts, here or in Procore."
    return "\n".join([*lines, "", "**Dry run:** a choice here is not sent to Procore." if is_dry_run else rule])


URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=-._~"  # all of a URL; so quoting leaves a URL as it is


def escaped(value: Any) -> str:
    """Return a value as Markdown that shows it literally, on one line."""
    return re.sub(PUNCTUATION, r"\\\g<0>", _one_line(value)) or "(empty)"


def _one_line(value: Any) -> str:
    if value is None:
        return ""
    text = re.sub(CONTROLS, " ", re.sub(DIRECTION_MARKS, "", str(value))).strip()
    return text if len(text) <= MAX_TEXT_CHARACTERS else f"{text[: MAX_TEXT_CHARACTERS - 1]}…"


def _item(instance: Mapping[str, Any]) -> str:
    tool = _one_line(instance.get("tool_type")).replace("_", " ")
    return f"{tool} {_one_line(instance.get('item_id'))}".strip() or "item"


# --- the step, from the history ---


def over_in_history(history: Timeline, step_occurrence_id: str, user_id: str) -> str | None:
    """
    Return why a step occurrence no longer waits for a user, as the end of a sentence, or None while it may wait.

    :raises LookupError: the history does not show the step occurrence, as events can be hidden.
    """
    if rules.has_ended({"ended_at": history.ended_at, "state": history.state}):
        return "the instance has ended"
    step = occurrence_in(history, step_occurrence_id)
    if step is None:
        raise LookupError(step_occurrence_id)
    override = step.details.get("override")
    if has_end_time(step.details) or (isinstance(override, Mapping) and is_given(override.get("overridden_at"))):
        return "the step is over"
    if any(
        str_id(row) == user_id and is_given(row.get("responded_at")) for row in rows_of(step.details.get("responses"))
    ):
        return "the connection's user has responded in Procore"
    if any(other.rank > step.rank for other in history.steps("ResponseStep", "Action", "EndStep")):
        return "the instance has moved on"
    return None


def occurrence_in(history: Timeline, step_occurrence_id: str) -> Event | None:
    """Return a step occurrence of a history, or None if the history does not show it."""
    found = (event for event in history.steps("ResponseStep") if str_id(event.details) == step_occurrence_id)
    return next(found, None)


def over_as_shown(instance: Mapping[str, Any], step_occurrence_id: str, user_id: str) -> str | None:
    """Return why a step occurrence no longer waits for a user, from the instance as shown, or None."""
    step = rules.current_step(instance)
    if rules.has_ended(instance):
        return "the instance has ended"
    if step is None:
        return None
    if str(step["id"]) != step_occurrence_id:
        return "the instance has moved on"
    return None if rules.is_pending(step, user_id) else "the step no longer waits for the connection's user"
