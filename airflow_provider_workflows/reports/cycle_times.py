"""The cycle-time report: where approvals lose their time, calculated from exported history tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class CycleTimeReport:
    """
    Hold the numbers of a cycle-time report.

    All times are ISO-8601 texts in UTC, such as ``2026-01-31T08:00:00.000Z``; all durations are seconds; all shares
    and rates are between 0 and 1. A value that cannot be calculated is None, such as the median of no rows. ``api`` is
    ``v2`` or ``legacy``. Rows of ``seconds`` are calendar time, rows of ``business_seconds`` working time only.

    A step of Workflows v2 is a response step or an action, a step of Legacy Workflows a state.

    :param as_of: Time up to which open steps are measured.
    :param time_zone: Time zone of the working hours and of the weeks, such as ``Europe/Berlin``.
    :param country: Country of the holidays, such as ``DE`` or ``DE-BY``, or None without holidays.
    :param working_hours: Working days and hours as text, such as ``Mon-Fri 09:00-17:00``.
    :param holidays_used: The holidays on working days of the period: ``{day, name}``.
    :param totals: ``{instances, ended, open, terminated, step_rows, open_steps, overridden, malformed, total_seconds,
        total_business_seconds}``: counts of instances; of step occurrences that started, that are open and that were
        overridden; of malformed rows; and the waiting time of all step occurrences.
    :param step_summary: The most time-consuming step first: ``{api, template, step, count, open, median_seconds,
        p90_seconds, median_business_seconds, p90_business_seconds, total_seconds, share_of_total, share_overdue,
        rework_rate, cut_off}``. ``count`` are the ended occurrences, of which median and p90 are; ``cut_off`` those that
        a termination ended without a decision. ``total_seconds`` contains both of them and the age of the open ones.
        ``share_overdue`` is a share of the occurrences with a due date; ``rework_rate`` the share of occurrences that
        are returns.
    :param template_summary: The same of whole instances, without ``step``: ``count`` are the instances that ended
        other than by termination, ``cut_off`` the terminated ones, ``share_overdue`` the share of instances with an
        overdue step, ``rework_rate`` the share of instances with a return.
    :param person_summary: The same of responses, with ``person`` instead of ``template`` and ``step``: the person's
        time is from the start of the step to the own response; ``open`` are the pending steps; ``cut_off`` is missing.
    :param step_distribution: In the order of ``step_summary``: ``{api, template, step, count, seconds,
        business_seconds, bins, business_bins}``: ``seconds`` and ``business_seconds`` are ``{min, p10, p25, p50, p75,
        p90, max}``; each bin is ``{from_seconds, to_seconds, count}``, without ``to_seconds`` (None) in the last one.
    :param throughput: Every ISO week from the first to the last: ``{week, started, ended}``; ``week`` is like
        ``2026-W05``, the counts are instances.
    :param open_steps: At most 1,000, the oldest first: ``{api, template, step, instance_id, item_id, tool_type,
        project_id, since, age_seconds, age_business_seconds, due, is_overdue, assignees, occurrence, decided_by_50,
        decided_by_80, observations}``: ``assignees`` are the names of those who have not responded; ``occurrence`` is 2
        or more for a return. ``observations`` counts the observed durations of the step that were longer than its age;
        below 20 there is no forecast.
    :param open_ages: All open steps by age: ``{from_seconds, to_seconds, count, overdue}``.
    :param malformed: At most 100 of the malformed rows, which are left out: ``{file, row, reason}``; ``row`` is the
        key of the row, or its line.
    """

    as_of: str
    time_zone: str
    country: str | None
    working_hours: str
    holidays_used: list[Row]
    totals: Row
    step_summary: list[Row]
    template_summary: list[Row]
    person_summary: list[Row]
    step_distribution: list[Row]
    throughput: list[Row]
    open_steps: list[Row]
    open_ages: list[Row]
    malformed: list[Row]
