"""What the tests of Procore's Workflows v2 share."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.client.retry import RetryPolicy


@pytest.fixture
def no_pauses(monkeypatch):
    """Let a call be repeated at once; a pause between two looks only yields to the emulator."""
    monkeypatch.setattr(RetryPolicy.__init__, "__defaults__", (5, 0.0, 120.0))
    monkeypatch.setattr("airflow_provider_workflows.operators.base.time.sleep", lambda seconds: None)
