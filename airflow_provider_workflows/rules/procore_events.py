"""
Which of the things that a poll of Procore's Workflows v2 API has found are new, for the watcher of an asset.

What was emitted before is a mapping of plain texts, which an asset's state store keeps. Each text names the place that
it is about, so that the order of a watcher's parameters does not matter, and what was emitted of a place is left as it
is while the list of that place cannot be read.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

Place = tuple[str, str]  # tool, and project or "company"
Emitted = dict[str, Any]
Fact = dict[str, Any]
# What there may be 20,000 of are plain tuples and texts, which the garbage collector passes by: with objects it stops
# the event loop for a third of a second.
Listed = tuple[Place, "str | None"]  # an active instance: where it is listed, and its item

CHANGES = ("started", "changed", "ended", "gone")
PARTS = ("state", "step", "item_status", "decision", "last_response", "ended_at")
PART_LENGTH = 6  # characters of 6 bits
CHAIN_LENGTH = 12
MAX_GONE = 5000  # instances that are remembered so that they do not have an event id twice should they return
# Instead of a digest, of what was listed and could not be read: it counts as emitted, or it does not.
UNREAD, NOT_EMITTED = "", "-"
GONE = "~"  # before the hash of what was emitted of an instance that is gone; no hash contains it
PLACE = "@"  # before a place whose instances were compared before; no id begins with it
SEPARATOR = "|"


# --- somebody's response is requested -----------------------------------------------------------------------


@dataclass(frozen=True)
class Requested:
    """
    What is asked of a user.

    :param places: Where a list could be read; nothing is known of the others.
    :param requests: The requests by the id of their event, each with its place.
    :param unread: Instances that were listed and could not be read, so that nobody knows what they ask.
    """

    company_id: str
    user_id: str
    places: Collection[Place]
    requests: Mapping[str, tuple[Place, Mapping[str, Any]]]
    unread: Collection[str] = ()


def request_event_id(instance_id: str, step_occurrence_id: Any, user_id: str) -> str:
    """Return the id of the event that an instance begins to ask a user."""
    return f"response_requested:{instance_id}:{step_occurrence_id}:{user_id}"


def new_requests(emitted: Emitted, found: Requested, *, is_first: bool, limit: int) -> tuple[Emitted, list[Fact]]:
    """
    Compare what is asked of a user with what was emitted before.

    :param told: What was emitted before.
    :param found: What a poll has found.
    :param is_first: There is nothing to compare with; all that is asked counts as emitted.
    :param limit: Facts that an event holds; the rest is left for the next poll.
    :return: What counts as emitted from now on, and the new facts.
    """
    if is_first:
        return {event_id: _asked(place) for event_id, (place, _) in found.requests.items()}, []
    new = [event_id for event_id in found.requests if event_id not in emitted][:limit]
    now: Emitted = {
        event_id: _asked(place) for event_id, (place, _) in found.requests.items() if event_id in emitted
    } | {event_id: _asked(found.requests[event_id][0]) for event_id in new}
    for event_id, before in emitted.items():
        if event_id in now:
            continue
        asked_before, level, tool = before.split(SEPARATOR, 2)
        if (tool, level) not in found.places or event_id.split(":")[1] in found.unread:
            now[event_id] = before
        elif asked_before == "1":
            # Forgotten at the second poll: a list that is paged while it changes can leave one out.
            now[event_id] = _asked((tool, level), is_asked=False)
    return now, [{"event_id": event_id, **found.requests[event_id][1]} for event_id in new]


def _asked(place: Place, *, is_asked: bool = True) -> str:
    tool, level = place
    return SEPARATOR.join(("1" if is_asked else "0", level, tool))


# --- an instance has changed --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Instances:
    """
    What one poll knows of the instances of a scope.

    :param places: Where the list of active instances could be read; nothing is known of the others.
    :param active: All that are active in these places.
    :param described: Where they stand, as :func:`described_instance` says it; not of each, always.
    :param left: What has left the list of the active ones, as it ended; None where it is gone.
    :param wanted: Takes what a watcher misses in ``active`` and in ``left``, to be read by the next poll.
    """

    company_id: str
    places: Collection[Place]
    active: Mapping[str, Listed]
    described: Mapping[str, Mapping[str, Any]]
    left: Mapping[str, Mapping[str, Any] | None]
    desired: dict[str, Listed]


def described_instance(instance: Mapping[str, Any], *, is_active: bool) -> dict[str, Any]:
    """
    Return an instance with ``is_active`` and ``parts``, a short hash of each of its :data:`PARTS`.

    :param instance: What :func:`rules.procore.describe_instance` returned.
    """
    parts = "".join(short_hash(json.dumps(instance[name], sort_keys=True), PART_LENGTH) for name in PARTS)
    return {**instance, "is_active": is_active, "parts": parts}


def changed_instances(
    emitted: Emitted,
    found: Instances,
    *,
    is_first: bool,
    limit: int,
    is_stored: Callable[[str, Any], bool],
    is_desired: Callable[[Fact], bool],
) -> tuple[Emitted, list[Fact]]:
    """
    Compare where instances stand with what was emitted of them before.

    The instances that are active when a place is read for the first time count as emitted.

    :param told: What was emitted before.
    :param found: What a poll has found.
    :param is_first: There is nothing to compare with.
    :param limit: Facts that an event holds; the rest is left for the next poll.
    :param is_stored: Tells whether what was emitted of an instance is in the asset's state store by now. What follows
        on something that is not would have another event id if that were emitted again, so it is left for later.
    :param is_desired: Tells whether a watcher emits a fact; one that it does not emit counts as emitted.
    :return: What counts as emitted from now on, and the new facts.
    """
    new_places = {place for place in found.places if is_first or _marker(place) not in emitted}
    now: Emitted = {_marker(place): 1 for place in found.places}
    facts: list[Fact] = []

    def add(fact: Fact) -> None:
        if is_desired(fact):
            facts.append(fact)

    for instance_id, listed in found.active.items():
        before = emitted.get(instance_id)
        shown = found.described.get(instance_id)
        # Nothing could be read of it yet, or it has ended since it was listed, which the next poll tells.
        if shown is None or not shown["is_active"]:
            now[instance_id] = before or _entry(UNREAD if listed[0] in new_places else NOT_EMITTED, listed)
            continue
        has_returned = before is not None and before.startswith(GONE)
        is_new = listed[0] not in new_places if before is None else has_returned or _digest(before) == NOT_EMITTED
        digest, changed = _next_digest(before, shown["parts"])
        if before is not None and digest == _digest(before):
            now[instance_id] = before
            continue
        if is_new or changed:
            is_free = (is_new and not has_returned) or is_stored(instance_id, before)
            if len(facts) >= limit or not is_free:
                now[instance_id] = before or _entry(NOT_EMITTED, listed)
                continue
            event_id = instance_id if is_new and not has_returned else f"{instance_id}:{digest[-CHAIN_LENGTH:]}"
            add(_fact("started" if is_new else "changed", event_id, instance_id, listed, shown, changed))
        now[instance_id] = _entry(digest, listed)
    for instance_id, before in emitted.items():
        if instance_id in now:
            continue
        if instance_id.startswith(PLACE) or before.startswith(GONE):
            now[instance_id] = before
            continue
        listed = _listed(before)
        if listed[0] not in found.places:
            now[instance_id] = before
            continue
        is_not_emitted = _digest(before) == NOT_EMITTED
        if (
            instance_id not in found.left
            or len(facts) + is_not_emitted >= limit
            or not (is_not_emitted or is_stored(instance_id, before))
        ):
            found.desired[instance_id] = listed
            now[instance_id] = before
            continue
        shown = found.left[instance_id]
        if is_not_emitted:
            add(_fact("started", instance_id, instance_id, listed, shown or {}, []))
        change = "ended" if shown else "gone"
        # The end may be read differently when it is emitted again: its id says what it follows on, and nothing else.
        follows = short_hash(_chain(before) + change, CHAIN_LENGTH)
        _, changed = _next_digest(before, shown["parts"] if shown else "")
        add(_fact(change, f"{instance_id}:{follows}", instance_id, listed, shown or {}, changed if shown else []))
        if not shown:
            now[instance_id] = GONE + follows
    return _without_surplus(now), facts


def _without_surplus(emitted: Emitted) -> Emitted:
    """Forget those of the instances that are gone for which there is no room; ids grow, so the oldest ones."""
    gone = sorted(
        (one for one, entry in emitted.items() if str(entry).startswith(GONE)), key=lambda one: (len(one), one)
    )
    for instance_id in gone[: max(0, len(gone) - MAX_GONE)]:
        del emitted[instance_id]
    return emitted


def _fact(
    change: str, event_id: str, instance_id: str, listed: Listed, shown: Mapping[str, Any], changed: list[str]
) -> Fact:
    (tool_type, level), item_id = listed
    response = shown.get("last_response")
    return {
        "event_id": f"instance_{change}:{event_id}",
        "change": change,
        "instance_id": instance_id,
        "item_id": item_id,
        "project_id": level,
        "tool_type": tool_type,
        **{name: shown.get(name) for name in ("state", "step", "item_status", "started_at", "ended_at")},
        "decision": shown.get("decision"),
        # A comment can be long, and the event is logged.
        "last_response": response and {name: response[name] for name in ("option", "type", "by", "at")},
        "ambiguous": shown.get("ambiguous", []),
        "changed": changed,
    }


def _marker(place: Place) -> str:
    tool, level = place
    return f"{PLACE}{level}{SEPARATOR}{tool}"


def _entry(digest: str, listed: Listed) -> str:
    """Return what is stored of an instance: its digest, and where to find it once it is not listed."""
    (tool, level), item_id = listed
    return SEPARATOR.join((digest, level, tool, item_id or ""))


def _listed(entry: str) -> Listed:
    _, level, tool, item_id = entry.split(SEPARATOR, 3)
    return (tool, level), item_id or None


def _digest(entry: str) -> str:
    return entry.partition(SEPARATOR)[0]


def _chain(entry: str | None) -> str:
    """Return the hash of all that was emitted of an instance; at first the same for each."""
    return (_digest(entry)[-CHAIN_LENGTH:] if entry else "").rjust(CHAIN_LENGTH, NOT_EMITTED)


def _next_digest(before: str | None, parts: str) -> tuple[str, list[str]]:
    """
    Return the digest of an instance and which of its parts differ from the digest before.

    A digest holds a short hash of each part and one of all that was emitted before, so that the same state has another
    digest each time it comes round, and the same one when it is emitted again. The first one says nothing of the
    state: the start of an instance that is emitted again is the same, whatever has happened in between.
    """
    chain = _chain(before)
    if before is not None and before.startswith(GONE):
        return parts + short_hash(chain + "started", CHAIN_LENGTH), []
    old = _digest(before)[:-CHAIN_LENGTH] if before else ""
    if not old or old == parts:
        return parts + chain, []
    places = {name: slice(i * PART_LENGTH, (i + 1) * PART_LENGTH) for i, name in enumerate(PARTS)}
    changed = [name for name, place in places.items() if old[place] != parts[place]]
    return parts + short_hash(chain + parts, CHAIN_LENGTH), changed


def short_hash(text: str, length: int) -> str:
    """Return so many characters of the hash of a text, 6 bits each."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()[:length]
