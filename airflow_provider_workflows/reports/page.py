"""The HTML page of a cycle-time report: one file without scripts, fonts or links to other files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlsplit

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.reports import charts
from airflow_provider_workflows.reports.cycle_times import CycleTimeReport, Row
from airflow_provider_workflows.reports.page_text import (
    NO_VALUE,
    both,
    business,
    calendar,
    count,
    local_day,
    local_time,
    percent,
    printable,
)

MAX_TABLE_ROWS = 200
MAX_STEPS_DRAWN = 12
MAX_TEMPLATES_DRAWN = 8
MAX_PARTS = len(charts.PARTS) - 1  # of a bar; the last colour is for the others
MAX_WEEKS = 53
MAX_OLDEST = 10
MAX_ASSIGNEES = 5  # of one open step
APIS = {"v2": "Workflows", "legacy": "Legacy"}
BOTH = "durations: calendar / business time"
SUMMARY_HEADS = ("Count", "Median", "90 % within", "Total", "Share of total", "Overdue", "Rework", "Open now")


@dataclass(frozen=True)
class Table:
    """
    A table of the page.

    :param heads: The columns' names.
    :param names: How many columns from the left are names; those to the right of them are numbers or times.
    :param rows: Cells as text, or as a pair of text and URL.
    :param note: What the table leaves out, or "".
    """

    caption: str
    heads: Sequence[str]
    names: int
    rows: Sequence[Sequence[str | tuple[str, str]]]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """
    A chart of the page.

    :param legend: Pairs of a colour's variable and what it stands for.
    :param svg: The drawing, or "" if there is nothing to draw.
    :param note: How to read the chart, and what it leaves out.
    """

    title: str
    legend: Sequence[tuple[str, str]]
    svg: str
    note: str
    table: Table


def render_page(report: CycleTimeReport, item_url: str | None = None) -> str:
    """
    Return a report as one HTML page that works offline.

    :param item_url: Pattern of the links to the items, as :func:`check_item_url` describes it; None for no links.
    :raises ConfigurationError: ``item_url`` is not such a pattern.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    check_item_url(item_url)
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    with charts.drawing():
        drawn = {
            "where": _where_the_time_goes(report),
            "waits": _waits_by_step(report),
            "ages": _ages(report),
            "weeks": _throughput(report),
        }
    page = environment.get_template("page.html").render(
        report=report,
        as_of=local_time(report.as_of, report.time_zone),
        tiles=_tiles(report),
        charts=drawn,
        oldest=_oldest(report, item_url),
        summaries=[
            _summary("Templates", report.template_summary, "template", lambda row: [_api(row), row["template"]]),
            _summary("Steps", report.step_summary, "step", lambda row: [_api(row), row["template"], row["step"]]),
            _summary("People", report.person_summary, "person", lambda row: [_api(row), row["person"]]),
        ],
        malformed=_malformed(report),
        holidays=[f"{row['day']} {printable(row['name'])}" for row in report.holidays_used],
    )
    return str(page)


def check_item_url(pattern: str | None) -> None:
    """
    Check the pattern of the links to items.

    :param pattern: A URL with ``{company_id}``, ``{project_id}``, ``{tool_type}``, ``{item_id}`` or
        ``{instance_id}`` in it, or None.
    :raises ConfigurationError: it does not start with http:// or https://, or has another name in braces.
    """
    if pattern is None:
        return
    if urlsplit(pattern).scheme not in ("http", "https") or not urlsplit(pattern).netloc:
        raise ConfigurationError(f"item_url must be a URL that starts with https:// or http://; got {pattern!r}.")
    if unknown := set(re.findall(r"\{(.*?)\}", pattern)) - set(URL_IDS):
        raise ConfigurationError(
            f"item_url: unknown {', '.join(sorted(unknown))} in braces. Expected any of: {', '.join(URL_IDS)}."
        )


URL_IDS = ("company_id", "project_id", "tool_type", "item_id", "instance_id")


def _item_link(row: Row, pattern: str | None) -> str:
    """Return the URL of a row's item, or "" if there is no pattern or an id is unknown."""
    if pattern is None or any(row[name] is None for name in URL_IDS if f"{{{name}}}" in pattern):
        return ""
    return re.sub(r"\{(\w+)\}", lambda found: quote(str(row[found[1]]), safe="", errors="replace"), pattern)


def _api(row: Row) -> str:
    return APIS.get(row["api"], str(row["api"]))


# --- tiles ---


def _tiles(report: CycleTimeReport) -> list[tuple[str, str, str]]:
    """Return label, value and explanation of each tile."""
    totals = report.totals
    overdue = sum(row["overdue"] for row in report.open_ages)
    tiles = [
        ("Open steps", count(totals["open_steps"]), f"in {count(totals['open'])} open instances"),
        ("Overdue", count(overdue), "open steps that are past their due date"),
    ]
    if report.open_steps:
        oldest = report.open_steps[0]
        age = calendar(oldest["age_seconds"])
        tiles.append(("Oldest open", age, f"{business(oldest['age_business_seconds'])} of business time"))
    tiles.append(
        (
            "Total waiting time",
            calendar(totals["total_seconds"]),
            f"{business(totals['total_business_seconds'])} of business time, in {count(totals['step_rows'])} step "
            "occurrences",
        )
    )
    if report.step_summary and report.step_summary[0]["share_of_total"] is not None:
        first = report.step_summary[0]
        tiles.append(
            (
                "Longest in total",
                percent(first["share_of_total"]),
                f"of the waiting time is at {charts.shorten(printable(first['step']))}",
            )
        )
    ended = f"of {count(totals['instances'])}; {count(totals['terminated'])} terminated"
    tiles.append(("Ended instances", count(totals["ended"]), ended))
    return tiles


# --- charts ---


def _where_the_time_goes(report: CycleTimeReport) -> Chart:
    by_template: dict[tuple[str, str], list[Row]] = {}
    for row in report.step_summary:
        by_template.setdefault((row["api"], row["template"]), []).append(row)
    ordered = sorted(by_template.values(), key=lambda rows: -_total(rows))
    drawn = [
        (
            printable(rows[0]["template"]),
            both(_total(rows), _total_business(rows)),
            _parts(rows),
        )
        for rows in ordered[:MAX_TEMPLATES_DRAWN]
    ]
    if others := [row for rows in ordered[MAX_TEMPLATES_DRAWN:] for row in rows]:
        number = len(ordered) - MAX_TEMPLATES_DRAWN
        drawn.append(
            (
                f"{number} other templates",
                both(_total(others), _total_business(others)),
                [("all steps", _total(others) / 3600)],
            )
        )
    rows = [
        [
            printable(row["template"]),
            printable(row["step"]),
            calendar(row["total_seconds"]),
            business(row["total_business_seconds"]),
            percent(row["share_of_total"]),
        ]
        for template in ordered
        for row in template
    ]
    title = "Where the total time goes"
    described = "; ".join(
        f"{label}: {note.partition(' / ')[0]}, most of it at {parts[0][0]}" for label, note, parts in drawn[:3] if parts
    )
    text = charts.Text("where", title, f"Stacked bars of the waiting time of each template by step. {described}.")
    return Chart(
        title=title,
        legend=(),
        svg=charts.stacks(text, drawn) if drawn else "",
        note="Waiting time of all step occurrences of a template, the open ones up to now. At the right: calendar time "
        "/ business time. The grey part of a bar is its other steps.",
        table=_capped(
            Table(
                "Waiting time by template and step",
                ("Template", "Step", "Total", "Total, business", "Share of total"),
                2,
                rows,
            )
        ),
    )


def _parts(rows: Sequence[Row]) -> list[tuple[str, float]]:
    """Return the steps of a template with their hours, the longest first and the last of them together."""
    ordered = sorted(rows, key=lambda row: -row["total_seconds"])
    parts = [(printable(row["step"]), row["total_seconds"] / 3600) for row in ordered[:MAX_PARTS]]
    if others := ordered[MAX_PARTS:]:
        parts.append((f"{len(others)} others", _total(others) / 3600))
    return parts


def _total(rows: Sequence[Row]) -> float:
    return sum(float(row["total_seconds"]) for row in rows)


def _total_business(rows: Sequence[Row]) -> float:
    return sum(float(row["total_business_seconds"]) for row in rows)


def _waits_by_step(report: CycleTimeReport) -> Chart:
    drawn = [
        charts.StepSpread(
            label=printable(row["step"]),
            below=f"{printable(row['template'])}",
            notes=(calendar(row["seconds"]["p50"]), business(row["business_seconds"]["p50"])),
            count=count(row["count"]),
            calendar=_spread(row["seconds"]),
            business=_spread(row["business_seconds"]),
        )
        for row in report.step_distribution[:MAX_STEPS_DRAWN]
    ]
    heads = [f"{name}{kind}" for kind in ("", ", business") for name in ("10 %", "25 %", "Median", "75 %", "90 %")]
    rows = [
        [
            printable(row["template"]),
            printable(row["step"]),
            count(row["count"]),
            *(calendar(row["seconds"][name]) for name in QUANTILES),
            *(business(row["business_seconds"][name]) for name in QUANTILES),
        ]
        for row in report.step_distribution
    ]
    title = "How long each step waits"
    left_out = len(report.step_distribution) - len(drawn)
    described = "; ".join(
        f"{row.label} of {row.below}: median {row.notes[0]} of calendar time, {row.notes[1]} of business time"
        for row in drawn[:3]
    )
    text = charts.Text(
        "waits", title, f"Distribution of the waiting time of the steps that take most time in total. {described}."
    )
    return Chart(
        title=title,
        legend=(("calendar", "calendar time"), ("business", "business time")),
        svg=charts.spreads(text, drawn) if drawn else "",
        note="Ended step occurrences. The mark is the median, also at the right; half of the occurrences are inside "
        "the box, 80 % inside the line. The axis is logarithmic, the longest in total first."
        + (f" {left_out} further steps are in the table only." if left_out else ""),
        table=_capped(Table("Waiting time by step", ("Template", "Step", "Count", *heads), 2, rows)),
    )


QUANTILES = ("p10", "p25", "p50", "p75", "p90")


def _spread(quantiles: Mapping[str, float]) -> charts.Spread:
    return charts.Spread(*(quantiles[name] / 3600 for name in QUANTILES))


def _ages(report: CycleTimeReport) -> Chart:
    labels = [_range(row) for row in report.open_ages]
    overdue = [row["overdue"] for row in report.open_ages]
    in_time = [row["count"] - row["overdue"] for row in report.open_ages]
    rows = [[label, count(a + b), count(b)] for label, a, b in zip(labels, in_time, overdue, strict=True)]
    title = "How old the open steps are"
    described = ", ".join(f"{row[0]}: {row[1]} of which {row[2]} overdue" for row in rows)
    text = charts.Text("ages", title, f"Open steps by age. {described}.")
    return Chart(
        title=title,
        legend=(("calendar", "not overdue, or without a due date"), ("overdue", "overdue")),
        svg=charts.columns(text, labels, {"calendar": in_time, "overdue": overdue}, stacked=True)
        if sum(in_time) + sum(overdue)
        else "",
        note="Open steps by their age in calendar time.",
        table=Table("Open steps by age", ("Age", "Open", "Overdue"), 1, rows),
    )


def _range(row: Row) -> str:
    start, end = row["from_seconds"], row["to_seconds"]
    if end is None:
        return f"over {calendar(start)}"
    return f"up to {calendar(end)}" if not start else f"{calendar(start)} to {calendar(end)}"


def _throughput(report: CycleTimeReport) -> Chart:
    weeks = report.throughput[-MAX_WEEKS:]
    rows = [[row["week"], count(row["started"]), count(row["ended"])] for row in weeks]
    title = "Instances per week"
    left_out = len(report.throughput) - len(weeks)
    started, ended = ([row[name] for row in weeks] for name in ("started", "ended"))
    text = charts.Text(
        "weeks", title, f"In {len(weeks)} weeks {count(sum(started))} instances started and {count(sum(ended))} ended."
    )
    return Chart(
        title=title,
        legend=(("business", "started"), ("calendar", "ended")),
        svg=charts.columns(
            text, [row["week"] for row in weeks], {"business": started, "calendar": ended}, stacked=False
        )
        if weeks
        else "",
        note="ISO weeks." + (f" The {left_out} weeks before {weeks[0]['week']} are left out." if left_out else ""),
        table=Table("Instances per week", ("Week", "Started", "Ended"), 1, rows),
    )


# --- tables ---


def _oldest(report: CycleTimeReport, item_url: str | None) -> Table:
    rows: list[list[str | tuple[str, str]]] = []
    for row in report.open_steps[:MAX_OLDEST]:
        item = f"{printable(row['tool_type'])} {printable(row['item_id'])}"
        name = printable(row["step"])
        rows.append(
            [
                (item, _item_link(row, item_url)),
                printable(row["template"]),
                name if row["occurrence"] in (None, 1) else f"{name} (occurrence {row['occurrence']})",
                _people(row["assignees"]),
                local_day(row["since"], report.time_zone),
                f"{local_day(row['due'], report.time_zone)}{', overdue' if row['is_overdue'] else ''}",
                both(row["age_seconds"], row["age_business_seconds"]),
                local_day(row["decided_by_50"], report.time_zone),
                local_day(row["decided_by_80"], report.time_zone),
                count(row["observations"]),
            ]
        )
    return Table(
        f"The ten oldest open steps ({BOTH})",
        (
            "Item",
            "Template",
            "Step",
            "Pending with",
            "Since",
            "Due",
            "Age",
            "50 % decided by",
            "80 % decided by",
            "Observations",
        ),
        4,
        rows,
    )


def _people(names: Sequence[str]) -> str:
    shown = [printable(name) for name in names[:MAX_ASSIGNEES]]
    if left_out := len(names) - len(shown):
        shown.append(f"{left_out} others")
    return ", ".join(shown) or NO_VALUE


def _summary(caption: str, rows: Sequence[Row], kind: str, names: Callable[[Row], list[str]]) -> Table:
    name_heads = {"template": ["API", "Template"], "step": ["API", "Template", "Step"], "person": ["API", "Person"]}[
        kind
    ]
    cells = [[*(printable(name) for name in names(row)), *_summary_cells(row)] for row in rows[:MAX_TABLE_ROWS]]
    note = ""
    if others := rows[MAX_TABLE_ROWS:]:
        together = {
            **dict.fromkeys(others[0]),
            **{name: _sum(others, name) for name in ("count", "open", *TOTALS, "share_of_total")},
        }
        cells.append([*[""] * (len(name_heads) - 1), f"{count(len(others))} others", *_summary_cells(together)])
        note = f"{_first_of(rows)}, and the others together. {IN_TABLES}"
    return Table(f"{caption} ({BOTH})", [*name_heads, *SUMMARY_HEADS], len(name_heads), cells, note)


TOTALS = ("total_seconds", "total_business_seconds")


def _sum(rows: Sequence[Row], name: str) -> float:
    return sum(row[name] or 0 for row in rows)


def _summary_cells(row: Row) -> list[str]:
    return [
        count(row["count"]),
        both(row["median_seconds"], row["median_business_seconds"]),
        both(row["p90_seconds"], row["p90_business_seconds"]),
        both(row["total_seconds"], row["total_business_seconds"]),
        percent(row["share_of_total"]),
        percent(row["share_overdue"]),
        percent(row["rework_rate"]),
        count(row["open"]),
    ]


def _malformed(report: CycleTimeReport) -> Table:
    rows = [[printable(row["file"]), printable(row["row"]), printable(row["reason"])] for row in report.malformed]
    left_out = report.totals["malformed"] - len(rows)
    return Table(
        "Malformed rows",
        ("File", "Row", "Reason"),
        3,
        rows,
        f"{count(left_out)} further malformed rows are not listed." if left_out > 0 else "",
    )


def _capped(table: Table) -> Table:
    """Return a table with its first rows only, and say so."""
    if len(table.rows) <= MAX_TABLE_ROWS:
        return table
    return replace(table, rows=table.rows[:MAX_TABLE_ROWS], note=f"{_first_of(table.rows)}. {IN_TABLES}")


IN_TABLES = "All rows are in the report's tables, if it writes them."


def _first_of(rows: Sequence[object]) -> str:
    return f"The first {MAX_TABLE_ROWS} of {count(len(rows))} rows"
