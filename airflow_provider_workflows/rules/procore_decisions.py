"""The timeline of a Procore history: sorts its events, and derives the state and the decision at each step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from airflow_provider_workflows.rules.datetimes import unix_time

Json = Mapping[str, Any]

ENDED_STATES = frozenset({"complete", "terminated"})
STATES = frozenset({"blocked", "overdue", "warning", "in_progress", "processing"}) | ENDED_STATES
ENDED = "ended"  # completed or terminated; the history does not show which
BEFORE_THE_END = ("ResponseStep", "Action", "Conditional")
STEP_EVENTS = (*BEFORE_THE_END, "EndStep")
# Order of events that started in the same second: the start of the workflow, its steps by their ends, its end.
ORDER_WITHIN_SECOND = {"WorkflowStarted": 0, "EndStep": 2, "WorkflowTerminated": 3}
NEVER = float("inf")
# A termination ends the step and the instance, in this order; a step that ended sooner than this before was decided.
CUT_OFF_SECONDS = 60.0
# What Procore's own words for options and statuses say; a label or a status of the customer's may say anything.
IS_POSITIVE = {
    **dict.fromkeys(("approve", "approved"), True),
    **dict.fromkeys(("reject", "rejected", "return", "returned"), False),
}
NOT_STATED: Json = {"option": None, "type": None, "source": None}


class AmbiguousHistory(Exception):
    """
    Raised when the histories of an item do not show which of them belongs to the awaited instance.

    :param is_missing: Whether no history can belong to it.
    """

    def __init__(self, is_missing: bool):
        super().__init__(is_missing)
        self.is_missing = is_missing


class Event(NamedTuple):
    """
    Hold an event of a history.

    :param raw: The event as returned by the API; may be malformed.
    :param kind: Type of the event, or None.
    :param details: Details of the event, or an empty mapping.
    :param rank: Chronological place; events of equal rank have an unknown order.
    """

    raw: Any
    kind: str | None
    details: Json
    rank: int = 0

    @property
    def started(self) -> Any:
        """The API's time of its start; None for a planned step."""
        return _first_value(self.details, "started_at", "evaluated_at", "terminated_at", "ended_at")

    @property
    def ended(self) -> Any:
        """The API's time of its end, or None."""
        return _first_value(self.details, "ended_at", "evaluated_at", "terminated_at")


class Timeline:
    """
    Sort the events of a history, the oldest first, and derive the instance's state and decisions from them.

    The order of events in a history is not documented, so they are sorted by time. Events of the same second are sorted
    by their places, in the direction that the other times of the list show.

    :param history: ``data`` of "Show Workflow Instance History"; events that are not a list are ignored.
    """

    def __init__(self, history: Json):
        self.history = history
        self.events = _in_order(history.get("history"))
        self._steps = _without_copies(event for event in self.events if event.kind in STEP_EVENTS and event.started)

    def steps(self, *kinds: str) -> list[Event]:
        """Return the steps that have started, of all kinds or of some."""
        return [event for event in self._steps if not kinds or event.kind in kinds]

    # --- the state of the instance ---

    @property
    def state(self) -> str:
        """One of :data:`STATES`, ``ended`` if it is unknown how it ended, or a state unknown to this package."""
        status = self.history.get("status")
        text = status.strip() if isinstance(status, str) else ""
        text = text.casefold() if text.casefold() in STATES else text
        # The status includes the urgency of an instance, so an ended instance may still be "overdue".
        is_over = is_given(self.history.get("ended_at"))
        is_end_of_both = text == "complete" and self._terminations()  # who terminated it is stated, so it was
        if text and not is_end_of_both and not (is_over and text in STATES - ENDED_STATES):
            return text
        if self._terminations():
            return "terminated"
        if self.ended_at:
            return self._kind_of_end()
        return "blocked" if is_given(self.history.get("blocked_reason")) else "in_progress"

    def _kind_of_end(self) -> str:
        """Return how the instance ended according to its end steps, which a termination can have, too."""
        kinds = {_folded(end.details.get("end_type")) for end in self.steps("EndStep") if end.ended}
        if any("terminat" in kind for kind in kinds):
            return "terminated"
        is_unfinished = any(map(_lacks_responses, _latest(self.steps(*BEFORE_THE_END))))
        return "complete" if "success" in kinds or (kinds and not is_unfinished) else ENDED

    @property
    def ended_at(self) -> Any:
        """The API's time of the instance's end, or None."""
        own, status = self.history.get("ended_at"), self.history.get("status")
        if is_given(own):
            return own
        if terminated_at := next((e.ended for e in self._terminations() if e.ended), None):
            return terminated_at
        has_ended = isinstance(status, str) and status.strip().casefold() in ENDED_STATES
        if not has_ended and (is_given(status) or "ended_at" in self.history):
            return None  # a history with a status or "ended_at" has not ended before it says so
        return next((end.details["ended_at"] for end in self.steps("EndStep") if has_end_time(end.details)), None)

    @property
    def started_at(self) -> Any:
        """The API's time of the instance's start, or None."""
        own = self.history.get("started_at")
        started = (event.details["started_at"] for event in self.events if is_given(event.details.get("started_at")))
        return own if is_given(own) else next(started, None)

    def terminated_by(self) -> Any:
        """Return the user who terminated the instance, as the API returns it, or None."""
        terminations = self._terminations()
        return terminations[-1].details.get("terminated_by") if terminations else None

    def _terminations(self) -> list[Event]:
        return [event for event in self.events if event.kind == "WorkflowTerminated"]

    def current_steps(self, *kinds: str) -> list[Event]:
        """Return the step that started last and has not ended; several if their order is unknown."""
        return _latest(step for step in self.steps(*kinds) if not has_end_time(step.details))

    def item_statuses(self) -> list[Any]:
        """
        Return the status that the last decision gave the item; several if the order of the last steps is unknown.

        A status from before the last decision is not returned: it may belong to another option.
        """
        decided = min((step.rank for step in _latest(filter(self._was_decided, self.steps("ResponseStep")))), default=0)
        # The status of an action is that of the action, not of the item.
        steps = [
            step
            for step in self.steps("ResponseStep", "EndStep")
            if step.rank >= decided and is_given(step.details.get("status"))
        ]
        found: list[Any] = []
        for step in _latest(steps):
            if step.details["status"] not in found:
                found.append(step.details["status"])
        return found

    # --- what was responded and decided ---

    def last_response(self, steps: Iterable[Event] | None = None) -> dict[str, Any] | None:
        """
        Return the latest response of a responder, of all steps or of some: ``{option, type, comment, by, at}``.

        None if there is none, or if :meth:`has_unclear_last_response`.
        """
        last = self._last_responses(steps)
        if not last or len(_labels(last)) > 1:
            return None
        response = last[-1]
        return {
            "option": response.get("response"),
            "type": response.get("response_type"),
            "comment": response.get("comment"),
            "by": person(response),
            "at": response["responded_at"],
        }

    def has_unclear_last_response(self) -> bool:
        """Return whether the latest responses came in the same second, with different options."""
        return len(_labels(self._last_responses())) > 1

    def _last_responses(self, steps: Iterable[Event] | None = None) -> list[Json]:
        """Return the latest response of all steps or of some; several if their order is unknown."""
        chosen = self.events if steps is None else steps
        found = [
            ((seconds(response["responded_at"]), step.rank), response)
            for step in chosen
            for response in responses_of(step.details)
        ]
        latest = max((key for key, _ in found), default=None)
        return [response for key, response in found if key == latest]

    def last_decision(self) -> dict[str, Any] | None:
        """Return the decision of the response step that ended last, as :meth:`decision_at`, or None."""
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
            "problem": f"the history does not show which step was decided last: {names}",
        }

    def decision_at(self, step: Event) -> dict[str, Any] | None:
        """
        Return the decision at a response step, or None if the step has not ended or does not show a decision.

        :return: ``{option, type, by, at, source, candidates, problem}``. ``source`` is ``overall_response``,
            ``override`` or, if the step has neither, ``responses`` that are all equal. ``problem`` describes why the
            decision is not certain, or is None; ``candidates`` are the possible options then.
        """
        if step.kind != "ResponseStep" or not self._is_over(step):
            return None
        override = step.details.get("override")
        override = override if isinstance(override, Mapping) and override else None
        step_responses = responses_of(step.details)
        stated = _overall(step.details, step_responses)
        decision: dict[str, Any]
        if stated is not None:
            fitting = [response for response in step_responses if _fits(response, stated)]
            decision = {**stated, "source": "overall_response"}
            if (contradicted := self._contradiction_in_step(step, stated)) is not None:
                name = str(stated["option"] or stated["type"])
                problem = f"the overall response {name!r} of {_name(step)} contradicts {contradicted}"
                decision |= {"candidates": list(dict.fromkeys([name, *_labels(step_responses)])), "problem": problem}
        elif override is not None:
            problem = f"the history does not show to which option {_name(step)} was overridden"
            fitting, decision = [], {**NOT_STATED, "candidates": _labels(step_responses), "problem": problem}
        elif not step_responses or self._was_cut_off(step):
            return None
        elif len(labels := _labels(step_responses)) == 1 and labels[0]:
            fitting = step_responses
            decision = {
                "option": labels[0],
                "type": _label(step_responses[0].get("response_type")),
                "source": "responses",
            }
        else:
            responses = ", ".join(map(repr, labels))
            problem = f"the history does not show which of the responses {responses} decided {_name(step)}"
            fitting, decision = [], {**NOT_STATED, "candidates": labels, "problem": problem}
        by, at = None, step.ended or self.ended_at
        if override is not None:
            by = override.get("overridden_by")
            by, at = person(by) if isinstance(by, Mapping) else None, override.get("overridden_at") or at
            decision["source"] = "override"
        elif len(fitting) == 1:
            by, at = person(fitting[0]), fitting[0]["responded_at"]
        decision = {"candidates": [], "problem": None, **decision, "by": by, "at": at}
        # The item's status belongs to the last step, so it says nothing about earlier ones.
        if decision["problem"] is None and step in _latest(self.steps("ResponseStep")):
            decision |= self._contradiction(step, decision)
        return decision

    def _is_over(self, step: Event) -> bool:
        override = step.details.get("override")
        is_overridden = isinstance(override, Mapping) and is_given(override.get("overridden_at"))
        return has_end_time(step.details) or is_overridden or is_given(self.ended_at) or self.state in ENDED_STATES

    def _was_decided(self, step: Event) -> bool:
        """Return whether a response step ended with a decision, whether or not its record shows which."""
        shows_one = bool(step.details.get("override") or responses_of(step.details)) or _overall(step.details, ())
        return bool(shows_one) and self._is_over(step) and not self._was_cut_off(step)

    def _was_cut_off(self, step: Event) -> bool:
        """Return whether a step ended, or may have ended, by a termination of the instance and not by a response."""
        if self.state not in ("terminated", ENDED) or step not in _latest(self.steps(*BEFORE_THE_END)):
            return False
        if self.state == ENDED:
            return _lacks_responses(step)
        if _folded(step.details.get("decision_type")) == "first" and any(
            row.get("required") is not False for row in responses_of(step.details)
        ):
            return False
        end, terminated = unix_time(step.details.get("ended_at")), unix_time(self.ended_at)
        return end is None or terminated is None or end >= terminated - CUT_OFF_SECONDS

    def _contradiction(self, step: Event, decision: Json) -> dict[str, Any]:
        """Return a problem if the item's status belongs to another option of the step than the decided one."""
        statuses = self.item_statuses()
        if len(statuses) != 1:
            return {}
        same_step = [s.details for s in self.steps("ResponseStep") if _is_same_step(s.details, step.details)]
        options = _named_options(same_step)
        option, kind, status = _folded(decision["option"]), _folded(decision["type"]), _folded(statuses[0])
        decided = [known for known in options if option in known.labels or (not option and kind in known.names)]
        own = {option, kind, _folded(step.details.get("overall_response_description"))}.union(
            *(known.names for known in decided)
        )
        is_of_another = any(status in known.names for known in options)
        if status in own or not (is_of_another or _are_opposite(status, option if option in IS_POSITIVE else kind)):
            return {}
        name = str(decision["option"] or decision["type"])
        return {
            "candidates": [name],
            "problem": f"the decision {name!r} at {_name(step)} contradicts the item status {statuses[0]!r}",
        }

    def _contradiction_in_step(self, step: Event, stated: Json) -> str | None:
        """Return how a step's overall response contradicts its own responses or options, or None."""
        option, kind = _folded(stated["option"]), _folded(stated["type"])
        step_responses = [] if step.details.get("override") else responses_of(step.details)
        words = [_word(response) for response in step_responses]
        if words and all(_are_opposite(option if option in IS_POSITIVE else kind, word) for word in words):
            return "its responses, which are all others"
        kinds = {
            _folded(row.get("response_type")) for row in options_of(step.details) if _folded(row.get("name")) == option
        }
        if option and any(_are_opposite(kind, listed) for listed in kinds):
            return "the type of its option"
        return None


# --- the order of events ---


def _in_order(events: Any) -> list[Event]:
    """Return the events, the oldest first."""
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
        latest = latest if moment is None else moment  # an event without a time stays at its place in the list
        # Without a direction, the places do not sort events of the same second.
        keyed.append(((latest, place if direction else _hint(event)), event))
    keyed.sort(key=lambda pair: pair[0])
    ordered: list[Event] = []
    for place, (key, event) in enumerate(keyed):
        rank = ordered[-1].rank if place and key == keyed[place - 1][0] else place
        ordered.append(Event(event.raw, event.kind, event.details, rank))
    return ordered


def _without_copies(steps: Iterable[Event]) -> list[Event]:
    """
    Return steps without those that are in the history twice, of which the one that has ended is kept.

    Copies that differ otherwise get the same rank, because nothing shows which of them is right.
    """
    copies: dict[Any, list[Event]] = {}
    for place, step in enumerate(steps):
        step_id = str_id(step.details)
        known = copies.setdefault(place if step_id is None else (step.kind, step_id, str(step.started)), [])
        if all(step.details != other.details for other in known):
            known.append(step)
    found = []
    for known in copies.values():
        ended = [step for step in known if has_end_time(step.details)] or known
        rank = max(step.rank for step in known)
        found += [step._replace(rank=rank) if len(known) > 1 else step for step in ended]
    return sorted(found, key=lambda step: step.rank)


def _direction(keys: Sequence[Any]) -> int:
    """Return 1 for a list that only rises, -1 for one that only falls, 0 for any other list."""
    rises = any(before < after for before, after in pairwise(keys))
    falls = any(before > after for before, after in pairwise(keys))
    return rises - falls


def _event(raw: Any) -> Event:
    kind = raw.get("type") if isinstance(raw, Mapping) else None
    details = raw.get("details") if isinstance(raw, Mapping) else None
    return Event(raw, kind if isinstance(kind, str) else None, details if isinstance(details, Mapping) else {})


def _hint(event: Event) -> tuple[int, float]:
    end = unix_time(event.ended)
    return ORDER_WITHIN_SECOND.get(event.kind or "", 1), NEVER if end is None else end


def _latest(events: Iterable[Event]) -> list[Event]:
    """Return the latest event; several if their order is unknown."""
    found = list(events)
    last = max((event.rank for event in found), default=None)
    return [event for event in found if event.rank == last]


# --- fields ---


def responses_of(step: Json) -> list[Json]:
    """Return the responses to a step, without those of commenters."""
    commenters = commenters_of(step)
    return [
        response
        for response in rows_of(step.get("responses"))
        if is_given(response.get("responded_at")) and not is_commenter(response) and str_id(response) not in commenters
    ]


def _lacks_responses(step: Event) -> bool:
    """Return whether a step shows no decision, and people who must respond but have not."""
    details = step.details
    if step.kind != "ResponseStep" or _folded(details.get("decision_type")) == "first" or details.get("override"):
        return False
    pending = [
        row
        for row in rows_of(details.get("responses"))
        if not is_given(row.get("responded_at")) and not is_commenter(row)
    ]
    return _overall(details, ()) is None and any(row.get("required") is not False for row in pending)


def commenters_of(step: Json) -> set[str | None]:
    """Return the ids of those that a step names outside of its responses as commenters, and not as responders too."""
    named = [row for key in ("individual_assignees", "additional_assignees") for row in rows_of(step.get(key))]
    responders = {str_id(row) for row in named if is_given(row.get("role_type")) and not is_commenter(row)}
    return {str_id(row) for row in named if is_commenter(row)} - responders


def is_commenter(row: Json) -> bool:
    return _folded(row.get("role_type")) == "commenter"


def options_of(step: Json) -> list[Json]:
    """Return the response options of a step, under either of their names."""
    return rows_of(step.get("available_response_options")) or rows_of(step.get("available_responses"))


def _labels(responses: Iterable[Json]) -> list[str]:
    """Return the different options of responses, by their labels, else by their types."""
    labels = [_label(r.get("response")) or _label(r.get("response_type")) or "" for r in responses]
    return list({label.casefold(): label for label in labels}.values())


def _overall(step: Json, responses: Iterable[Json]) -> dict[str, str | None] | None:
    """Return the option and type of a step's overall response, or None."""
    option, kind = _label(step.get("overall_response")), _label(step.get("overall_response_type"))
    if option is None and kind is None:
        return None
    stated = {"option": option, "type": kind}
    fitting = [response for response in responses if _fits(response, stated)]
    if kind is None:
        kinds = {_label(response.get("response_type")) for response in fitting}
        kind = kinds.pop() if len(kinds) == 1 else None
    if option is None:
        labels = _labels(fitting) or [
            name
            for row in options_of(step)
            if _folded(row.get("response_type")) == _folded(kind) and (name := _label(row.get("name")))
        ]
        option = labels[0] if len(labels) == 1 else None
    return {"option": option, "type": kind}


class _NamedOption(NamedTuple):
    """Collect all names of an option of a step: ``names`` are its labels, type and status, without case."""

    ids: set[str]
    labels: set[str]
    kinds: set[str]
    names: set[str]


def _named_options(steps: Iterable[Json]) -> list[_NamedOption]:
    """Return the options of all occurrences of a step, with all labels under which the history records them."""
    found: list[_NamedOption] = []
    for option_id, label, kind, status in _mentioned_options(steps):
        ids = set() if option_id is None else {str(option_id)}
        labels, kinds = {_folded(label)} - {""}, {_folded(kind)} - {""}
        names = labels | kinds | {_folded(status)} - {""}
        for known in found:
            is_same_id = ids & known.ids and (not kinds or not known.kinds or kinds & known.kinds)
            if is_same_id or labels & known.labels:
                known.ids.update(ids)
                known.labels.update(labels)
                known.kinds.update(kinds)
                known.names.update(names)
                break
        else:
            found.append(_NamedOption(ids, labels, kinds, names))
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


def _word(response: Json) -> str:
    """Return what a response says in Procore's own words: its label, else its type."""
    label = _folded(response.get("response"))
    return label if label in IS_POSITIVE else _folded(response.get("response_type"))


def _are_opposite(one: str, other: str) -> bool:
    """Return whether one of two words approves and the other rejects or returns."""
    return {IS_POSITIVE.get(one), IS_POSITIVE.get(other)} == {True, False}


def _fits(response: Json, stated: Json) -> bool:
    """Return whether a response has the option of an overall response."""
    if stated["option"] is not None and is_given(response.get("response")):
        return _folded(response["response"]) == _folded(stated["option"])
    return stated["type"] is not None and _folded(response.get("response_type")) == _folded(stated["type"])


def _folded(value: Any) -> str:
    return (_label(value) or "").casefold()


def _label(value: Any) -> str | None:
    """Return a label or a type, stripped, or None if it is missing or empty."""
    if isinstance(value, Mapping):  # an option instead of its label
        value = value.get("name")
    return value.strip() or None if isinstance(value, str) else None


def person(row: Json) -> Any:
    """Return the login of a person, else the name."""
    return row.get("login") or row.get("name")


def has_end_time(step: Json) -> bool:
    """Return whether a step has an end."""
    return is_given(step.get("ended_at"))


def is_given(value: Any) -> bool:
    """Return whether a field has a value; blank text does not count."""
    return bool(value.strip()) if isinstance(value, str) else bool(value)


def seconds(time: Any) -> float:
    """Return a sort key of a time; a time that cannot be read sorts before all others."""
    moment = unix_time(time)
    return float("-inf") if moment is None else moment


def str_id(record: Json) -> str | None:
    return None if record.get("id") is None else str(record["id"])


def rows_of(value: Any) -> list[Json]:
    """Return the objects in a list, or an empty list for any other value."""
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def _first_value(details: Json, *keys: str) -> Any:
    return next((details[key] for key in keys if is_given(details.get(key))), None)


def _name(step: Event) -> str:
    return f"step {step.details.get('name')!r}"
