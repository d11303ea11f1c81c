"""A process of Airflow that ends, ends the test that waits for it, with its output."""

from __future__ import annotations

import pytest

from tests.support.live_airflow import LiveAirflow, ProcessEnded

pytestmark = pytest.mark.live


def test_a_dead_scheduler_ends_the_wait_with_its_output(tmp_path):
    starting = LiveAirflow(tmp_path, {}, components={"scheduler": ["scheduler", "--no-such-option"]})

    with pytest.raises(ProcessEnded, match="airflow scheduler ended with 2:(.|\n)*--no-such-option"), starting:
        pass
