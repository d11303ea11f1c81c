"""
Kills every action at every moment, and prints the outcomes.

``python -m tests.robustness.faults``; one point again: ``python -m tests.robustness.faults --flow respond --point 17``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.faults", description=__doc__)
    parser.add_argument("--flow", default="", help="only flows with these words in their name")
    parser.add_argument("--mode", help="only flows with this reading of new integrations")
    parser.add_argument("--point", type=int, help="only this point, with its story")
    parser.add_argument("--quick", action="store_true", help="the part that the tests run")
    parser.add_argument("--seed", type=int, default=1, help="chooses what is left to chance; default 1")
    options = parser.parse_args()
    started_at = time.monotonic()
    flows = find(options.flow, options.mode)
    if not flows:
        parser.error(f"no such flow; there are: {'; '.join(dict.fromkeys(flow.name for flow in FLOWS))}")
    with Harness() as harness:
        rows = [run_flow(harness, flow, options.seed, quick=options.quick, only=options.point) for flow in flows]
    outcomes = [outcome for row in rows for outcome in row.outcomes.values()]
    if not outcomes:
        parser.error(f"no such point: {options.point}")
    print(table(rows))
    print(f"{len(outcomes)} points in {time.monotonic() - started_at:.0f} s, seed {options.seed}.")
    violations = [violation for row in rows for violation in row.violations()]
    story = [] if options.point is None else [line for outcome in outcomes for line in outcome.story]
    for line in violations or story:
        print(line)
    return 1 if violations else 0


if __name__ == "__main__":
    # Airflow reads its settings when it is first imported.
    with tempfile.TemporaryDirectory(prefix="airflow-home-") as home:
        os.environ["AIRFLOW_HOME"] = home
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
        os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{home}/airflow.db"
        from .flows import FLOWS, find
        from .harness import Harness, run_flow
        from .reports import table

        sys.exit(main())
