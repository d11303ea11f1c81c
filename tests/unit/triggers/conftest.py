"""Run triggers in the polls that serve them."""

from __future__ import annotations

from tests.unit.polling.conftest import clock, nothing_polls_on, product, waiting

__all__ = ["clock", "nothing_polls_on", "product", "waiting"]
