"""The charts of the cycle time report as inline SVG, drawn by Matplotlib without its global figures."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_INCHES = 8.6
ROW_INCHES = 0.42
LABEL_INCHES = 2.5  # left of the axes, for the names
NOTE_INCHES = 1.35  # right of them
UPPER = 0.18  # of a row, from its middle to each of its two lines
MAX_LABEL_CHARACTERS = 34
MIN_SHARE_WITH_NAME = 0.09  # of a bar; the name of a smaller part does not fit into it
# Colours that stand for CSS variables, so that one drawing serves the light and the dark page.
VARIABLES = {
    "ink": "#010101",
    "muted": "#010102",
    "grid": "#010103",
    "calendar": "#010104",
    "business": "#010105",
    "overdue": "#010106",
    "on-part": "#010107",
    **{f"part-{number}": f"#0102{number:02d}" for number in range(7)},
}
PARTS = tuple(VARIABLES[f"part-{number}"] for number in range(7))
HOUR_TICKS = {1 / 60: "≤ 1 min", 1 / 6: "10 min", 1: "1 h", 8: "8 h", 24: "1 d", 168: "7 d", 720: "30 d", 8760: "1 y"}
MIN_HOURS = 1 / 60  # shorter waits are drawn as this on the logarithmic axis
SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text: it can be searched, copied and read aloud
    "svg.hashsalt": "cycle times",  # the same report gives the same bytes
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "axes.unicode_minus": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": VARIABLES["ink"],
}


@contextmanager
def drawing() -> Iterator[None]:
    """Apply this module's settings of Matplotlib, and restore those of the process afterwards."""
    with rc_context(), warnings.catch_warnings():
        rcdefaults()  # a file of this machine must not change the page
        rcParams.update(SETTINGS)
        warnings.simplefilter("ignore")  # a name may have letters that Matplotlib's font lacks; the browser has them
        yield


@dataclass(frozen=True)
class Spread:
    """The distribution of some durations in hours."""

    p10: float
    p25: float
    median: float
    p75: float
    p90: float


@dataclass(frozen=True)
class StepSpread:
    """The distributions of the waiting time of one step; ``notes`` are the medians of both as text."""

    label: str
    below: str
    notes: tuple[str, str]
    count: str
    calendar: Spread
    business: Spread


@dataclass(frozen=True)
class Text:
    """The name of a chart in the page's ids, and its text alternative."""

    name: str
    title: str
    description: str


def spreads(text: Text, rows: Sequence[StepSpread]) -> str:
    """Draw a box for the calendar time of each step, and below it one for its business time."""
    figure, axes = _bars(len(rows))
    for place, row in enumerate(rows):
        for spread, note, name, offset in (
            (row.calendar, f"{row.notes[0]}, {row.count} times", "calendar", -UPPER),
            (row.business, row.notes[1], "business", UPPER),
        ):
            _box(axes, place + offset, spread, VARIABLES[name])
            _note(axes, place + offset, note)
        _label(axes, place - UPPER, row.label)
        _label(axes, place + UPPER, row.below, VARIABLES["muted"])
    axes.set_xscale("log")
    both = [spread for row in rows for spread in (row.calendar, row.business)]
    axes.set_xlim(
        max(min(spread.p10 for spread in both), MIN_HOURS) / 1.3, max(1.0, *(spread.p90 for spread in both)) * 1.3
    )
    axes.xaxis.set_major_locator(FixedLocator(list(HOUR_TICKS)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: HOUR_TICKS.get(value, f"{value:g} h")))
    return _svg(figure, text)


def stacks(text: Text, rows: Sequence[tuple[str, str, Sequence[tuple[str, float]]]]) -> str:
    """
    Draw a bar for each row that consists of named parts.

    :param rows: Label, note at the right, and the parts' names and hours; no more than seven parts.
    """
    figure, axes = _bars(len(rows))
    longest = max((sum(value for _, value in parts) for _, _, parts in rows), default=0.0) or 1.0
    for row, (label, note, parts) in enumerate(rows):
        left = 0.0
        for (name, value), colour in zip(parts, PARTS, strict=False):
            axes.barh(row, value, left=left, height=0.62, color=colour, edgecolor=VARIABLES["on-part"], linewidth=0.8)
            if value / longest >= MIN_SHARE_WITH_NAME:
                room = int(value / longest * 62)  # characters
                axes.text(
                    left + value / 2, row, shorten(name, room), ha="center", va="center", color=VARIABLES["on-part"]
                )
            left += value
        _label(axes, row, label)
        _note(axes, row, note)
    axes.set_xlim(0, longest)
    unit, hours = ("d", 24) if longest >= 48 else ("h", 1)
    axes.xaxis.set_major_locator(
        FixedLocator([tick * hours for tick in MaxNLocator(5).tick_values(0, longest / hours)])
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / hours:,g} {unit}"))
    return _svg(figure, text)


def columns(text: Text, labels: Sequence[str], series: Mapping[str, Sequence[float]], *, stacked: bool) -> str:
    """
    Draw columns side by side or stacked, with their values in a series each.

    :param labels: Labels of the columns.
    :param series: Values by the name of their colour.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 2.2))
    axes = figure.add_axes((0.06, 0.15, 0.92, 0.8))
    _style(axes, grid="y")
    width = 0.72 if stacked else 0.72 / max(len(series), 1)
    below = [0.0] * len(labels)
    for number, (name, values) in enumerate(series.items()):
        shift = 0.0 if stacked else (number - (len(series) - 1) / 2) * width
        axes.bar(
            [place + shift for place in range(len(labels))],
            values,
            width,
            bottom=below if stacked else None,
            color=VARIABLES[name],
        )
        below = [sum(pair) for pair in zip(below, values, strict=True)]
    step = -(-len(labels) // 13) or 1  # every n-th label, so that they do not overlap
    axes.set_xticks(range(0, len(labels), step), labels[::step])
    axes.set_xlim(-0.6, max(len(labels), 1) - 0.4)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.set_ylim(bottom=0)
    return _svg(figure, text)


def shorten(name: str, characters: int = MAX_LABEL_CHARACTERS) -> str:
    """Return a name that has no more than some characters, with an ellipsis where it is cut."""
    return name if len(name) <= characters else f"{name[: max(characters - 1, 1)].rstrip()}…"


def _bars(count: int) -> tuple[Figure, Axes]:
    """Return axes for horizontal bars, the first of them at the top."""
    height = ROW_INCHES * max(count, 1) + 0.5
    figure = Figure(figsize=(WIDTH_INCHES, height))
    axes = figure.add_axes(
        (
            LABEL_INCHES / WIDTH_INCHES,
            0.4 / height,
            (WIDTH_INCHES - LABEL_INCHES - NOTE_INCHES) / WIDTH_INCHES,
            (height - 0.5) / height,
        )
    )
    axes.set_ylim(max(count, 1) - 0.5, -0.5)
    axes.yaxis.set_major_locator(NullLocator())
    _style(axes, grid="x")
    return figure, axes


def _style(axes: Axes, *, grid: str) -> None:
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis=grid, color=VARIABLES["grid"], linewidth=0.8)  # type: ignore[arg-type]  # x or y
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelcolor=VARIABLES["muted"])


def _box(axes: Axes, place: float, spread: Spread, colour: str) -> None:
    p10, p25, median, p75, p90 = (
        max(value, MIN_HOURS) for value in (spread.p10, spread.p25, spread.median, spread.p75, spread.p90)
    )
    axes.plot([p10, p90], [place, place], color=colour, linewidth=1.2, solid_capstyle="butt")
    axes.barh(place, p75 - p25, left=p25, height=0.24, color=colour, alpha=0.55)
    axes.plot([median, median], [place - 0.15, place + 0.15], color=colour, linewidth=3, solid_capstyle="butt")


def _label(axes: Axes, place: float, label: str, colour: str = VARIABLES["ink"]) -> None:
    transform = axes.get_yaxis_transform()
    axes.text(-0.015, place, shorten(label), transform=transform, ha="right", va="center", color=colour)


def _note(axes: Axes, place: float, note: str) -> None:
    axes.text(1.01, place, note, transform=axes.get_yaxis_transform(), va="center", color=VARIABLES["muted"])


def _svg(figure: Figure, text: Text) -> str:
    """Return a figure as an SVG element for an HTML page, with its text alternative and without a size of its own."""
    figure.patch.set_visible(False)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawn = file.getvalue()
    size = re.search(r'viewBox="[\d. ]+"', drawn)
    assert size, "Matplotlib's SVG has no viewBox"
    inside = drawn[drawn.index(">", drawn.index("<svg")) + 1 :]
    return (
        f'<svg role="img" aria-labelledby="{text.name}-title {text.name}-desc" {size[0]}>'
        f'<title id="{text.name}-title">{escape(text.title)}</title>'
        f'<desc id="{text.name}-desc">{escape(text.description)}</desc>{_of_page(inside, text.name)}'
    )


def _of_page(drawn: str, name: str) -> str:
    """Leave styles to the page, and give the ids of a drawing its name, because a page has several drawings."""
    drawn = re.sub(r"<style.*?</style>|<!--.*?-->| font-family: [^;]*;", "", drawn, flags=re.DOTALL)
    for find, place in ((r'\bid="', f'id="{name}-'), (r"url\(#", f"url(#{name}-"), (r'href="#', f'href="#{name}-')):
        drawn = re.sub(find, place, drawn)
    for variable, colour in VARIABLES.items():
        drawn = drawn.replace(colour, f"var(--{variable})")
    return drawn
