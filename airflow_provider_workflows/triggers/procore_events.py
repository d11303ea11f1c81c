"""Events of Procore's Workflows v2 API, for the watcher of an asset."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import random
from collections.abc import Callable, Collection, Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import product
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    ContractError,
    NotFound,
    PermissionDenied,
    RateLimited,
    WorkflowsError,
)
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.parameters import check_choice
from airflow_provider_workflows.rules.procore_audit import name_histories, time
from airflow_provider_workflows.triggers.base import PASSING_FAULTS
from airflow_provider_workflows.triggers.events import (
    MOST_FACTS,
    Told,
    WorkflowsEventTrigger,
    connection_id,
    constant,
    constants,
)
from airflow_provider_workflows.triggers.procore import ItemHistories, NoBulkHistory
from airflow_provider_workflows.triggers.shared_poll import SECOND_BEST, Scope, patiently

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook

log = logging.getLogger(__name__)

PAGE = 100  # rows of a list that come with one request
FAULTS_IN_A_ROUND = 3  # after which a poll tells what it knows
REREAD = 5  # histories a poll reads without a reason, where updated_at is all there is to go by
CHANGES = ("started", "changed", "ended", "gone")
PARTS = ("state", "step", "item_status", "decision", "last_response", "ended_at")
PART_LENGTH = 6  # characters of 6 bits
CHAIN_LENGTH = 12
# Instead of a digest, of what was listed and could not be read: it counts as told, or it does not.
UNREAD, UNTOLD = "", "-"

Place = tuple[str, str]  # tool and level
# What there may be 20,000 of are plain tuples and texts, which the garbage collector passes by: with objects it stops
# the event loop for a third of a second.
Listed = tuple[int, str]  # an active instance: the number of its place, and its item
Row = tuple[str, "str | None", "str | None"]  # of the list: item_id, updated_at, started_at
T = TypeVar("T")
# What a step of Scope.read() yields: what came out for whom, or that the server wants to be asked later.
Steps = Generator[list[tuple[Any, Any]] | RateLimited, None, T]


class ProcoreScope(Scope):
    """
    What watchers of some tools in some projects read.

    :param conn_id: Id of a connection of type ``procore``.
    :param company_id: Company, or None for the connection's.
    :param project_ids: Projects or ``company``; none for where each tool is.
    :param tool_types: The tools.
    :param tool_subtype: Their subtype, or None.
    """

    def __init__(
        self,
        conn_id: str,
        company_id: str | None,
        project_ids: Sequence[str],
        tool_types: Sequence[str],
        tool_subtype: str | None,
    ):
        super().__init__(conn_id)
        self.company_id = company_id
        self.project_ids = tuple(project_ids)
        self.tool_types = tuple(tool_types)
        self.tool_subtype = tool_subtype
        self.faults = 0  # of this round, beside those that end it

    def note(self, fault: WorkflowsError) -> None:
        """Count a fault that concerns a part of the round."""
        self.faults += 1
        log.warning("%s It is read again with the next poll.", fault)

    @property
    def key(self) -> tuple[Hashable, ...]:
        where = (self.company_id, self.project_ids, self.tool_types, self.tool_subtype)
        return ("procore", type(self).__name__, self.conn_id, *where)

    def first_pause(self, interval: float) -> float:
        return interval * random.random()  # no task was deferred that could be failed by an event too soon

    def open_hook(self) -> ProcoreHook:
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        return ProcoreHook(self.conn_id, company_id=self.company_id)

    def places(self, hook: ProcoreHook) -> Steps[list[Place]]:
        """Return where to look, each tool in each project; their order depends on the parameters only."""
        places = []
        for project, tool in product(self.project_ids or [None], self.tool_types):
            level = yield from patiently(hook.level_for, project, tool)
            places.append((tool, level))
            yield []
        return places

    def active_rows(
        self, hook: ProcoreHook, place: Place, take: Callable[[dict[str, Any]], None], assignee_id: str | None = None
    ) -> Steps[None]:
        """Hand over the active instances of a place one by one, with a request in each step."""
        tool_type, level = place
        rows = hook.list_instances(
            tool_type, tool_subtype=self.tool_subtype, assignee_id=assignee_id, active=True, project_id=level
        )
        number = 0
        while (row := (yield from patiently(next, rows, None))) is not None:
            take(row)
            number += 1
            if number % PAGE == 0:
                yield []
        yield []
        if not number:
            yield from patiently(hook.check_tool, tool_type)
            yield []


class ProcoreEventTrigger(WorkflowsEventTrigger):
    """
    Watches tools of Procore for an asset.

    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company; default: the connection's.
    :param project_id: Project or several, ``company`` for the company level; default: where each tool is.
    :param tool_type: Tool or several.
    :param tool_subtype: Subtype of the tools; needed for correspondence.
    """

    def __init__(
        self,
        *,
        tool_type: str | Collection[str],
        procore_conn_id: str = "procore_default",
        company_id: str | int | None = None,
        project_id: str | int | Collection[str | int] | None = None,
        tool_subtype: str | int | None = None,
        poll_interval: timedelta | float | None = None,
        asset: str | None = None,
    ):
        super().__init__(poll_interval=poll_interval, asset=asset)
        self.procore_conn_id = connection_id("procore_conn_id", procore_conn_id)
        self.company_id = constant("company_id", company_id)
        self.project_id = constants("project_id", project_id)
        self.tool_type = constants("tool_type", tool_type)
        self.tool_subtype = constant("tool_subtype", tool_subtype)
        if not self.tool_type:
            raise ConfigurationError("tool_type must name a tool, or several.")

    own: ClassVar[tuple[str, ...]] = ("procore_conn_id", "company_id", "project_id", "tool_type", "tool_subtype")

    @property
    def place(self) -> tuple[Any, ...]:
        return (self.procore_conn_id, self.company_id, self.project_id, self.tool_type, self.tool_subtype)

    def where(self, outcome: Any) -> dict[str, Any]:
        return {"procore_conn_id": self.procore_conn_id, "company_id": outcome.company_id}


# --- somebody's response is requested -----------------------------------------------------------------------


@dataclass(frozen=True)
class Requested:
    """
    What is asked of a user.

    :param requests: The requests by the id of their event.
    :param unread: Instances that were listed and could not be read, so that nobody knows what they ask.
    """

    company_id: str
    user_id: str
    requests: Mapping[str, dict[str, Any]]
    unread: Collection[str] = ()


class RequestsScope(ProcoreScope):
    """
    Reads what is asked of one user.

    :param user_id: Login or login information id, or None for the connection's own user.
    """

    def __init__(self, *place: Any, user_id: str | None):
        super().__init__(*place)
        self.user_id = user_id
        self._known: dict[str, dict[str, Any]] = {}  # what was asked at the last poll, by instance

    @property
    def key(self) -> tuple[Hashable, ...]:
        return (*super().key, self.user_id)

    def read(self, hook: ProcoreHook, subscribers: Sequence[Any]) -> Steps[None]:
        user_id = self.user_id or (yield from patiently(lambda: hook.user_id))
        if not user_id.isdecimal():
            user_id = yield from patiently(hook.find_user_id, user_id, parameter="user_id")
        yield []
        self.faults = 0
        requests: dict[str, dict[str, Any]] = {}
        unread: set[str] = set()
        for place in dict.fromkeys((yield from self.places(hook))):
            rows: list[dict[str, Any]] = []
            yield from self.active_rows(hook, place, rows.append, assignee_id=user_id)
            random.shuffle(rows)  # so that one that the server cannot answer for is not in the way of the same others
            for row in rows:
                request = yield from self._request(hook, str(row["id"]), place[1], user_id, unread)
                if request is not None:
                    requests[request["instance_id"]] = {**request, "project_id": place[1]}
                yield []
        self._known = requests
        by_event = {
            f"response_requested:{instance_id}:{request['step_occurrence_id']}:{user_id}": request
            for instance_id, request in requests.items()
        }
        found = Requested(hook.company_id, user_id, by_event, unread)
        yield [(subscriber, found) for subscriber in subscribers]

    def _request(
        self, hook: ProcoreHook, instance_id: str, level: str, user_id: str, unread: set[str]
    ) -> Steps[Mapping[str, Any] | None]:
        """Return what an instance asks; where the server cannot answer, what it asked at the last poll."""
        if self.faults < FAULTS_IN_A_ROUND:
            try:
                shown = yield from patiently(hook.get_instance, instance_id, project_id=level)
                return rules.response_request(shown, user_id)
            except PASSING_FAULTS as fault:
                self.note(fault)
            except (NotFound, PermissionDenied) as refused:  # one of them is no reason to leave the others out
                log.info("Left out: %s", refused)
                unread.add(instance_id)
                return None
        unread.add(instance_id)
        return self._known.get(instance_id)


class ProcoreResponseRequestedTrigger(ProcoreEventTrigger):
    """
    Tells an asset of every instance that begins to ask for the response of a user.

    A fact is an instance at a step occurrence that asks the user. What asks already at the very first start is
    told, too, where Airflow keeps the cursor (3.3.2+): it is open work.

    The event's payload is ``{event: "response_requested", procore_conn_id, company_id, user_id, events}``, each of
    the events ``{event_id, instance_id, item_id, project_id, tool_type, step, step_occurrence_id,
    step_started_at, overdue_at}``; ``project_id`` is ``company`` at the company level.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool or several, such as ``purchase_order_contract``.
    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company; default: the connection's.
    :param project_id: Project or several, ``company`` for the company level; default: where each tool is.
    :param tool_subtype: Subtype of the tools; needed for correspondence.
    :param user_id: Login, e-mail address or login information id of the user; default: the connection's own.
    :param poll_interval: Seconds, or a timedelta, between two polls; default: ``[workflows] poke_interval``, else 60.
    :param asset: Name of the asset; needed where several assets have the same watcher.
    :raises ConfigurationError: a parameter is wrong. Nothing is templated in a watcher.
    """

    event = "response_requested"
    tells_backlog = True
    own = (*ProcoreEventTrigger.own, "user_id")

    def __init__(self, *, user_id: str | int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.user_id = constant("user_id", user_id)

    def scope(self) -> Scope:
        return RequestsScope(*self.place, user_id=self.user_id)

    def where(self, outcome: Requested) -> dict[str, Any]:
        return {**super().where(outcome), "user_id": outcome.user_id}

    def news(self, told: Told, outcome: Requested, *, is_first: bool) -> tuple[Told, list[dict[str, Any]]]:
        if is_first:
            return dict.fromkeys(outcome.requests, 1), []
        new = [event_id for event_id in outcome.requests if event_id not in told][:MOST_FACTS]
        facts = [{"event_id": event_id, **_without_options(outcome.requests[event_id])} for event_id in new]
        now = {event_id: 1 for event_id in outcome.requests if event_id in told} | dict.fromkeys(new, 1)
        # What asks no longer is forgotten, at the second poll: a list that is paged while it changes can leave one out.
        for event_id, asked_before in told.items():
            if event_id in now:
                continue
            if event_id.split(":")[1] in outcome.unread:
                now[event_id] = asked_before
            elif asked_before:
                now[event_id] = 0
        return now, facts


def _without_options(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name != "options"}


# --- an instance has changed --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Instances:
    """
    What one poll knows of the instances of a scope.

    :param active: All that are active.
    :param described: Where they stand, as :func:`rules.procore.describe_instance` says it; not of each, always.
    :param left: What has left the list of the active ones, as it ended; None where it cannot be read any more.
    :param wanted: Takes what a watcher misses in ``active`` and in ``left``, to be read by the next poll.
    """

    company_id: str
    places: Sequence[Place]
    active: Mapping[str, Listed]
    described: Mapping[str, Mapping[str, Any]]
    left: Mapping[str, Mapping[str, Any] | None]
    wanted: dict[str, Listed]


class InstancesScope(ProcoreScope):
    """
    Reads the active instances, and how those ended that are active no longer.

    It remembers between two polls what it has read, for as long as it is polled.
    """

    def __init__(self, *place: Any):
        super().__init__(*place)
        self._histories: dict[Place, ItemHistories] = {}
        self._no_bulk_until: dict[Place, float] = {}
        self._listed: dict[str, Listed] = {}  # what was active at the last poll, and has not been read since it left
        self._described: dict[str, Mapping[str, Any]] = {}  # what was read longest ago is first
        self._updated: dict[str, Any] = {}  # updated_at, when it was read
        self._left: dict[str, Mapping[str, Any] | None] = {}
        self._wanted: dict[str, Listed] = {}

    def read(self, hook: ProcoreHook, subscribers: Sequence[Any]) -> Steps[None]:
        places = yield from self.places(hook)
        found: list[dict[str, Row]] = []
        active: dict[str, Listed] = {}
        for number, place in enumerate(places):
            mine: dict[str, Row] = {}
            found.append(mine)
            if place in places[:number]:
                continue
            yield from self.active_rows(hook, place, partial(_keep, number, active, mine))
        singly: dict[str, Listed] = {}
        self.faults = 0
        for place, mine in zip(places, found, strict=True):
            missed = set(mine)
            histories = self._bulk(place)
            if mine and histories is not None:
                for described in self._read_in_bulk(hook, histories, place, mine):
                    if isinstance(described, RateLimited):
                        yield described
                    else:
                        missed -= described
                        yield []
            if place not in self._histories:
                missed = self._due(mine)
            singly |= {instance_id: active[instance_id] for instance_id in mine if instance_id in missed}
        self._listed |= _drained(self._wanted)
        gone = {one: listed for one, listed in self._listed.items() if one not in active and one not in self._left}
        to_read = list({**singly, **gone}.items())
        random.shuffle(to_read)  # so that one that the server cannot answer for is not in the way of the same others
        for instance_id, listed in to_read:
            if self.faults >= FAULTS_IN_A_ROUND:
                break
            number, item_id = listed
            is_active = instance_id in active
            is_read = yield from self._read_one(hook, places[number], instance_id, item_id, is_active)
            if is_read and is_active:
                self._updated[instance_id] = found[number][instance_id][1]
            yield []
        outcome = self._outcome(hook.company_id, places, active)
        yield [(subscriber, outcome) for subscriber in subscribers]

    def _outcome(self, company_id: str, places: list[Place], active: dict[str, Listed]) -> Instances:
        """Close the round: what was not read of those that left is read by the next one."""
        unread = {one: listed for one, listed in self._listed.items() if one not in active and one not in self._left}
        # A list that is paged while it changes can leave one out.
        active = active | {one: self._listed[one] for one in unread if self._described.get(one, {}).get("is_active")}
        left, self._left = self._left, {}
        self._listed = {**active, **unread}
        self._described = {one: shown for one, shown in self._described.items() if one in self._listed}
        self._updated = {one: at for one, at in self._updated.items() if one in self._listed}
        described = {one: shown for one, shown in self._described.items() if one in active}
        return Instances(company_id, places, active, described, left, self._wanted)

    def _bulk(self, place: Place) -> ItemHistories | None:
        if monotonic() < self._no_bulk_until.get(place, 0.0):
            return None
        return self._histories.setdefault(place, ItemHistories(*place))

    def _read_in_bulk(
        self, hook: ProcoreHook, histories: ItemHistories, place: Place, rows: Mapping[str, Row]
    ) -> Iterator[set[str] | RateLimited]:
        """Describe active instances by the histories of their items; yield the ids of those it could."""
        by_item: dict[str, list[str]] = {}
        for instance_id, (item_id, _, _) in rows.items():
            by_item.setdefault(item_id, []).append(instance_id)
        try:
            for answer in histories.read(hook, list(by_item)):
                if isinstance(answer, RateLimited):
                    yield answer
                    continue
                done = set()
                fault = next((found for found in answer.values() if isinstance(found, PASSING_FAULTS)), None)
                if fault is not None:
                    self.note(fault)
                    if len(answer) > 1:  # fewer go together next time
                        done = {one for item_id in answer for one in by_item[item_id]}
                for item_id, found in answer.items():
                    if isinstance(found, WorkflowsError):
                        continue  # read singly
                    shown = [{"id": one, "started_at": time(rows[one][2])} for one in by_item[item_id]]
                    for named in name_histories(found, shown, tool_type=place[0], item_id=item_id):
                        if named.instance_id in rows:
                            self._describe(named.instance_id, item_id, named.history)
                            done.add(named.instance_id)
                yield done
                if self.faults >= FAULTS_IN_A_ROUND:
                    yield set(rows)
                    return
        except NoBulkHistory as missing:
            del self._histories[place]
            self._no_bulk_until[place] = monotonic() + SECOND_BEST
            log.warning(
                "Procore has no bulk history for %s. So for an hour a poll reads the histories of instances that are "
                "new, that have left the list, and whose updated_at has moved. Nobody documents that it moves with "
                "every change, so each poll reads %d more, in turn. %s",
                place[0],
                REREAD,
                missing,
            )
            yield set()

    def _due(self, rows: Mapping[str, Row]) -> set[str]:
        """Return which of the active instances to read singly."""
        moved = {one for one, (_, at, _) in rows.items() if one not in self._updated or at != self._updated[one]}
        oldest = [one for one in self._described if one in rows and one not in moved]
        return moved | set(oldest[:REREAD])

    def _read_one(
        self, hook: ProcoreHook, place: Place, instance_id: str, item_id: str, is_active: bool
    ) -> Steps[bool]:
        """Read the history of one instance; False where the server could not answer."""
        tool_type, level = place
        try:
            history = yield from patiently(
                hook.get_instance_history, instance_id, project_id=level, tool_type=tool_type
            )
            shown = self._describe(instance_id, item_id, history)
        except PASSING_FAULTS as fault:
            self.note(fault)
            return False
        except (NotFound, PermissionDenied):
            if not is_active:
                self._left[instance_id] = None
            return True
        except ContractError as odd:
            log.warning("Instance %s is left out of this poll. %s", instance_id, odd)
            return True
        if not is_active and not shown["is_active"]:
            self._left[instance_id] = shown
        return True

    def _describe(self, instance_id: str, item_id: str, history: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            instance = rules.describe_instance(history, instance_id=instance_id, item_id=item_id)
        except (AttributeError, LookupError, TypeError) as odd:
            raise ContractError(f"A history has an undocumented form ({type(odd).__name__}: {odd})") from odd
        ended = rules.has_ended(instance)
        self._described.pop(instance_id, None)
        # Here, for this runs in a thread: the event loop only compares.
        parts = "".join(_hash(json.dumps(instance[name], sort_keys=True), PART_LENGTH) for name in PARTS)
        self._described[instance_id] = shown = {**instance, "is_active": not ended, "parts": parts}
        return shown


class ProcoreInstanceChangedTrigger(ProcoreEventTrigger):
    """
    Tells an asset of every workflow instance that starts, changes, ends, or is gone.

    A change is one of the state, of the step, of the item's status, a decision or a response. What is there at the
    first start counts as told. What happens and is undone between two polls is not seen.

    The event's payload is ``{event: "instance_changed", procore_conn_id, company_id, events}``, each of the events
    ``{event_id, change, changed, instance_id, item_id, project_id, tool_type, state, step, item_status, decision,
    last_response, started_at, ended_at, ambiguous}``: ``change`` is ``started``, ``changed``, ``ended`` or ``gone``;
    ``changed`` names the fields that differ from what was told before; ``last_response`` is
    ``{option, type, by, at}`` or None; ``decision`` and ``ambiguous`` are as ``ProcoreInstanceSensor`` returns them.
    Of an instance that is gone, deleted or hidden from the connection's user,
    only the ids are known.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool or several, such as ``purchase_order_contract``.
    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company; default: the connection's.
    :param project_id: Project or several, ``company`` for the company level; default: where each tool is.
    :param tool_subtype: Subtype of the tools; needed for correspondence.
    :param states: Only what is in one of these states by then; an instance that is gone has none. Default: all.
    :param changes: Only these changes. Default: all.
    :param poll_interval: Seconds, or a timedelta, between two polls; default: ``[workflows] poke_interval``, else 60.
    :param asset: Name of the asset; needed where several assets have the same watcher.
    :raises ConfigurationError: a parameter is wrong. Nothing is templated in a watcher.
    """

    event = "instance_changed"
    tells_backlog = False
    own = (*ProcoreEventTrigger.own, "states", "changes")

    def __init__(
        self,
        *,
        states: str | Collection[str] | None = None,
        changes: str | Collection[str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.states = _chosen("states", states, sorted(rules.STATES))
        self.changes = _chosen("changes", changes, CHANGES)

    def scope(self) -> Scope:
        return InstancesScope(*self.place)

    def news(self, told: Told, outcome: Instances, *, is_first: bool) -> tuple[Told, list[dict[str, Any]]]:
        now: Told = {}
        facts: list[dict[str, Any]] = []
        for instance_id, listed in outcome.active.items():
            before = told.get(instance_id)
            shown = outcome.described.get(instance_id)
            # Nothing could be read of it yet, or it has ended since it was listed, which the next poll tells.
            if shown is None or not shown["is_active"]:
                now[instance_id] = before or _entry(UNREAD if is_first else UNTOLD, listed)
                continue
            is_new = not is_first and (before is None or _digest(before) == UNTOLD)
            digest, changed = _next_digest(before, shown["parts"])
            if before is not None and digest == _digest(before):
                now[instance_id] = before
                continue
            if is_new or changed:
                # More than an event holds comes with the next poll, and what follows on something that is not noted
                # yet, too: else it would have another id if that were told again.
                if len(facts) == MOST_FACTS or not (is_new or self.is_noted(instance_id, before)):
                    now[instance_id] = before or _entry(UNTOLD, listed)
                    continue
                event_id = instance_id if is_new else f"{instance_id}:{digest[-CHAIN_LENGTH:]}"
                fact = self._fact("started" if is_new else "changed", event_id, instance_id, listed, outcome, shown)
                facts += self._passed({**fact, "changed": changed})
            now[instance_id] = _entry(digest, listed)
        for instance_id, before in told.items():
            if instance_id in outcome.active:
                continue
            _, number, item_id = before.split(" ", 2)
            listed = (int(number), item_id)
            is_untold = _digest(before) == UNTOLD
            if (
                instance_id not in outcome.left
                or len(facts) + is_untold >= MOST_FACTS
                or not (is_untold or self.is_noted(instance_id, before))
            ):
                outcome.wanted[instance_id] = listed
                now[instance_id] = before
                continue
            shown = outcome.left[instance_id]
            if is_untold:
                fact = self._fact("started", instance_id, instance_id, listed, outcome, shown or {})
                facts += self._passed({**fact, "changed": []})
            change = "ended" if shown else "gone"
            # The end may be read differently when it is told again: its id says what it follows on, and nothing else.
            event_id = f"{instance_id}:{_hash(_chain(before) + change, CHAIN_LENGTH)}"
            fact = self._fact(change, event_id, instance_id, listed, outcome, shown or {})
            _, changed = _next_digest(before, shown["parts"] if shown else "")
            facts += self._passed({**fact, "changed": changed if shown else []})
        return now, facts

    def _passed(self, fact: dict[str, Any]) -> list[dict[str, Any]]:
        wanted = (not self.states or fact["state"] in self.states) and (
            not self.changes or fact["change"] in self.changes
        )
        return [fact] if wanted else []

    @staticmethod
    def _fact(
        change: str,
        event_id: str,
        instance_id: str,
        listed: Listed,
        outcome: Instances,
        shown: Mapping[str, Any],
    ) -> dict[str, Any]:
        number, item_id = listed
        tool_type, level = outcome.places[number]
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
        }


def _chosen(name: str, value: Any, allowed: Sequence[str]) -> list[str]:
    given = [] if value is None else constants(name, value)
    for one in given:
        check_choice(name, one, allowed)
    return given


def _entry(digest: str, listed: Listed) -> str:
    """Return what is kept of an instance that was told: its digest, and where to find it once it is not listed."""
    number, item_id = listed
    return f"{digest} {number} {item_id}"


def _digest(entry: str) -> str:
    return entry.partition(" ")[0]


def _chain(entry: str | None) -> str:
    """Return the hash of all that was told of an instance; at first the same for each."""
    return (_digest(entry)[-CHAIN_LENGTH:] if entry else "").rjust(CHAIN_LENGTH, UNTOLD)


def _next_digest(before: str | None, parts: str) -> tuple[str, list[str]]:
    """
    Return the digest of an instance and which of its parts differ from the digest before.

    A digest holds a short hash of each part and one of all that was told before, so that the same state has another
    digest each time it comes round, and the same one when it is told again. The first one tells nothing of the
    state: the start of an instance that is told again is the same, whatever has happened in between.
    """
    old = _digest(before)[:-CHAIN_LENGTH] if before else ""
    chain = _chain(before)
    if not old or old == parts:
        return parts + chain, []
    places = {name: slice(i * PART_LENGTH, (i + 1) * PART_LENGTH) for i, name in enumerate(PARTS)}
    changed = [name for name, place in places.items() if old[place] != parts[place]]
    return parts + _hash(chain + parts, CHAIN_LENGTH), changed


def _hash(text: str, length: int) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()[:length]


def _keep(number: int, active: dict[str, Listed], mine: dict[str, Row], row: Mapping[str, Any]) -> None:
    """Note a row of the list of a place."""
    instance_id, item_id = str(row["id"]), str(row.get("item_id"))
    if not row.get("ended_at") and instance_id not in active:
        active[instance_id] = (number, item_id)
        mine[instance_id] = (item_id, row.get("updated_at"), row.get("started_at"))


def _drained(waiting: dict[str, Listed]) -> dict[str, Listed]:
    """Empty a mapping that another thread may fill meanwhile."""
    taken = {}
    while waiting:
        key, listed = waiting.popitem()
        taken[key] = listed
    return taken
