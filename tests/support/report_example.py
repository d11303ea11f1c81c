"""A small cycle-time report with every kind of row, for tests of its page."""

from __future__ import annotations

from typing import Any

from airflow_provider_workflows.reports.cycle_times import CycleTimeReport

HOUR, DAY = 3600.0, 86400.0


def summary(**values: Any) -> dict[str, Any]:
    """Return a row of a summary with one value replaced or added."""
    row = {
        "api": "v2",
        "count": 40,
        "open": 2,
        "median_seconds": 1.5 * DAY,
        "p90_seconds": 6 * DAY,
        "median_business_seconds": 9 * HOUR,
        "p90_business_seconds": 32 * HOUR,
        "total_seconds": 80 * DAY,
        "total_business_seconds": 480 * HOUR,
        "share_of_total": 0.6,
        "share_overdue": 0.25,
        "rework_rate": 0.1,
    }
    return {**row, **values}


def bins(*counts: int) -> list[dict[str, Any]]:
    """Return bins of a histogram with these counts."""
    edges = [0.0, HOUR, 8 * HOUR, DAY, 2 * DAY, 4 * DAY, 7 * DAY, 14 * DAY, 28 * DAY, None]
    return [
        {"from_seconds": edges[i], "to_seconds": edges[i + 1], "count": counts[i] if i < len(counts) else 0}
        for i in range(9)
    ]


def quantiles(*values: float) -> dict[str, float]:
    """Return the seven quantiles of a distribution."""
    return dict(zip(("min", "p10", "p25", "p50", "p75", "p90", "max"), values, strict=True))


def open_step(**values: Any) -> dict[str, Any]:
    """Return an open step with some values replaced."""
    row = {
        "api": "v2",
        "template": "Contract approval",
        "step": "Legal review",
        "instance_id": "9001",
        "item_id": "7001",
        "tool_type": "purchase_order_contract",
        "company_id": "42",
        "project_id": "55",
        "since": "2026-01-20T09:30:00.000Z",
        "age_seconds": 10 * DAY,
        "age_business_seconds": 56 * HOUR,
        "due": "2026-01-25T00:00:00.000Z",
        "is_overdue": True,
        "assignees": ["Ana Alvarez", "Ben <b>Bold</b>"],
        "occurrence": 2,
        "decided_by_50": "2026-02-01T12:00:00.000Z",
        "decided_by_80": "2026-02-06T12:00:00.000Z",
        "observations": 23,
    }
    return {**row, **values}


def report_example() -> CycleTimeReport:
    """Return a report of two templates with two steps, and of a Legacy workflow."""
    no_data = dict.fromkeys(
        ("median_seconds", "p90_seconds", "median_business_seconds", "p90_business_seconds", "share_overdue")
    )
    legal = {"template": "Contract approval", "step": "Legal review"}
    finance = {"template": "Contract approval", "step": "Finance"}
    legacy = {"api": "legacy", "template": "Commitments", "step": "Under Review"}
    return CycleTimeReport(
        as_of="2026-01-30T09:30:00.000Z",
        time_zone="Europe/Berlin",
        country="DE",
        working_hours="Mon-Fri 09:00-17:00",
        holidays_used=[{"day": "2026-01-01", "name": "New Year's Day"}],
        totals={
            "instances": 50,
            "ended": 46,
            "open": 4,
            "terminated": 3,
            "step_rows": 104,
            "open_steps": 4,
            "overridden": 2,
            "malformed": 1,
            "total_seconds": 133 * DAY,
            "total_business_seconds": 900 * HOUR,
        },
        step_summary=[
            summary(**legal, cut_off=1),
            summary(**finance, count=38, total_seconds=50 * DAY, share_of_total=0.37, cut_off=2),
            summary(
                **{**legacy, **no_data},
                count=0,
                open=1,
                total_seconds=3 * DAY,
                share_of_total=0.03,
                rework_rate=0.0,
                cut_off=0,
            ),
        ],
        template_summary=[
            summary(template="Contract approval", cut_off=3, total_seconds=140 * DAY, share_of_total=0.97),
            summary(
                **no_data,
                api="legacy",
                template="Commitments",
                count=0,
                open=1,
                total_seconds=3 * DAY,
                share_of_total=0.03,
                rework_rate=0.0,
                cut_off=0,
            ),
        ],
        person_summary=[
            summary(person="Ana Alvarez", share_of_total=0.7),
            summary(person="Ben <b>Bold</b>", count=12, share_of_total=0.3),
        ],
        step_distribution=[
            {
                "api": "v2",
                **legal,
                "count": 40,
                "seconds": quantiles(0.1 * DAY, 0.5 * DAY, DAY, 1.5 * DAY, 3 * DAY, 6 * DAY, 20 * DAY),
                "business_seconds": quantiles(0, HOUR, 4 * HOUR, 9 * HOUR, 16 * HOUR, 32 * HOUR, 112 * HOUR),
                "bins": bins(0, 4, 5, 12, 10, 6, 2, 1),
                "business_bins": bins(4, 14, 10, 8, 3, 1),
            },
            {
                "api": "v2",
                **finance,
                "count": 38,
                "seconds": quantiles(HOUR, 2 * HOUR, 5 * HOUR, 9 * HOUR, DAY, 2 * DAY, 5 * DAY),
                "business_seconds": quantiles(0, 0, HOUR, 3 * HOUR, 8 * HOUR, 12 * HOUR, 30 * HOUR),
                "bins": bins(0, 15, 13, 6, 3, 1),
                "business_bins": bins(9, 20, 8, 1),
            },
        ],
        throughput=[
            {"week": "2026-W01", "started": 10, "ended": 4},
            {"week": "2026-W02", "started": 20, "ended": 12},
            {"week": "2026-W03", "started": 0, "ended": 14},
            {"week": "2026-W04", "started": 15, "ended": 10},
            {"week": "2026-W05", "started": 5, "ended": 6},
        ],
        open_steps=[
            open_step(),
            open_step(instance_id="9002", item_id="7002", occurrence=1, due=None, is_overdue=False, assignees=[]),
            open_step(
                api="legacy",
                template="Commitments",
                step="Under Review",
                instance_id="41",
                item_id="602",
                tool_type="Contract",
                age_seconds=3 * DAY,
                since="2026-01-27T09:30:00.000Z",
                occurrence=1,
                decided_by_50=None,
                decided_by_80=None,
                observations=0,
                is_overdue=False,
            ),
        ],
        open_ages=[
            {"from_seconds": 0.0, "to_seconds": DAY, "count": 0, "overdue": 0},
            {"from_seconds": DAY, "to_seconds": 7 * DAY, "count": 1, "overdue": 0},
            {"from_seconds": 7 * DAY, "to_seconds": 28 * DAY, "count": 3, "overdue": 2},
            {"from_seconds": 28 * DAY, "to_seconds": None, "count": 0, "overdue": 0},
        ],
        malformed=[
            {
                "file": "file:///tmp/procore-audit/2026-01-30/steps.jsonl",
                "row": "instance 9003, step #2",
                "reason": "ended_at 2026-01-01T00:00:00.000Z is before started_at 2026-01-02T00:00:00.000Z",
            }
        ],
    )
