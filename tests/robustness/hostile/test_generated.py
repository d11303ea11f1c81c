"""Good responses with something wrong anywhere in them, made by the thousand."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.robustness.hostile.calls import Call
from tests.robustness.hostile.mutations import as_body, mutated
from tests.robustness.hostile.replay import Exchange, Server
from tests.robustness.hostile.responses import parsed
from tests.robustness.hostile.test_hooks import EACH, good_result, problem_with, spoilt


@EACH
def test_response_wrong_anywhere_is_a_typed_error_or_result(call: Call, good: dict[str, list[Exchange]]):
    like = good_result(call, good)
    responses = [exchange for exchange in spoilt(call, good) if exchange.body]

    @given(st.data())
    def check(data: Any) -> None:
        exchange = data.draw(st.sampled_from(responses))
        body = as_body(data.draw(mutated(parsed(exchange))))
        server = Server(good[str(call)], exchange.route, [exchange.but(body=body)])
        assert problem_with(call, server, like) is None

    if responses:
        check()
