"""How often the forecasts of the cycle-time report are right on histories of the emulator: ``make backtest``."""

from __future__ import annotations

import heapq
import json
import os
import random
import tempfile
from pathlib import Path

from airflow_provider_workflows.emulator import Emulator

TOOL = "purchase_order_contract"
PEOPLE = ("integration@example.com", "dana@example.com")  # the responders of the two steps
INSTANCES = 300
HOURS_BETWEEN_STARTS = 6.0
MEDIAN_HOURS = (6.0, 30.0)  # of each step; the times are spread widely, as those of people
SPREAD = 1.1


def play(emulator: Emulator, instances: int) -> None:
    """Start instances, and let people respond after random times on the emulator's clock."""
    chance = random.Random(19)
    # What happens next: hours since the start, number of the instance, step.
    todo = [(number * HOURS_BETWEEN_STARTS, number, -1) for number in range(instances)]
    ids: dict[int, str] = {}
    now = 0.0
    while todo:
        hour, number, step = heapq.heappop(todo)
        emulator.control("POST", "clock", advance=round((hour - now) * 3600))
        now = hour
        if step < 0:
            item_id = str(100_000 + number)
            ids[number] = emulator.control("POST", "procore/instances", tool_type=TOOL, item_id=item_id)["id"]
        else:
            path = f"procore/instances/{ids[number]}/respond"
            emulator.control("POST", path, login=PEOPLE[step], option="Approve", comment="")
        if step + 1 < len(PEOPLE):
            spent = MEDIAN_HOURS[step + 1] * chance.lognormvariate(0, SPREAD)
            heapq.heappush(todo, (hour + spent, number, step + 1))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="forecasts-") as name, Emulator() as emulator:
        os.environ.setdefault("AIRFLOW_HOME", name)
        os.environ["AIRFLOW_CONN_PROCORE_DEFAULT"] = json.dumps(emulator.connection("procore"))
        # Airflow reads its settings when it is imported.
        from airflow_provider_workflows.operators.procore import ProcoreHistoryToObjectStorageOperator
        from airflow_provider_workflows.reports.forecast import backtest

        play(emulator, INSTANCES)
        folder = Path(name, "history").as_uri()
        ProcoreHistoryToObjectStorageOperator(
            task_id="export", tool_type=TOOL, path=folder, file_format="jsonl"
        ).execute({})
        result = backtest(folder)
    print(
        f"{result.forecasts} forecasts for {result.steps} steps of {INSTANCES} instances: decided by the 50 % date: "
        f"{result.held_50 or 0:.0%}, by the 80 % date: {result.held_80 or 0:.0%}"
    )


if __name__ == "__main__":
    main()
