"""
Run everything that a release must pass, and print the checklist: ``make release-check``.

``CHECKS`` selects make targets, as in ``make release-check CHECKS="wheel docs"``. The checklist in CONTRIBUTING.md is
made from the same steps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.support.release import ROOT

MAKE = os.environ.get("MAKE", "make")


@dataclass(frozen=True)
class Step:
    """What a release needs: a make target that shows it, or something that a person does."""

    does: str
    target: str = ""

    def __str__(self) -> str:
        return f"`make {self.target}`: {self.does}" if self.target else self.does


BEFORE = (
    Step(
        "Raise `__version__` in `__init__.py` and `versions` in `get_provider_info.py`, run `make sbom`, and give the "
        "newest entry of `CHANGELOG.md` its version and date, as in `## 1.2.3 (2026-12-01)`."
    ),
)
CHECKS = (
    Step("style and formatting", "lint"),
    Step("types", "typecheck"),
    Step("the site builds without a warning", "docs"),
    Step("the wheel, the source archive and the bill of materials have one version and the right files", "wheel"),
    Step("the tested dependencies have no known vulnerability", "audit"),
    Step("all tests, every live run, the browser", "test-all"),
    Step("lines and branches that the quick tests run", "coverage"),
    Step("the quick tests on each minor version of Airflow", "matrix"),
    Step("every action, killed, suspended and rejected at each request", "faults"),
    Step("a triggerer and a scheduler killed while tasks wait", "kills"),
    Step("200 tasks within the rate limit", "load"),
    Step("an Airflow deployment with Celery whose parts are killed", "distributed"),
    Step("what waiting costs, against its targets", "bench"),
    Step("the cycle-time report of a million step rows", "bench-report"),
    Step("the main job on a real Airflow", "demo"),
)
AFTER = (
    Step("Push the tag. GitHub tests, builds, attests and publishes it, and makes the release."),
    Step("Verify the attestation of the published wheel; [SECURITY.md](SECURITY.md#verify-a-release) has the command."),
    Step("See that Read the Docs built the version, and that its `stable` is this one."),
    Step("For the first release: send [the entry for Airflow's ecosystem page](docs/ecosystem.md)."),
)


def checklist() -> str:
    """Return the numbered list for CONTRIBUTING.md."""
    steps = (
        *BEFORE,
        Step("`make release-check TAG=v1.2.3` on a quiet machine runs these, and prints the list with their results:"),
    )
    numbered = [f"{number}. {step}" for number, step in enumerate(steps, 1)]
    numbered += [f"   - {step}" for step in CHECKS]
    return "\n".join(numbered + [f"{number}. {step}" for number, step in enumerate(AFTER, len(steps) + 1)])


def run(target: str) -> bool:
    return subprocess.run([MAKE, "--no-print-directory", target], cwd=ROOT).returncode == 0


def main(arguments: Sequence[str] | None = None, run: Callable[[str], bool] = run) -> int:
    targets = [step.target for step in CHECKS]
    parser = argparse.ArgumentParser(description="Run everything that a release must pass, and print the checklist.")
    parser.add_argument("checks", nargs="*", metavar="target", help=f"only these: {', '.join(targets)}")
    chosen = parser.parse_args(arguments).checks or targets
    if unknown := sorted(set(chosen) - set(targets)):
        parser.error(f"unknown check {', '.join(unknown)}; expected some of: {', '.join(targets)}")
    lines, failed = [f"[ ] {step}" for step in BEFORE], False
    for step in CHECKS:
        if step.target not in chosen:
            lines.append(f"[ ] {step} (not run)")
            continue
        started = time.monotonic()
        passed = run(step.target)
        failed = failed or not passed
        result = f"{'passed' if passed else 'FAILED'}, {time.monotonic() - started:.0f} s"
        lines.append(f"[{'x' if passed else '!'}] {step} ({result})")
    lines += [f"[ ] {step}" for step in AFTER]
    print("\n" + "\n".join(lines))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
