"""What became of the points of the flows, as a table and in words."""

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
    """What became of the points of one flow."""

    flow: Flow
    seed: int
    quick: bool
    outcomes: dict[int, Outcome]

    def cells(self) -> list[str]:
        outcomes = self.outcomes.values()
        ended = Counter(outcome.ended for outcome in outcomes)
        lost, doubled = sum(one.lost for one in outcomes), sum(one.doubled for one in outcomes)
        untrue, wrong = sum(len(one.untrue) for one in outcomes), sum(one.is_violation for one in outcomes)
        numbers = [len(outcomes), ended[DONE], ended[FAILED], ended[REPORTED], lost, doubled, untrue, wrong]
        return [self.flow.name, self.flow.mode or "", *map(str, numbers)]

    def violations(self) -> list[str]:
        """Say of each violation what it is, how it came, and how to see it again."""
        mode = f" --mode {self.flow.mode}" if self.flow.mode else ""
        quick = " --quick" if self.quick else ""
        again = f"python -m tests.robustness.faults --flow '{self.flow.name}'{mode} --seed {self.seed}{quick}"
        return [
            f"{self.flow.name}, point {number}: lost {one.lost}, doubled {one.doubled}, untrue {len(one.untrue)}\n"
            f"  again: {again} --point {number}\n  " + "\n  ".join([*one.untrue, *one.wrong, "---", *one.story])
            for number, one in self.outcomes.items()
            if one.is_violation
        ]


def table(rows: list[Row]) -> str:
    """Return what became of all points as a table, with their sums."""
    heads = ["flow", "mode", "points", DONE, FAILED, REPORTED, "lost", "doubled", "untrue", "violations"]
    cells = [row.cells() for row in rows]
    sums = [str(sum(int(row[column]) for row in cells)) for column in range(2, len(heads))]
    lines = [heads, *cells, ["all", "", *sums]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )
