from __future__ import annotations

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_workflows.rules.datetimes import parse_time, unix_time, zoned_time


def test_times_are_read_as_utc_and_nonsense_as_no_time():
    assert parse_time("2026-01-01T02:00:00+02:00").isoformat() == "2026-01-01T00:00:00+00:00"
    assert parse_time("2026-01-01T00:00:00").timezone_name == "UTC"
    assert [parse_time(text) for text in (None, "", "soon", "P1D")] == [None] * 4


@given(st.datetimes())
def test_documented_format_is_read_as_pendulum_reads_it(moment):
    text = f"{moment.isoformat(timespec='seconds')}Z"

    read = parse_time(text)

    assert (read, read.timezone_name) == (pendulum.parse(text), "UTC")
    assert unix_time(text) == read.timestamp()


@pytest.mark.parametrize(
    "text", ["2026-02-30T08:00:00Z", "2026-01-31T25:00:00Z", "2026-01-31T08:00:0\u0663Z", "2026-01-31T08:00-00Z"]
)
def test_text_of_the_documented_length_that_is_no_time(text):
    assert parse_time(text) is None
    assert unix_time(text) is None


@pytest.mark.parametrize("zone", ["Z", "+00:00", "+0000", "+00", "-05"])
def test_time_with_any_zone_is_read(zone):
    assert zoned_time(f"2026-11-30T08:00:00{zone}") == parse_time(f"2026-11-30T08:00:00{zone}") is not None


@pytest.mark.parametrize("text", ["20261130T080000", "2026-11-30T08:00", "2026-11-30", "2026-W49-1", "08:00", "P1D"])
def test_time_without_a_zone_is_not_read(text):
    assert zoned_time(text) is None
