"""Options and recorded responses of Procore's response steps: which option is requested, and which one was chosen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.parameters import str_id
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.rules.procore import (
    current_step,
    details_of,
    events_of,
    response_options,
    responses_of_assignees,
)
from airflow_provider_workflows.rules.procore_decisions import commenters_of, is_commenter
from airflow_provider_workflows.rules.procore_decisions import rows_of as _rows
from airflow_provider_workflows.rules.procore_decisions import str_id as _id

Json = Mapping[str, Any]


def choose_option(
    options: list[dict[str, Any]], *, option: str | None = None, option_type: str | None = None
) -> dict[str, Any]:
    """
    Return the one response option that is requested.

    :param options: What :func:`.procore.response_options` returned.
    :param option: Its label, in any case, or its id; a label wins over an id.
    :param option_type: Its type, such as ``approve``; instead of ``option``.
    :return: ``{id, name, type, matched_by, others}``: ``matched_by`` is ``label``, ``id`` or ``type``, ``others`` are
        the other options.
    :raises ConfigurationError: none or several match; the message lists the candidates.
    """
    matched_by, matching = matching_options(options, option=option, option_type=option_type)
    if len(matching) == 1:
        others = [other for other in options if other is not matching[0]]
        return {**matching[0], "matched_by": matched_by, "others": others}
    parameter, value = ("option_type", option_type) if option is None else ("option", option)
    if matching:
        raise ConfigurationError(
            f"{parameter} {value!r} is the {matched_by} of several options of this step. Give the id of one of them: "
            f"{_candidates(matching)}."
        )
    raise ConfigurationError(
        f"{parameter} {value!r} matches no option of this step. Options: {_candidates(options) or 'none'}."
    )


def _candidates(options: Iterable[Json]) -> str:
    return ", ".join(f"{each['name']!r} (id {each['id']}, type {each['type']})" for each in options)


def matching_options(
    options: Collection[Json], *, option: str | None = None, option_type: str | None = None
) -> tuple[str | None, list[Json]]:
    """Return what the request matched, ``label``, ``id`` or ``type``, and the options that it matched by that."""
    matches = [(matched_by(each, option=option, option_type=option_type), each) for each in options]
    for kind in ("label", "id", "type"):
        if found := [each for match, each in matches if match == kind]:
            return kind, found
    return None, []


def matched_by(response: Json, *, option: str | None = None, option_type: str | None = None) -> str | None:
    """
    Return by what an option, or a recorded response, is the requested one: ``label``, ``id`` or ``type``; or None.

    :param response: ``{id, name, type}`` of an option, or a response with ``response_id``, too.
    """
    if option is None:
        return "type" if option_type is not None and _folded(response.get("type")) == _folded(option_type) else None
    if _folded(response.get("name")) == _folded(option):
        return "label"
    return "id" if option.strip() in (_id(response), str_id(response.get("response_id"))) else None


def is_recorded_option(recorded: Json, chosen: Json) -> bool | None:
    """
    Return whether a recorded response is the chosen option, or None if the record does not show it.

    For a past step Procore shows the option's type and a label, which can differ from the option's own label
    ("Approved" for "Approve").

    :param recorded: The result of :func:`recorded_response` or :func:`recorded_in_history`.
    :param chosen: ``{id, name, type, others}``: the option with the other options of its step.
    """
    if recorded.get("id") is not None and chosen.get("id") is not None:
        return str(recorded["id"]) == str(chosen["id"])
    label, kind = _folded(recorded.get("name")), _folded(recorded.get("type"))
    if kind and _folded(chosen.get("type")) and kind != _folded(chosen.get("type")):
        return False
    others = [other for other in _rows(chosen.get("others")) if not kind or _folded(other.get("type")) in ("", kind)]
    has_label_of_another = any(_folded(other.get("name")) == label for other in others)
    if label == _folded(chosen.get("name")):
        return None if has_label_of_another else True
    if has_label_of_another:
        return False
    # No option of the step has the label: then the type decides, if no other option has it.
    is_only_one = "others" in chosen and not others
    return True if kind and _folded(chosen.get("type")) and is_only_one else None


def is_recorded_response(recorded: Json, *, option: str | None = None, option_type: str | None = None) -> bool | None:
    """
    Decide from its record alone whether a recorded response is the requested one; None where that is not shown.

    :param recorded: As for :func:`is_recorded_option`.
    :param option: As for :func:`choose_option`; likewise ``option_type``.
    """
    if option is None:
        return _folded(recorded.get("type")) == _folded(option_type) if _folded(recorded.get("type")) else None
    match = matched_by(recorded, option=option)
    listed, _ = matching_options(_rows(recorded.get("options")), option=option)
    if match == "label":
        return True
    # Another label may be another option, or the same one as the history words it.
    if listed == "label" or (match is None and (listed is None or recorded.get("id") is None)):
        return None
    return match == "id"


@documented_form()
def recorded_response(instance: Json, step_occurrence_id: str, user_id: str) -> dict[str, Any] | None:
    """
    Return a user's response to a step occurrence if that is the current one, or None.

    :return: ``{step, id, name, type, comment, at}`` with the id, label and type of the chosen option; or None.
    """
    step = current_step(instance)
    if step is None or _id(step) != step_occurrence_id:
        return None
    own = [row for row in responses_of_assignees(step) if _id(row["assignee"]) == user_id]
    submitted = _submitted(own, at="submitted_at", option="selected_response_option")
    if submitted is None:
        return None
    option = submitted.get("selected_response_option") or {}
    return {
        "step": step.get("name"),
        "id": _id(option),
        "name": option.get("name"),
        "type": option.get("response_type"),
        "comment": submitted.get("comment"),
        "at": submitted["submitted_at"],
    }


def _submitted(own: Collection[Json], *, at: str, option: str) -> Json | None:
    """Return the row with a user's response; one without an option may be a remark, if another row shows more."""
    submitted = [row for row in own if row.get(at)]
    with_option = [row for row in submitted if row.get(option)]
    if with_option:
        return with_option[0]
    return submitted[0] if submitted and len(submitted) == len(own) else None


@documented_form()
def recorded_in_history(history: Json, step_occurrence_id: str, user_id: str) -> dict[str, Any] | None:
    """
    Return a user's response to a current or past step occurrence, from the instance's history.

    :return: As :func:`recorded_response`, with ``response_id`` and the ``options`` that the event lists; the option's
        id is known only where one of these, and no other, has the label.
    """
    for event in events_of(history):
        step = details_of(event)
        if event.get("type") != "ResponseStep" or _id(step) != step_occurrence_id:
            continue
        rows = () if user_id in commenters_of(step) else _rows(step.get("responses"))
        own = [row for row in rows if _id(row) == user_id and not is_commenter(row)]
        response = _submitted(own, at="responded_at", option="response")
        if response is None:
            continue
        label, kind = response.get("response"), response.get("response_type")
        options = response_options(step)
        ids = [
            option["id"]
            for option in options
            if _folded(option["name"]) == _folded(label) and _folded(kind) in ("", _folded(option["type"]))
        ]
        return {
            "step": step.get("name"),
            "id": ids[0] if len(ids) == 1 else None,
            "response_id": str_id(response.get("response_id")),
            "options": options,
            "name": label,
            "type": kind,
            "comment": response.get("comment"),
            "at": response["responded_at"],
        }
    return None


def _folded(value: Any) -> str:
    """Return a label for comparison: stripped and without case."""
    return "" if value is None else str(value).strip().casefold()
