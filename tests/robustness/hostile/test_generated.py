"""Good answers with something wrong anywhere in them, made by the thousand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.robustness.hostile.answers import parsed
from tests.robustness.hostile.calls import Call
from tests.robustness.hostile.mutations import as_body, mutated
from tests.robustness.hostile.replay import Exchange, Server
from tests.robustness.hostile.test_hooks import ASKING, good_result, problem_with, spoilt

# They do not only hand an answer on, but look for something in it.
READ_INSIDE = {"find_tool", "check_tool", "level_for", "find_user_id", "find_instance_id", "resolve_step", "upload"}


@pytest.mark.parametrize("call", ASKING, ids=str)
def test_an_answer_that_is_wrong_anywhere_is_a_typed_error_or_a_result(call: Call, good: dict[str, list[Exchange]]):
    like = good_result(call, good)
    answers = [exchange for exchange in spoilt(call, good) if exchange.body]

    @given(st.data())
    def check(data: Any) -> None:
        exchange = data.draw(st.sampled_from(answers))
        body = as_body(data.draw(mutated(parsed(exchange))))
        server = Server(good[str(call)], exchange.route, [exchange.but(body=body)])
        assert problem_with(call, server, like) is None

    if answers:
        check()
