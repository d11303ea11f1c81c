"""What was measured, as text, as tables for the documentation, and as a chart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

LABELS = {
    "v2": "Workflows v2",
    "legacy": "Legacy",
    "changed": "ProcoreInstanceChangedTrigger",
    "http_sensor": "HttpSensorTrigger",
    "http_event": "HttpEventTrigger",
}
COLOURS = {
    "v2": "#0b6fa4",
    "legacy": "#2f8f4e",
    "changed": "#7a7a1e",
    "http_sensor": "#c2571a",
    "http_event": "#8b3a8f",
}
RESULTS = Path("benchmarks/results.json")
CHART = Path("docs/img/waits.svg")
BUSY = 0.25  # cores; with more than that in use elsewhere a measurement was disturbed

Row = dict[str, Any]
COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("waits", lambda row: f"{row['waits']:,}"),
    ("by", lambda row: LABELS[row["kind"]]),
    ("every", lambda row: f"{row['interval']:g} s"),
    ("requests per poll", lambda row: f"{row['requests_per_poll']:,.0f}"),
    ("CPU per poll", lambda row: f"{row['cpu_per_poll']:.3f} s"),
    ("of a core", lambda row: f"{row['core_share']:.1%}"),
    ("at 60 s (computed)", lambda row: f"{row['core_share_60']:.2%}"),
    ("memory", lambda row: f"{row['memory']:.0f} MiB"),
    ("per wait", lambda row: f"{row['memory_per_wait_kib']:.1f} KiB"),
    ("longest stall", lambda row: f"{row['longest_stall'] * 1000:.0f} ms"),
    ("longest full collection of garbage", lambda row: f"{row['longest_collection'] * 1000:.0f} ms"),
    ("delay p50", lambda row: f"{row['delay_p50']:.1f} s"),
    ("delay p99", lambda row: f"{row['delay_p99']:.1f} s"),
)
DECIDED_BY = ("waits", "by", "every", "requests per poll", "of a core", "memory", "delay p50", "delay p99")


def line(row: Row) -> str:
    """Return one measurement as a line."""
    reported = ", ".join(f"{name} {show(row)}" for name, show in COLUMNS[2:])
    return f"{row['waits']:>6,} waits by {LABELS[row['kind']]}: {reported} ({_others(row)})"


def _others(row: Row) -> str:
    return f"other programs: {row['others']:.2f} cores; idle, it stalled {row['idle_stall'] * 1000:.0f} ms"


def text(results: dict[str, Any]) -> str:
    """Return everything as plain text."""
    widths = [
        max(len(name), *(len(show(row)) for row in results["measured"])) if results["measured"] else len(name)
        for name, show in COLUMNS
    ]
    rows = [[name for name, _ in COLUMNS]] + [[show(row) for _, show in COLUMNS] for row in results["measured"]]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines += ["", *(f"{LABELS[kind]}: {number:,} waits fit" for kind, number in fitting(results))]
    lines += [f"({FITTING})", ""]
    for target in all_targets(results):
        mark = "met   " if target["met"] else "MISSED"
        lines.append(f"{mark} {target['name']}: {target['value']:g} (at most {target['limit']:g})")
    lines += ["", disturbance(results), where(results), f"It took {results['seconds']} s."]
    return "\n".join(lines)


FITTING = "into 600 requests an hour with a poll every 5 minutes; computed from the requests per poll of the most waits"


def fitting(results: dict[str, Any]) -> Iterable[tuple[str, int]]:
    """Return for each kind how many waits fit into 600 requests an hour with 12 polls."""
    for kind in LABELS:
        measured = [row for row in results["measured"] if row["kind"] == kind]
        if measured:
            most = max(measured, key=lambda row: row["waits"])
            # A stock trigger makes a request at each poll; what is missing to that in an interval, it was late.
            requests = max(most["requests_per_poll"], most["waits"] if kind.startswith("http_") else 0)
            if requests:  # none on a machine too busy to poll in the time that was measured
                yield kind, int(600 / 12 / requests * most["waits"])


def all_targets(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the targets of single measurements, and those of waits beside others where these were measured."""
    beside = results.get("neighbours") or {"targets": []}
    return [*results["targets"], *beside["targets"]]


def where(results: dict[str, Any]) -> str:
    """Describe on what it was measured, and when."""
    machine = results["machine"]
    stock = f", apache-airflow-providers-http {machine['http_provider']}" if machine["http_provider"] else ""
    return (
        f"Measured on {machine['date']}: {machine['cores']} cores, Python {machine['python']}, "
        f"Airflow {machine['airflow']}{stock}. The emulator ran on the same machine; its work is not counted."
    )


def disturbance(results: dict[str, Any]) -> str:
    """Describe whether other programs were busy."""
    most = max((row["others"] for row in results["measured"]), default=0.0)
    idle = max((row["idle_stall"] for row in results["measured"]), default=0.0)
    reported = (
        f"Meanwhile other programs kept at most {most:.2f} cores busy, and a program that only slept woke up at most "
        f"{idle * 1000:.0f} ms late"
    )
    return reported + (", which disturbed this run." if most > BUSY else ".")


# --- documentation ------------------------------------------------------------------------------------------


def update(results: dict[str, Any], root: Path) -> None:
    """Write the results and the chart; ``make generate`` writes the tables of the documentation."""
    (root / RESULTS).write_text(json.dumps(results, indent=1) + "\n")
    (root / CHART).parent.mkdir(exist_ok=True)
    (root / CHART).write_text(chart(results))


def tables(results: dict[str, Any]) -> str:
    """Return what a user decides by, as Markdown."""
    columns = [(name, show) for name, show in COLUMNS if name in DECIDED_BY]
    lines = [f"{where(results)} {disturbance(results)}", ""]
    lines += _table([name for name, _ in columns], ([show(row) for _, show in columns] for row in results["measured"]))
    lines += ["", "![What waiting costs, by the number of waits](img/waits.svg)", ""]
    lines += [f"So many waits fit {FITTING}:", ""]
    lines += _table(["by", "waits"], ([LABELS[kind], f"{number:,}"] for kind, number in fitting(results)))
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


# --- chart --------------------------------------------------------------------------------------------------

PANELS = (
    ("Requests per poll", "requests_per_poll", 1.0, ""),
    ("CPU seconds per poll", "cpu_per_poll", 1.0, " s"),
    ("Longest stall, without full garbage collections", "longest_stall", 1000.0, " ms"),
    ("Memory, more than at rest", "memory", 1.0, " MiB"),
)
WIDTH, HEIGHT = 420, 250  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 78, 26, 40, 44
STYLE = (
    "text { font: 12px system-ui, sans-serif; fill: #222 } .title { font-weight: 600; font-size: 13px } "
    ".grid { stroke: #ddd } .axis { stroke: #555 }"
)


def chart(results: dict[str, Any]) -> str:
    """Return four panels over the number of waits, both axes logarithmic, as SVG."""
    width, height = 2 * WIDTH, 2 * HEIGHT + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="What waiting costs, by the number of waits">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    kinds = [kind for kind in LABELS if any(row["kind"] == kind for row in results["measured"])]
    x = LEFT
    for kind in kinds:
        parts.append(f'<circle cx="{x}" cy="17" r="5" fill="{COLOURS[kind]}"/>')
        parts.append(f'<text x="{x + 10}" y="21">{escape(LABELS[kind])}</text>')
        x += 36 + 7 * len(LABELS[kind])
    for place, panel in enumerate(PANELS):
        x, y = place % 2 * WIDTH, 34 + place // 2 * HEIGHT
        parts.append(f'<g transform="translate({x} {y})">{_panel(results["measured"], kinds, *panel)}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(measured: Sequence[Row], kinds: Sequence[str], title: str, what: str, factor: float, unit: str) -> str:
    values = [max(1e-6, row[what] * factor) for row in measured]
    lowest, highest = (math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))))
    highest = max(highest, lowest + 1)
    sizes = sorted({row["waits"] for row in measured})
    first, last = math.log10(sizes[0]), math.log10(sizes[-1])
    inner, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(waits: int) -> float:
        return LEFT + inner * ((math.log10(waits) - first) / (last - first) if last > first else 0.5)

    def up(value: float) -> float:
        return TOP + tall * (1 - (math.log10(max(1e-6, value)) - lowest) / (highest - lowest))

    parts = [f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>']
    for power in range(lowest, highest + 1):
        y = up(10.0**power)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + inner}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:,g}{unit}</text>')
    for waits in sizes:
        x = across(waits)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP + tall}" y2="{TOP + tall + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP + tall + 18}" text-anchor="middle">{waits:,}</text>')
    parts.append(f'<text x="{LEFT + inner / 2}" y="{TOP + tall + 36}" text-anchor="middle">waits</text>')
    parts.append(f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{TOP + tall}H{LEFT + inner}"/>')
    for kind in kinds:
        points = [
            f"{across(row['waits']):.1f},{up(row[what] * factor):.1f}"
            for row in sorted(measured, key=lambda row: int(row["waits"]))
            if row["kind"] == kind
        ]
        dash = ' stroke-dasharray="6 4"' if kind == "http_event" else ""  # it may lie upon another
        parts.append(
            f'<polyline fill="none" stroke="{COLOURS[kind]}" stroke-width="2"{dash} points="{" ".join(points)}"/>'
        )
        for point in points:
            cx, cy = point.split(",")
            parts.append(f'<circle cx="{cx}" cy="{cy}" r="3.5" fill="{COLOURS[kind]}"/>')
    return "\n".join(parts)
