"""A history of half a year of three templates, the same each time, for pictures and for tests that need many rows."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow_provider_workflows.rules.procore_history import iso
from tests.support.histories import write_histories

AS_OF = datetime(2026, 6, 30, 15, 0, tzinfo=timezone.utc)
# Steps of each template: name, pending with, and the median of the waiting time in hours.
TEMPLATES = {
    "Purchase Order Approval": (
        ("Budget Check", "Airflow Integration", 0.4),
        ("Project Manager", "Pat Manager", 20),
        ("Director Approval", "Dana Director", 70),
        ("Release", "Rita Release", 5),
    ),
    "Change Order Approval": (
        ("Cost Review", "Carl Cost", 46),
        ("Project Manager", "Pat Manager", 26),
        ("Owner Approval", "Olga Owner", 160),
    ),
    "Invoice Approval": (("Check", "Ivan Invoice", 9), ("Approve", "Dana Director", 30)),
}
INSTANCES = 260


def busy_history(folder: Path) -> str:
    """Write the history as an export does; return the URL of its folder."""
    chance = random.Random(7)
    rows: dict[str, list[dict[str, Any]]] = {"instances": [], "steps": [], "responses": []}
    for number in range(INSTANCES):
        template = chance.choices(list(TEMPLATES), weights=(5, 3, 4))[0]
        started = AS_OF - timedelta(days=181 - number * 180 / INSTANCES, hours=chance.uniform(0, 9))
        _add_instance(rows, str(700_000 + number), template, started, chance)
    return write_histories(folder, **rows)


def _add_instance(
    rows: dict[str, list[dict[str, Any]]], key: str, template: str, started: datetime, chance: Any
) -> None:
    now, place, index = started, 0, 0
    steps = TEMPLATES[template]
    while place < len(steps) and now is not None:
        name, person, median = steps[place]
        ended = now + timedelta(hours=median * chance.lognormvariate(0, 0.9))
        is_open = ended > AS_OF
        returned = not is_open and place > 0 and chance.random() < 0.12
        step = {
            "instance_id": key,
            "step_key": f"{key}-{index}",
            "event_index": index,
            "event_type": "ResponseStep",
            "step_uuid": f"{template}-{name}",
            "name": name,
            "started_at": iso(now),
            "ended_at": None if is_open else iso(ended),
            "due_at": iso(now + timedelta(days=3)),
            "decided_option": None if is_open else "Return" if returned else "Approve",
        }
        rows["steps"].append(step)
        rows["responses"].append(
            {
                "instance_id": key,
                "step_key": step["step_key"],
                "response_key": person,
                "name": person,
                "user_id": person,
                "response": step["decided_option"],
                "responded_at": step["ended_at"],
            }
        )
        now = None if is_open else ended
        place, index = place - 1 if returned else place + 1, index + 1
    rows["instances"].append(
        {
            "instance_id": key,
            "company_id": "42",
            "project_id": "55",
            "tool_type": template.lower().replace(" approval", "").replace(" ", "_"),
            "item_id": key[-4:],
            "workflow": template,
            "status": "in_progress" if now is None else "complete",
            "started_at": iso(started),
            "ended_at": None if now is None else iso(now),
        }
    )
