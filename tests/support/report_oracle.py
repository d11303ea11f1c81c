"""A second calculation of a cycle-time report, row by row in plain Python, to compare the numbers with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

Row = dict[str, Any]
STEPS = ("ResponseStep", "Action")
GRID = timedelta(minutes=15)  # all times and working hours of the tests are multiples of it


@dataclass(frozen=True)
class Office:
    """State the working time: its zone, the days (0 is Monday), the hours, and the holidays that are excluded."""

    zone: str
    days: Collection[int]
    opens: time
    closes: time
    holidays: Collection[date] = ()

    def seconds(self, start: datetime, end: datetime) -> float:
        """Return the working time between two times, by reading the wall-clock time every 15 minutes."""
        worked, zone = 0, ZoneInfo(self.zone)
        while start < end:
            wall = start.astimezone(zone)
            is_day = wall.weekday() in self.days and wall.date() not in self.holidays
            worked += is_day and self.opens <= wall.time() < self.closes
            start += GRID
        return worked * GRID.total_seconds()


def quantile(values: Iterable[float], share: float) -> float:
    """Return the quantile, interpolated between two values."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


class Oracle:
    """
    Calculate what a report of Workflows v2 must contain.

    :param instances: Rows of the table instances, each once; likewise the others.
    """

    def __init__(
        self, instances: list[Row], steps: list[Row], responses: list[Row], *, office: Office, as_of: datetime
    ):
        self.office, self.as_of = office, as_of
        self.malformed = 0
        self.instances = {row["instance_id"]: self._instance(row) for row in instances}
        self.steps = {(row["instance_id"], row["step_key"]): row for row in self._steps(steps)}
        self.responses = self._responses(responses)
        for row in self.instances.values():
            own = [step for step in self.steps.values() if step["instance_id"] == row["instance_id"]]
            started = [step for step in own if step["state"] != "not_started"]
            people = {r["user_id"] for r in self.responses if r["step"] in own and r["responded_at"]}
            people |= {step["overridden_by_id"] for step in own if step.get("overridden_at")}
            row |= {
                "steps": len(started),
                "returned_steps": sum(step["occurrence"] > 1 for step in started),
                "rework_rounds": max([step["occurrence"] for step in started], default=1) - 1,
                "overrides": sum(step.get("overridden_at") is not None for step in own),
                "overdue_steps": sum(step["is_overdue"] is True for step in own),
                "people": len(people),
            }

    def _instance(self, row: Row) -> Row:
        is_malformed = row["ended_at"] is not None and row["ended_at"] < row["started_at"]
        self.malformed += is_malformed
        state = "terminated" if row["status"] == "terminated" else "ended" if row["ended_at"] else "open"
        until = row["ended_at"] if row["ended_at"] else max(self.as_of, row["started_at"])
        return row | {"state": state, "is_malformed": is_malformed, **self._spent(row["started_at"], until)}

    def _spent(self, start: datetime | None, end: datetime | None) -> Row:
        if start is None or end is None or end < start:
            return {"spent": None, "business": None}
        return {"spent": (end - start).total_seconds(), "business": self.office.seconds(start, end)}

    def _steps(self, rows: list[Row]) -> list[Row]:
        found = []
        occurrences: dict[tuple[str, str], int] = defaultdict(int)
        for row in sorted(rows, key=lambda row: (row["started_at"] is None, row["started_at"] or self.as_of)):
            instance = self.instances[row["instance_id"]]
            stopped = row["ended_at"] or row.get("overridden_at") or instance["ended_at"]
            start = row["started_at"]
            if start is not None and stopped is not None and stopped < start:
                self.malformed += 1
                continue
            if row["event_type"] not in STEPS:
                continue
            occurrence = None
            if start is not None:
                occurrences[row["instance_id"], row["name"]] += 1
                occurrence = occurrences[row["instance_id"], row["name"]]
            is_cut_off = (
                instance["state"] == "terminated"
                and row.get("decided_option") is None
                and row.get("overridden_at") is None
                and (row["ended_at"] is None or row["ended_at"] >= instance["ended_at"] - timedelta(minutes=1))
            )
            is_open = stopped is None
            state = "not_started" if start is None else "open" if is_open else "cut_off" if is_cut_off else "ended"
            until = None if start is None else max(self.as_of, start) if is_open else stopped
            due = row.get("due_at")
            is_overdue = None if due is None or until is None else until > due
            more = {
                "state": state,
                "occurrence": occurrence,
                "is_overdue": is_overdue,
                "template": instance["workflow"],
            }
            found.append(row | more | self._spent(start, until))
        return found

    def _responses(self, rows: list[Row]) -> list[Row]:
        found = []
        for row in rows:
            step = self.steps.get((row["instance_id"], row["step_key"]))
            if step is None or row["role_type"] == "commenter":
                continue
            at, start = row["responded_at"], step["started_at"]
            if at is not None and start is not None and at < start:
                self.malformed += 1
            elif at is not None or step["state"] == "open":
                until = at or max(self.as_of, start)
                is_overdue = None if step.get("due_at") is None else until > step["due_at"]
                found.append(row | {"step": step, "is_overdue": is_overdue, **self._spent(start, until)})
        return found

    # --- the parts of a report ---

    def totals(self) -> Row:
        sound = [row for row in self.instances.values() if not row["is_malformed"]]
        started = [step for step in self.steps.values() if step["state"] != "not_started"]
        return {
            "instances": len(sound),
            "ended": sum(row["state"] != "open" for row in sound),
            "open": sum(row["state"] == "open" for row in sound),
            "terminated": sum(row["state"] == "terminated" for row in sound),
            "step_rows": len(started),
            "open_steps": sum(step["state"] == "open" for step in started),
            "overridden": sum(step.get("overridden_at") is not None for step in started),
            "malformed": self.malformed,
            "total_seconds": sum(step["spent"] for step in started),
            "total_business_seconds": sum(step["business"] for step in started),
        }

    def step_rows(self) -> dict[Any, Row]:
        """Return the rows of the table steps by instance and step."""
        forecasts = self.forecasts()
        copied = ("template", "occurrence", "state", "is_overdue", "started_at", "due_at")
        return {
            key: {name: step.get(name) for name in copied}
            | _measured(step, "waiting")
            | {"is_overridden": step.get("overridden_at") is not None, "step": step["name"]}
            | forecasts.get(key, {})
            for key, step in self.steps.items()
        }

    def instance_rows(self) -> dict[Any, Row]:
        """Return the rows of the table instances by instance."""
        copied = [
            "started_at",
            "ended_at",
            "state",
            "steps",
            "returned_steps",
            "rework_rounds",
            "overrides",
            "overdue_steps",
            "people",
        ]
        return {
            (key,): {name: row[name] for name in (*copied, "overdue_steps", "people")} | _measured(row, "total")
            for key, row in self.instances.items()
            if not row["is_malformed"]
        }

    def step_summary(self) -> dict[Any, Row]:
        groups = defaultdict(list)
        for step in self.steps.values():
            if step["state"] != "not_started":
                groups[step["template"], step["name"]].append(step)
        return {
            key: _summary(steps, groups.values(), lambda step: step["state"] == "ended")
            | {"rework_rate": sum(step["occurrence"] > 1 for step in steps) / len(steps)}
            | {"share_overdue": _mean(step["is_overdue"] for step in steps)}
            | {"cut_off": sum(step["state"] == "cut_off" for step in steps)}
            for key, steps in groups.items()
        }

    def template_summary(self) -> dict[Any, Row]:
        groups = defaultdict(list)
        for row in self.instances.values():
            if not row["is_malformed"]:
                groups[(row["workflow"],)].append(row)
        due = {step["instance_id"] for step in self.steps.values() if step["is_overdue"] is not None}
        return {
            key: _summary(rows, groups.values(), lambda row: row["state"] == "ended")
            | {"rework_rate": sum(row["returned_steps"] > 0 for row in rows) / len(rows)}
            | {"share_overdue": _mean(row["overdue_steps"] > 0 for row in rows if row["instance_id"] in due)}
            | {"cut_off": sum(row["state"] == "terminated" for row in rows)}
            for key, rows in groups.items()
        }

    def person_summary(self) -> dict[Any, Row]:
        groups = defaultdict(list)
        for row in self.responses:
            groups[(row["name"],)].append(row | {"state": "ended" if row["responded_at"] else "open"})
        return {
            key: _summary(rows, groups.values(), lambda row: row["state"] == "ended")
            | {"rework_rate": sum(row["step"]["occurrence"] > 1 for row in rows) / len(rows)}
            | {"share_overdue": _mean(row["is_overdue"] for row in rows)}
            for key, rows in groups.items()
        }

    def forecasts(self, minimum: int = 20) -> dict[Any, Row]:
        """Return the forecast of each open step by its key."""
        found = {}
        for key, step in self.steps.items():
            if step["state"] != "open":
                continue
            longer = [
                other["spent"]
                for other in self.steps.values()
                if (other["template"], other["name"]) == (step["template"], step["name"])
                and other["state"] == "ended"
                and other["spent"] > step["spent"]
            ]
            dates = {
                name: step["started_at"] + timedelta(seconds=quantile(longer, share))
                if len(longer) >= minimum
                else None
                for name, share in (("decided_by_50", 0.5), ("decided_by_80", 0.8))
            }
            found[key] = {"observations": len(longer), **dates}
        return found

    def throughput(self) -> dict[str, tuple[int, int]]:
        weeks: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for row in self.instances.values():
            if row["is_malformed"]:
                continue
            for place, moment in enumerate((row["started_at"], row["ended_at"])):
                if moment is not None:
                    year, week, _ = moment.astimezone(ZoneInfo(self.office.zone)).isocalendar()
                    weeks[f"{year}-W{week:02}"][place] += 1
        return {week: (counts[0], counts[1]) for week, counts in weeks.items()}


def _summary(rows: Sequence[Row], groups: Iterable[Sequence[Row]], is_counted: Any) -> Row:
    counted = [row for row in rows if is_counted(row)]
    total, everything = (sum(row["spent"] for row in some) for some in (rows, [row for g in groups for row in g]))
    values = {
        f"{name}{kind}_seconds": quantile([row[field] for row in counted], share) if counted else None
        for name, share in (("median", 0.5), ("p90", 0.9))
        for kind, field in (("", "spent"), ("_business", "business"))
    }
    return {
        "count": len(counted),
        "open": sum(row["state"] == "open" for row in rows),
        **values,
        "total_seconds": total,
        "share_of_total": total / everything if everything else None,
    }


def _measured(row: Row, name: str) -> Row:
    is_open = row["state"] == "open"
    return {
        f"{name}_seconds": None if is_open else row["spent"],
        f"{name}_business_seconds": None if is_open else row["business"],
        "age_seconds": row["spent"] if is_open else None,
        "age_business_seconds": row["business"] if is_open else None,
    }


def _mean(flags: Iterable[bool | None]) -> float | None:
    known = [flag for flag in flags if flag is not None]
    return sum(known) / len(known) if known else None
