"""The outcomes at the points of the flows, as a table and as text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .flows import Flow

DONE, FAILED, REPORTED = "done", "failed clearly", "reported"


@dataclass
class Outcome:
    """How a disturbed flow ended, and what is wrong with that."""

    ended: str = DONE
    lost: int = 0
    doubled: int = 0
    untrue: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    @property
    def is_violation(self) -> bool:
        return bool(self.wrong or self.untrue or self.lost or self.doubled)


@dataclass
class Row:
    """The outcomes at the points of one flow."""

    flow: Flow
    seed: int
    quick: bool
    outcomes: dict[int, Outcome]

    def cells(self) -> list[str]:
        outcomes = self.outcomes.values()
        ended = Counter(outcome.ended for outcome in outcomes)
        lost, doubled = sum(outcome.lost for outcome in outcomes), sum(outcome.doubled for outcome in outcomes)
        untrue, wrong = (
            sum(len(outcome.untrue) for outcome in outcomes),
            sum(outcome.is_violation for outcome in outcomes),
        )
        numbers = [len(outcomes), ended[DONE], ended[FAILED], ended[REPORTED], lost, doubled, untrue, wrong]
        return [self.flow.name, self.flow.mode or "", *map(str, numbers)]

    def violations(self) -> list[str]:
        """Describe each violation, its story, and how to repeat it."""
        mode = f" --mode {self.flow.mode}" if self.flow.mode else ""
        quick = " --quick" if self.quick else ""
        again = f"python -m tests.robustness.faults --flow '{self.flow.name}'{mode} --seed {self.seed}{quick}"
        return [
            f"{self.flow.name}, point {number}: lost {outcome.lost}, doubled {outcome.doubled}, "
            f"untrue {len(outcome.untrue)}\n"
            f"  again: {again} --point {number}\n  "
            + "\n  ".join([*outcome.untrue, *outcome.wrong, "---", *outcome.story])
            for number, outcome in self.outcomes.items()
            if outcome.is_violation
        ]


def table(rows: list[Row]) -> str:
    """Return the outcomes at all points as a table, with their sums."""
    heads = ["flow", "mode", "points", DONE, FAILED, REPORTED, "lost", "doubled", "untrue", "violations"]
    cells = [row.cells() for row in rows]
    sums = [str(sum(int(row[column]) for row in cells)) for column in range(2, len(heads))]
    lines = [heads, *cells, ["all", "", *sums]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )
