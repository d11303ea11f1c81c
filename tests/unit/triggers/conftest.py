"""Run triggers in the polls that serve them."""

from __future__ import annotations

from tests.unit.polling.conftest import asked, clock, nothing_polls_on, product, waiting

__all__ = ["asked", "clock", "nothing_polls_on", "product", "waiting"]
