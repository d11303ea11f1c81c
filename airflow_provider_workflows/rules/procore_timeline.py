"""What the events of a Procore history say: in which order they happened, and what was decided at each step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from airflow_provider_workflows.rules.datetimes import unix_time

Json = Mapping[str, Any]

ENDED_STATES = frozenset({"complete", "terminated"})
STATES = frozenset({"blocked", "overdue", "warning", "in_progress", "processing"}) | ENDED_STATES
ENDED = "ended"  # nothing says whether it was completed or terminated
STEP_EVENTS = ("ResponseStep", "Action", "Conditional", "EndStep")
# Of events that began in the same second these came first, whatever the list's order is: the start of the workflow,
# its steps by their ends, its end.
FIRST_TO_LAST = {"WorkflowStarted": 0, "EndStep": 2, "WorkflowTerminated": 3}
NEVER = float("inf")
NOT_STATED: Json = {"option": None, "type": None, "source": None}


class AmbiguousHistory(Exception):
    """
    Raised when the histories of an item do not show which of them belongs to the instance that is waited for.

    :param is_missing: None of them does, as far as they show.
    """

    def __init__(self, is_missing: bool):
        super().__init__(is_missing)
        self.is_missing = is_missing


@dataclass(frozen=True)
class Event:
    """
    An event of a history.

    :param given: The event as the API gave it; it may be anything.
    :param kind: Its type, or None.
    :param details: Its details, or an empty mapping.
    :param rank: Its place in the order of time; events of one rank are those whose order nothing shows.
    """

    given: Any
    kind: str | None
    details: Json
    rank: int = 0

    @property
    def started(self) -> Any:
        """When it began, as the API wrote it; nothing for a step that is only planned."""
        return _first_given(self.details, "started_at", "evaluated_at", "terminated_at", "ended_at")

    @property
    def ended(self) -> Any:
        """When it ended, as the API wrote it, or nothing."""
        return _first_given(self.details, "ended_at", "evaluated_at", "terminated_at")


class Timeline:
    """
    The events of a history, the oldest first, and what they say together.

    Nothing documents in which order a history lists its events, so they are sorted by time. Among those of one
    second their places decide, in the direction that the other times of the list show.

    :param history: ``data`` of "Show Workflow Instance History"; events that are no list count as none.
    """

    def __init__(self, history: Json):
        self.history = history
        self.events = _in_order(history.get("history"))

    def steps(self, *kinds: str) -> list[Event]:
        """Return the steps that have begun, of all kinds or of some."""
        return [event for event in self.events if event.kind in (kinds or STEP_EVENTS) and event.started]

    # --- where the instance stands ---

    @property
    def state(self) -> str:
        """One of :data:`STATES`, ``ended`` where nothing says how, or a word that this package does not know yet."""
        said = self.history.get("status")
        text = said.strip() if isinstance(said, str) else ""
        text = text.casefold() if text.casefold() in STATES else text
        # The word tells how urgent an instance is, so one that has ended may still be called overdue.
        is_over = is_given(self.history.get("ended_at"))
        if text and not (is_over and text in STATES - ENDED_STATES):
            return text
        if self._terminations():
            return "terminated"
        if self.ended_at:
            return "complete" if any(end.ended for end in self.steps("EndStep")) else ENDED
        return "blocked" if is_given(self.history.get("blocked_reason")) else "in_progress"

    @property
    def ended_at(self) -> Any:
        """When the instance ended, as the API wrote it, or None."""
        own, status = self.history.get("ended_at"), self.history.get("status")
        if is_given(own):
            return own
        if terminated_at := next((e.ended for e in self._terminations() if e.ended), None):
            return terminated_at
        has_ended = isinstance(status, str) and status.strip().casefold() in ENDED_STATES
        if not has_ended and (is_given(status) or "ended_at" in self.history):
            return None  # a history that says where it stands has not ended before it says so
        return next((end.details["ended_at"] for end in self.steps("EndStep") if given_end(end.details)), None)

    @property
    def started_at(self) -> Any:
        """When the instance started, as the API wrote it, or None."""
        own = self.history.get("started_at")
        started = (event.details["started_at"] for event in self.events if is_given(event.details.get("started_at")))
        return own if is_given(own) else next(started, None)

    def terminated_by(self) -> Any:
        """Return who terminated the instance, as the API says it, or None."""
        terminations = self._terminations()
        return terminations[-1].details.get("terminated_by") if terminations else None

    def _terminations(self) -> list[Event]:
        return [event for event in self.events if event.kind == "WorkflowTerminated"]

    def current_steps(self, *kinds: str) -> list[Event]:
        """Return the step that began last and has not ended: none, one, or several whose order nothing shows."""
        return _latest(step for step in self.steps(*kinds) if not given_end(step.details))

    def item_statuses(self) -> list[Any]:
        """Return what the last step says of the item: one status, none, or several whose order nothing shows."""
        # The status of an action is its own.
        steps = [s for s in self.steps("ResponseStep", "EndStep") if is_given(s.details.get("status"))]
        found: list[Any] = []
        for step in _latest(steps):
            if step.details["status"] not in found:
                found.append(step.details["status"])
        return found

    # --- what was responded and decided ---

    def last_response(self, steps: Iterable[Event] | None = None) -> dict[str, Any] | None:
        """Return the latest response of a responder as ``{option, type, comment, by, at}``, of all steps or of some."""
        chosen = self.events if steps is None else steps
        given = [response for step in chosen for response in responses_of(step.details)]
        if not given:
            return None
        last = sorted(given, key=lambda response: seconds(response["responded_at"]))[-1]
        return {
            "option": last.get("response"),
            "type": last.get("response_type"),
            "comment": last.get("comment"),
            "by": person(last),
            "at": last["responded_at"],
        }

    def last_decision(self) -> dict[str, Any] | None:
        """Return what :meth:`decision_at` says of the response step that was over last, or None."""
        last = _latest(step for step in self.steps("ResponseStep") if self._is_over(step))
        decisions = [self.decision_at(step) for step in last]
        options = [None if decision is None else decision["option"] for decision in decisions]
        if len(set(options)) < 2:
            return decisions[-1] if decisions else None
        candidates = [option for option in options if option is not None]
        names = ", ".join(_name(step) for step in last)
        return {
            **dict.fromkeys(("option", "type", "by", "at", "source")),
            "candidates": candidates,
            "problem": f"the history does not tell which was decided last, {names}",
        }

    def decision_at(self, step: Event) -> dict[str, Any] | None:
        """
        Return what was decided at a response step, or None: it goes on, or nothing of a decision is shown.

        :return: ``{option, type, by, at, source, candidates, problem}``. ``source`` is what tells it:
            ``overall_response``, ``override`` or, where the record has neither, ``responses`` that are all the
            same. ``problem`` says in words why the decision cannot be relied on, else it is None; ``candidates``
            are the options that it may be then.
        """
        if step.kind != "ResponseStep" or not self._is_over(step):
            return None
        override = step.details.get("override")
        override = override if isinstance(override, Mapping) and override else None
        given = responses_of(step.details)
        stated = _overall(step.details, given)
        decision: dict[str, Any]
        if stated is not None:
            fitting = [response for response in given if _fits(response, stated)]
            decision = {**stated, "source": "overall_response"}
        elif override is not None:
            problem = f"nothing says to which option {_name(step)} was overridden"
            fitting, decision = [], {**NOT_STATED, "candidates": _labels(given), "problem": problem}
        elif not given or self._was_cut_off(step):
            return None
        elif len(labels := _labels(given)) == 1 and labels[0]:
            fitting = given
            decision = {"option": labels[0], "type": _word(given[0].get("response_type")), "source": "responses"}
        else:
            problem = f"nothing says which of the responses {', '.join(map(repr, labels))} decided {_name(step)}"
            fitting, decision = [], {**NOT_STATED, "candidates": labels, "problem": problem}
        by, at = None, step.ended or self.ended_at
        if override is not None:
            by = override.get("overridden_by")
            by, at = person(by) if isinstance(by, Mapping) else None, override.get("overridden_at") or at
            decision["source"] = "override"
        elif len(fitting) == 1:
            by, at = person(fitting[0]), fitting[0]["responded_at"]
        decision = {"candidates": [], "problem": None, **decision, "by": by, "at": at}
        # Of an earlier step the item's status says nothing any more.
        if decision["problem"] is None and step in _latest(self.steps("ResponseStep")):
            decision |= self._contradiction(step, decision)
        return decision

    def _is_over(self, step: Event) -> bool:
        override = step.details.get("override")
        is_overridden = isinstance(override, Mapping) and is_given(override.get("overridden_at"))
        return given_end(step.details) or is_overridden or is_given(self.ended_at) or self.state in ENDED_STATES

    def _was_cut_off(self, step: Event) -> bool:
        """Tell whether a step was over because the instance was terminated, not because somebody had responded."""
        if self.state != "terminated" or step not in _latest(self.steps()):
            return False
        end, terminated = unix_time(step.details.get("ended_at")), unix_time(self.ended_at)
        return end is None or terminated is None or end >= terminated

    def _contradiction(self, step: Event, decision: Json) -> dict[str, Any]:
        """Say so if the item's status is that of another option of the step, and not of the decided one."""
        statuses = self.item_statuses()
        if len(statuses) != 1:
            return {}
        same_step = [one.details for one in self.steps("ResponseStep") if _is_same_step(one.details, step.details)]
        options = _called_options(same_step)
        option, kind, status = _folded(decision["option"]), _folded(decision["type"]), _folded(statuses[0])
        decided = [one for one in options if option in one.labels or (not option and kind in one.words)]
        own = {option, kind, _folded(step.details.get("overall_response_description"))}.union(
            *(one.words for one in decided)
        )
        if status in own or not any(status in one.words for one in options):
            return {}
        name = str(decision["option"] or decision["type"])
        return {
            "candidates": [name],
            "problem": f"the decision {name!r} at {_name(step)} contradicts the item status {statuses[0]!r}, which "
            "belongs to another option of the step",
        }


# --- the order of events ---


def _in_order(events: Any) -> list[Event]:
    """Return events, the oldest first."""
    found = [_event(event) for event in events] if isinstance(events, list) else []
    moments = [unix_time(event.started) for event in found]
    timed = [(moment, event) for moment, event in zip(moments, found, strict=True) if moment is not None]
    direction = _direction([moment for moment, _ in timed]) if timed else 0
    if direction == 0 and len({moment for moment, _ in timed}) == 1:
        direction = _direction([_hint(event) for _, event in timed])
    pairs = list(zip(moments, found, strict=True))
    if direction < 0:
        pairs.reverse()
    keyed: list[tuple[tuple[Any, ...], Event]] = []
    latest = float("-inf")
    for place, (moment, event) in enumerate(pairs):
        latest = latest if moment is None else moment  # what has no time stays where it is in the list
        # Without a direction only what is certain by itself orders events of one second.
        keyed.append(((latest, place if direction else _hint(event)), event))
    keyed.sort(key=lambda pair: pair[0])
    ordered: list[Event] = []
    for place, (key, event) in enumerate(keyed):
        rank = ordered[-1].rank if place and key == keyed[place - 1][0] else place
        ordered.append(Event(event.given, event.kind, event.details, rank))
    return ordered


def _direction(keys: Sequence[Any]) -> int:
    """Return 1 for a list that only rises, -1 for one that only falls, 0 where it does both or neither."""
    rises = any(before < after for before, after in pairwise(keys))
    falls = any(before > after for before, after in pairwise(keys))
    return rises - falls


def _event(given: Any) -> Event:
    kind = given.get("type") if isinstance(given, Mapping) else None
    details = given.get("details") if isinstance(given, Mapping) else None
    return Event(given, kind if isinstance(kind, str) else None, details if isinstance(details, Mapping) else {})


def _hint(event: Event) -> tuple[int, float]:
    end = unix_time(event.ended)
    return FIRST_TO_LAST.get(event.kind or "", 1), NEVER if end is None else end


def _latest(events: Iterable[Event]) -> list[Event]:
    """Return the latest event, or those of which nothing says which is."""
    found = list(events)
    last = max((event.rank for event in found), default=None)
    return [event for event in found if event.rank == last]


# --- fields ---


def responses_of(step: Json) -> list[Json]:
    """Return the responses that were given at a step, by those whose responses count."""
    commenters = commenters_of(step)
    return [
        response
        for response in rows_of(step.get("responses"))
        if is_given(response.get("responded_at")) and not is_commenter(response) and str_id(response) not in commenters
    ]


def commenters_of(step: Json) -> set[str | None]:
    """Return the ids of those who are asked for a comment only, where the step names them beside its responses."""
    named = (row for key in ("individual_assignees", "additional_assignees") for row in rows_of(step.get(key)))
    return {str_id(row) for row in named if is_commenter(row)}


def is_commenter(row: Json) -> bool:
    return _folded(row.get("role_type")) == "commenter"


def options_of(step: Json) -> list[Json]:
    """Return the response options that a step lists, under either of their names."""
    return rows_of(step.get("available_response_options")) or rows_of(step.get("available_responses"))


def _labels(responses: Iterable[Json]) -> list[str]:
    """Return the options of responses, each once, by their labels, else by their types."""
    words = [_word(r.get("response")) or _word(r.get("response_type")) or "" for r in responses]
    return list({text.casefold(): text for text in words}.values())


def _overall(step: Json, given: Iterable[Json]) -> dict[str, str | None] | None:
    """Return the option and type that the record of a step calls its overall response, or None."""
    option, kind = _word(step.get("overall_response")), _word(step.get("overall_response_type"))
    if option is None and kind is None:
        return None
    stated = {"option": option, "type": kind}
    fitting = [response for response in given if _fits(response, stated)]
    if kind is None:
        kinds = {_word(response.get("response_type")) for response in fitting}
        kind = kinds.pop() if len(kinds) == 1 else None
    if option is None:
        labels = _labels(fitting) or [
            name
            for row in options_of(step)
            if _folded(row.get("response_type")) == _folded(kind) and (name := _word(row.get("name")))
        ]
        option = labels[0] if len(labels) == 1 else None
    return {"option": option, "type": kind}


@dataclass
class _CalledOption:
    """An option of a step and all that it is called: ``words`` are its labels, type and status, without case."""

    ids: set[str]
    labels: set[str]
    kinds: set[str]
    words: set[str]


def _called_options(steps: Iterable[Json]) -> list[_CalledOption]:
    """Return the options of the visits of a step, each with the labels under which the history records it, too."""
    found: list[_CalledOption] = []
    for option_id, label, kind, status in _mentioned_options(steps):
        ids = set() if option_id is None else {str(option_id)}
        labels, kinds = {_folded(label)} - {""}, {_folded(kind)} - {""}
        words = labels | kinds | {_folded(status)} - {""}
        for known in found:
            is_same_id = ids & known.ids and (not kinds or not known.kinds or kinds & known.kinds)
            if is_same_id or labels & known.labels:
                known.ids |= ids
                known.labels |= labels
                known.kinds |= kinds
                known.words |= words
                break
        else:
            found.append(_CalledOption(ids, labels, kinds, words))
    return found


def _mentioned_options(steps: Iterable[Json]) -> Iterator[tuple[Any, Any, Any, Any]]:
    for step in steps:
        for option in options_of(step):
            yield option.get("id"), option.get("name"), option.get("response_type"), option.get("status")
        for row in responses_of(step):
            yield row.get("response_id"), row.get("response"), row.get("response_type"), row.get("status")


def _is_same_step(one: Json, other: Json) -> bool:
    key = "uuid" if is_given(one.get("uuid")) and is_given(other.get("uuid")) else "name"
    return _folded(one.get(key)) == _folded(other.get(key))


def _fits(response: Json, stated: Json) -> bool:
    """Tell whether a response is for the option of an overall response."""
    if stated["option"] is not None and is_given(response.get("response")):
        return _folded(response["response"]) == _folded(stated["option"])
    return stated["type"] is not None and _folded(response.get("response_type")) == _folded(stated["type"])


def _folded(value: Any) -> str:
    return (_word(value) or "").casefold()


def _word(value: Any) -> str | None:
    """Return a label or a type, without blanks around it; None where there is none."""
    if isinstance(value, Mapping):  # an option instead of its label
        value = value.get("name")
    return value.strip() or None if isinstance(value, str) else None


def person(row: Json) -> Any:
    """Return somebody's login, or name."""
    return row.get("login") or row.get("name")


def given_end(step: Json) -> bool:
    """Tell whether a step has an end."""
    return is_given(step.get("ended_at"))


def is_given(value: Any) -> bool:
    """Tell whether a field holds something; an empty text is nothing."""
    return bool(value.strip()) if isinstance(value, str) else bool(value)


def seconds(time: Any) -> float:
    """Return a sort key of a time; what cannot be read comes before everything."""
    moment = unix_time(time)
    return float("-inf") if moment is None else moment


def str_id(record: Json) -> str | None:
    return None if record.get("id") is None else str(record["id"])


def rows_of(value: Any) -> list[Json]:
    """Return the objects of a list; nothing of whatever else came."""
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def _first_given(details: Json, *keys: str) -> Any:
    return next((details[key] for key in keys if is_given(details.get(key))), None)


def _name(step: Event) -> str:
    return f"step {step.details.get('name')!r}"
