"""
Find the new facts in a poll of Procore's Workflows v2 API, for the watcher of an asset.

The emitted facts are a mapping of plain texts, stored in the asset's state store. Each text names its place, so the
order of a watcher's parameters does not matter, and the entries of a place do not change while its list cannot be
read.
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
# There may be 20,000 of these, so they are plain tuples and texts, which the garbage collector skips. Scanning that
# many objects would block the event loop for a third of a second.
Listed = tuple[Place, "str | None"]  # an active instance: the place where it is listed, and its item

CHANGES = ("started", "changed", "ended", "gone")
PARTS = ("state", "step", "item_status", "decision", "last_response", "ended_at")
PART_LENGTH = 6  # characters of 6 bits
CHAIN_LENGTH = 12
MAX_GONE = 5000  # instances that are stored so that no event id repeats if they return
# Instead of the digest of an instance that was listed but could not be read: it counts as emitted, or not.
UNREAD, NOT_EMITTED = "", "-"
GONE = "~"  # before the hash of the emitted facts of an instance that is gone; no hash contains it
PLACE = "@"  # before a place whose instances were compared before; no id starts with it
SEPARATOR = "|"


# --- a user's response is requested -------------------------------------------------------------------------


@dataclass(frozen=True)
class Requested:
    """
    Hold the requests for a user's response that one poll has found.

    :param company_id: Company of the instances.
    :param user_id: The user.
    :param places: Places whose list could be read; the state of all other places is unknown.
    :param requests: The requests by the id of their event, each with its place.
    :param unread: Instances that were listed but could not be read, so their requests are unknown.
    """

    company_id: str
    user_id: str
    places: Collection[Place]
    requests: Mapping[str, tuple[Place, Mapping[str, Any]]]
    unread: Collection[str] = ()


def request_event_id(instance_id: str, step_occurrence_id: Any, user_id: str) -> str:
    """Return the id of the event that an instance starts to wait for a user's response."""
    return f"response_requested:{instance_id}:{step_occurrence_id}:{user_id}"


def new_requests(emitted: Emitted, found: Requested, *, is_first: bool, limit: int) -> tuple[Emitted, list[Fact]]:
    """
    Compare the requests of a poll with those emitted before.

    :param emitted: The requests emitted before.
    :param found: The requests that the poll has found.
    :param is_first: The first poll, without a previous one to compare with: all requests count as emitted.
    :param limit: Maximum number of facts in an event; the next poll emits the rest.
    :return: The requests that count as emitted from now on, and the new facts.
    """
    if is_first:
        return {event_id: _entry_of_request(place) for event_id, (place, _) in found.requests.items()}, []
    new = [event_id for event_id in found.requests if event_id not in emitted][:limit]
    now: Emitted = {
        event_id: _entry_of_request(place) for event_id, (place, _) in found.requests.items() if event_id in emitted
    } | {event_id: _entry_of_request(found.requests[event_id][0]) for event_id in new}
    for event_id, before in emitted.items():
        if event_id in now:
            continue
        was_pending, level, tool = before.split(SEPARATOR, 2)
        if (tool, level) not in found.places or event_id.split(":")[1] in found.unread:
            now[event_id] = before
        elif was_pending == "1":
            # Deleted at the second poll: a list that changes while it is paged can leave out a row.
            now[event_id] = _entry_of_request((tool, level), is_pending=False)
    return now, [{"event_id": event_id, **found.requests[event_id][1]} for event_id in new]


def _entry_of_request(place: Place, *, is_pending: bool = True) -> str:
    tool, level = place
    return SEPARATOR.join(("1" if is_pending else "0", level, tool))


# --- an instance has changed --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Instances:
    """
    Hold the instances that one poll has found.

    :param company_id: Company of the instances.
    :param places: Places whose list of active instances could be read; the state of all other places is unknown.
    :param active: All active instances in these places.
    :param described: Their state, as :func:`described_instance` returns it; may lack some of them.
    :param left: Instances that left the list of active ones, as they ended; None for an instance that is gone.
    :param desired: Instances that are in neither ``active`` nor ``left``; the watcher adds them, and the next poll
        reads them.
    """

    company_id: str
    places: Collection[Place]
    active: Mapping[str, Listed]
    described: Mapping[str, Mapping[str, Any]]
    left: Mapping[str, Mapping[str, Any] | None]
    desired: dict[str, Listed]


def described_instance(instance: Mapping[str, Any], *, is_active: bool) -> dict[str, Any]:
    """
    Return an instance with ``is_active`` and ``parts``, the short hashes of its :data:`PARTS`.

    :param instance: The result of :func:`rules.procore.describe_instance`.
    :param is_active: Whether it is in the list of active instances.
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
    Compare the state of instances with the state emitted before.

    Instances that are active when a place is read for the first time count as emitted.

    :param emitted: The state emitted before.
    :param found: The instances that a poll has found.
    :param is_first: The first poll, without a previous one to compare with.
    :param limit: Maximum number of facts in an event; the next poll emits the rest.
    :param is_stored: Returns whether the emitted state of an instance is already in the asset's state store. Until then
        a following fact waits, because its event id would differ if the earlier one were re-delivered.
    :param is_desired: Returns whether the watcher emits a fact; a fact that it does not emit counts as emitted.
    :return: The state that counts as emitted from now on, and the new facts.
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
        # It could not be read yet, or it has ended since it was listed, which the next poll emits.
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
        # The end may be read differently when it is re-delivered, so its id depends only on the facts before it.
        follows = short_hash(_chain(before) + change, CHAIN_LENGTH)
        _, changed = _next_digest(before, shown["parts"] if shown else "")
        add(_fact(change, f"{instance_id}:{follows}", instance_id, listed, shown or {}, changed if shown else []))
        if not shown:
            now[instance_id] = GONE + follows
    return _without_surplus(now), facts


def _without_surplus(emitted: Emitted) -> Emitted:
    """Delete the oldest instances that are gone, above the maximum number; ids grow, so the smallest is the oldest."""
    gone_ids = (instance_id for instance_id, entry in emitted.items() if str(entry).startswith(GONE))
    gone = sorted(gone_ids, key=lambda instance_id: (len(instance_id), instance_id))
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
        # Without the comment, which can be long: Airflow logs the event.
        "last_response": response and {name: response[name] for name in ("option", "type", "by", "at")},
        "ambiguous": shown.get("ambiguous", []),
        "changed": changed,
    }


def _marker(place: Place) -> str:
    tool, level = place
    return f"{PLACE}{level}{SEPARATOR}{tool}"


def _entry(digest: str, listed: Listed) -> str:
    """Return the stored entry of an instance: its digest, its place and its item."""
    (tool, level), item_id = listed
    return SEPARATOR.join((digest, level, tool, item_id or ""))


def _listed(entry: str) -> Listed:
    _, level, tool, item_id = entry.split(SEPARATOR, 3)
    return (tool, level), item_id or None


def _digest(entry: str) -> str:
    return entry.partition(SEPARATOR)[0]


def _chain(entry: str | None) -> str:
    """Return the hash of all emitted states of an instance; initially equal for all instances."""
    return (_digest(entry)[-CHAIN_LENGTH:] if entry else "").rjust(CHAIN_LENGTH, NOT_EMITTED)


def _next_digest(before: str | None, parts: str) -> tuple[str, list[str]]:
    """
    Return the digest of an instance and the names of its parts that changed since the digest before.

    A digest contains a short hash of each part and a hash of all states emitted before. So the same state has a new
    digest each time the instance returns to it, but the same digest when it is re-delivered. The first chain hash does
    not depend on the state, so the start of an instance that is re-delivered has the same id, even after changes.
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
    """Return the first characters of the hash of a text, 6 bits each."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()[:length]
