from __future__ import annotations

import pytest

from tests.live.kills import run

pytestmark = pytest.mark.live
pytest.importorskip("airflow.triggers.shared_stream", reason="before Airflow 3.3 there is no cursor")


def test_waits_end_as_decided_and_events_come_whenever_airflow_is_killed():
    outcome = run(waits=30, kills=3, seed=7)

    assert outcome.wrong == []
