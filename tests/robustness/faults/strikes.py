"""What can be done to a task at one moment, and which moments of a flow are tried."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .flows import Flow

# What becomes of a request: the worker dies, and it never arrives; arrives after that; arrives before that; arrives
# while the next try is at work. Or the worker lives: the response is lost; the request is.
BEFORE, LATE, AFTER, DELAYED, RESPONSE_LOST, REQUEST_LOST = (
    "killed before",
    "killed, then it arrives",
    "killed after",
    "killed, it arrives in the next try",
    "response lost",
    "request lost",
)
SURVIVED = (RESPONSE_LOST, REQUEST_LOST)
# The worker is suspended there, and goes on after another one has started the same task.
SUSPENDED_BEFORE, SUSPENDED_AFTER = "suspended before", "suspended after"
SUSPENDED = (SUSPENDED_BEFORE, SUSPENDED_AFTER)
RESUME = "the first try goes on"
# Which strikes a flow is run with.
KILLS, TWO_TRIES, REJECTED_READS = "kills", "two tries at once", "reading rejected"
NEXT_WRITE = -1  # the next boundary that writes
TO_ITS_END = 1_000  # boundaries
TOKEN_REJECTIONS = (403, 404, 500)
DOUBLES, QUICK_DOUBLES = 10, 2  # seeded ones of each flow
OVERLAPS, QUICK_OVERLAPS = 6, 2  # seeded ones at each boundary that writes


@dataclass(frozen=True)
class Strike:
    """
    What happens at which boundary.

    :param at: So many boundaries pass before, from the start or since the last strike; or ``NEXT_WRITE``.
    :param release: Of a delayed request: so many requests of the next tries pass before it arrives. Of a suspended
        try: so many boundaries of the other one pass before it goes on, to its end, and the other one after it.
    :param read_status: Status of the responses to reads from then on, until the end of the try; after a kill of the
        next one.
    """

    at: int
    how: str
    release: int = 0
    read_status: int | None = None


def points(flow: Flow, boundaries: Sequence[str], seed: int, *, quick: bool) -> list[tuple[Strike, ...]]:
    """
    Return every boundary with every strike that it can bear, and doubles of them.

    Each response and each request that was lost is followed by a kill, too; other doubles are seeded.

    :param boundaries: Those of the flow where nothing disturbs it.
    :param quick: Strike once where nothing changes, before or after; and fewer doubles.
    """
    chance = random.Random(f"{flow.name} {flow.mode} {seed}")
    if flow.kind == TWO_TRIES:
        suspensions = (_suspensions(flow, boundaries, at, chance, quick=quick) for at in range(len(boundaries)))
        return [(strike,) for strikes in suspensions for strike in strikes]
    if flow.kind == REJECTED_READS:
        writing = [at for at, label in enumerate(boundaries) if flow.writes(label)]
        return [point for at in writing for point in _rejections(flow, at, chance, quick=quick)]
    at_each = (_strikes(flow, at, label, chance, quick=quick) for at, label in enumerate(boundaries))
    singles = [strike for strikes in at_each for strike in strikes]
    firsts = [strike for strike in singles if strike.how in SURVIVED]
    firsts += chance.choices(singles, k=QUICK_DOUBLES if quick else DOUBLES)
    return [*((strike,) for strike in singles), *((first, _next_kill(boundaries, first, chance)) for first in firsts)]


def is_end(label: str) -> bool:
    """Return whether a boundary is the end of a try: of the task, or of its part before or after a wait."""
    return label.startswith(("end of ", "deferral of ", "event of "))


def _strikes(flow: Flow, at: int, label: str, chance: random.Random, *, quick: bool) -> list[Strike]:
    if is_end(label):
        return [Strike(at, BEFORE)]
    if not flow.writes(label):
        both = [Strike(at, BEFORE), Strike(at, AFTER)]
        return [chance.choice(both)] if quick and not label.startswith("write") else both
    delayed = [Strike(at, DELAYED, release) for release in range(chance.randrange(1, 3), 7, 2)]
    kinds = [Strike(at, how) for how in (BEFORE, LATE, AFTER, *SURVIVED)]
    return kinds + delayed if flow.may_be_late(label) else kinds


def _next_kill(boundaries: Sequence[str], first: Strike, chance: random.Random) -> Strike:
    """Return a kill among the boundaries that are left; of a task whose try was killed all are before it again."""
    ends = [at for at, label in enumerate(boundaries[: first.at]) if label.startswith("end of")]
    start = first.at if first.how in SURVIVED else max(ends, default=-1)
    return Strike(chance.randrange(len(boundaries) - start), chance.choice((BEFORE, LATE, AFTER)))


def _suspensions(flow: Flow, boundaries: Sequence[str], at: int, chance: random.Random, *, quick: bool) -> list[Strike]:
    """Return the ways to suspend a try at a boundary: the other one runs to its end meanwhile, or a part of the way."""
    label = boundaries[at]
    overlaps = (QUICK_OVERLAPS if quick else OVERLAPS) if flow.writes(label) or label.startswith("write ") else 1
    parts = sorted(chance.sample(range(1, len(boundaries)), min(overlaps, len(boundaries) - 1)))
    found = [Strike(at, SUSPENDED_BEFORE, release) for release in (*parts, TO_ITS_END)]
    return [*found, Strike(at, SUSPENDED_AFTER, TO_ITS_END)] if flow.writes(label) else found


def _rejections(flow: Flow, at: int, chance: random.Random, *, quick: bool) -> list[tuple[Strike, ...]]:
    """Return what leaves an outcome unknown at a boundary that writes, with reading rejected afterwards."""
    found = []
    for how in (*SURVIVED, *((BEFORE, AFTER) if flow.records_doubt else ())):
        for status in [chance.choice(TOKEN_REJECTIONS)] if quick else TOKEN_REJECTIONS:
            first = Strike(at, how, read_status=status)
            found.append((first,))
            if how in SURVIVED:  # and the response to the repetition is lost, too
                found.append((first, Strike(NEXT_WRITE, how, read_status=status)))
    return found
