from __future__ import annotations

import random

import pytest

from tests.live.kills import Killer, let_people_work
from tests.support.crowd import Crowd

pytestmark = pytest.mark.live
pytest.importorskip("airflow.triggers.shared_stream", reason="before Airflow 3.3 there is no cursor")

CONNECTIONS = {"procore": "procore_crowd", "workflowsoft": "workflowsoft_crowd"}


def test_waits_end_as_decided_and_events_come_despite_kills(shared):
    chance = random.Random(7)
    crowd = Crowd(shared.emulators["crowd"], 18, chance, CONNECTIONS)
    crowd.write_dags(shared.dags)

    outcome = let_people_work(shared.airflow, crowd, 3, Killer(shared.airflow, chance))

    assert outcome.wrong == []
