"""The response check of the stock event trigger; in a module of its own, for that trigger reloads it at each poll."""

from __future__ import annotations

from typing import Any


async def has_moved(response: Any) -> bool:
    """Return whether an instance is over, or no longer at the step that it starts with."""
    shown = response.json()["data"]
    step = shown.get("current_step_occurrence") or {}
    return shown["ended_at"] is not None or step.get("name") != "Budget Check"
