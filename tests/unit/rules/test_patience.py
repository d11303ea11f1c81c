"""When a wait believes that it was rejected."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    UnexpectedResponse,
)
from airflow_provider_workflows.rules.patience import Rejections, fails_first_poke


def rejected_at(*times):
    rejections = None
    for time in times:
        rejections = Rejections.following(rejections, time)
    return rejections


@pytest.mark.parametrize(
    ("times", "is_final"),
    [
        ((0, 60, 120), False),
        ((0, 700), False),
        ((0, 300, 600), True),
        ((0, 60, 599), False),
        ((1000, 1100, 0, 590), False),  # a clock that was set back
        ((1000, 1100, 0, 600), True),
    ],
)
def test_rejections_need_polls_and_time(times, is_final):
    assert rejected_at(*times).are_final(times[-1], 600) is is_final


def test_rejections_survive_a_store():
    rejections = rejected_at(5.0, 7.0)
    assert Rejections.from_dict(rejections.to_dict()) == rejections
    assert Rejections.from_dict(None) is None


@pytest.mark.parametrize(
    ("error", "fails"),
    [
        (ConfigurationError("No such connection"), True),
        (NotFound("", is_documented=True), True),
        (InvalidRequest("", is_documented=True, fields={"tool_type": ["is unknown"]}), True),
        (InvalidRequest("", is_documented=True), False),
        (NotFound(""), False),
        (PermissionDenied("", is_documented=True), False),
        (AuthenticationError("", is_documented=True), False),
        (UnexpectedResponse(""), False),
    ],
)
def test_only_a_documented_error_fails_the_first_poke(error, fails):
    assert fails_first_poke(error) is fails
