"""The backtest of the forecast: how often it would have been right in the past."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from airflow_provider_workflows.files.object_storage import storage_path
from airflow_provider_workflows.reports.database import open_histories
from airflow_provider_workflows.reports.measures_sql import DAY, HOUR, MIN_OBSERVATIONS

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

CHECKED_AGES = (0, HOUR, DAY, 3 * DAY, 7 * DAY)  # seconds
OBSERVED = """
SELECT api, template, step, started_at / 1e6, ended_at / 1e6
FROM steps WHERE state = 'ended' AND started_at IS NOT NULL AND ended_at IS NOT NULL
ORDER BY api, template, step, ended_at
"""


@dataclass(frozen=True)
class Backtest:
    """
    Hold how often forecasts would have been right.

    :param steps: Ended step occurrences in the histories.
    :param forecasts: Forecasts that could have been made.
    :param held_50: Share of them whose step was decided by the 50 % date, or None without forecasts.
    :param held_80: Share of them whose step was decided by the 80 % date, or None without forecasts.
    """

    steps: int
    forecasts: int
    held_50: float | None
    held_80: float | None


def backtest(history_path: str | ObjectStoragePath, *, object_storage_conn_id: str | None = None) -> Backtest:
    """
    Repeat the forecasts of the past, and compare them with what happened.

    For each ended step occurrence a forecast is made at its start, and after an hour, a day, three days and a week if
    the step was still open then. Each uses only what had ended at that time.

    :param history_path: Folder of the exports, with their sub-folders.
    :param object_storage_conn_id: Connection to the storage; default: the one in the path, if any.
    :raises ConfigurationError: the histories cannot be read, or the extra ``report`` is not installed.
    """
    steps = 0
    outcomes: list[tuple[bool, bool]] = []
    with open_histories(storage_path("history_path", history_path, object_storage_conn_id)) as database:
        for _, rows in groupby(database.stream(OBSERVED), key=lambda row: row[:3]):
            spans = [(row[3], row[4]) for row in rows]
            steps += len(spans)
            outcomes += _forecasts(spans)
    shares = [sum(pair[place] for pair in outcomes) / len(outcomes) if outcomes else None for place in (0, 1)]
    return Backtest(steps, len(outcomes), *shares)


def _forecasts(spans: Sequence[tuple[float, float]]) -> Iterator[tuple[bool, bool]]:
    """
    Yield for each forecast of a step whether its two dates were right.

    :param spans: Start and end of each occurrence, in the order of the ends.
    """
    checks = sorted(
        (start + age, age, end - start) for start, end in spans for age in CHECKED_AGES if end - start > age
    )
    known: list[float] = []  # sorted durations of what has ended before the check
    ended = 0
    for moment, age, spent in checks:
        while ended < len(spans) and spans[ended][1] <= moment:
            insort(known, spans[ended][1] - spans[ended][0])
            ended += 1
        first = bisect_right(known, age)
        if len(known) - first >= MIN_OBSERVATIONS:
            yield spent <= _quantile(known, first, 0.5), spent <= _quantile(known, first, 0.8)


def _quantile(ordered: Sequence[float], first: int, share: float) -> float:
    """Return a quantile of the sorted values from a place on, interpolated between two of them."""
    place = first + (len(ordered) - 1 - first) * share
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
