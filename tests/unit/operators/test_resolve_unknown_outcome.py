"""What may come out after a change whose outcome is unknown: what was found, or that it is unknown."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    ServerError,
    StepMoved,
)
from airflow_provider_workflows.operators.unknown_outcome import resolve_unknown_outcome

LOST = OutcomeUnknown("The response was lost")


def raises(error):
    def read():
        raise error

    return read


def resolve(read, *, lost=LOST, **more):
    return resolve_unknown_outcome(lost, read, 0, missing="nothing shows it", **more)


def test_what_is_found_comes_out():
    assert resolve(lambda: "found") == "found"


@pytest.mark.parametrize("again", [None, lambda: None, raises(InvalidRequest("not current"))])
@pytest.mark.parametrize(
    "read", [lambda: None, *map(raises, (NotFound("x"), ServerError("x"), StepMoved("x"), ConfigurationError("x")))]
)
def test_inconclusive_reads_leave_the_outcome_unknown(read, again):
    with pytest.raises(OutcomeUnknown, match="The response was lost; and nothing shows it") as raised:
        resolve(read, again=again)
    assert str(raised.value).count("It is not sent again") == 1


def test_accepted_repetition_resolves_the_outcome():
    assert resolve(raises(NotFound("x")), again=lambda: "taken") == "taken"


def test_failing_repetition_is_followed_by_another_poll():
    seen = iter([None, "found"])

    assert resolve(lambda: next(seen), again=raises(InvalidRequest("not current"))) == "found"


def test_server_error_is_raised_if_the_record_can_be_read():
    failed = ServerError("The server failed")

    with pytest.raises(ServerError):
        resolve(lambda: None, lost=failed, again=lambda: "never")
    with pytest.raises(OutcomeUnknown):
        resolve(raises(NotFound("x")), lost=failed, again=lambda: "never")
