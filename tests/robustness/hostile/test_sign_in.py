"""Bad responses to signing in: a typed error, nothing done, and no secret shown."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given

from airflow_provider_workflows.exceptions import NOTHING_DONE
from tests.robustness.hostile import responses
from tests.robustness.hostile.calls import CALLS, Call
from tests.robustness.hostile.conftest import connections_to
from tests.robustness.hostile.mutations import as_body, mutated
from tests.robustness.hostile.replay import Exchange, Server
from tests.robustness.hostile.test_hooks import SIGN_IN, Good, good_result, outcome_of, problem_with, texts_of

# A call that reads and one that writes, of each product; the two Procore APIs sign in alike.
SIGNING_IN = [
    call
    for call in CALLS
    if str(call)
    in (
        "ProcoreHook.me",
        "ProcoreHook.start_instance",
        "WorkflowsoftHook.get_api_token",
        "WorkflowsoftHook.create_task",
    )
]
SECRETS = {"ProcoreHook": "emulator-secret", "WorkflowsoftHook": "emulator-password"}
EACH = pytest.mark.parametrize("call", SIGNING_IN, ids=str)


@pytest.fixture(autouse=True)
def with_logins(running_emulator, connect, connected):
    connect(connections_to(running_emulator.url, signing_in=True))


def granted(call: Call, good: Good) -> Exchange:
    """Return the good response to signing in."""
    return next(exchange for exchange in good[str(call)] if exchange.route in SIGN_IN)


@pytest.mark.sample(3)
@EACH
def test_bad_sign_in_response_is_a_typed_error_or_token(call, good):
    like, exchange = good_result(call, good), granted(call, good)
    problems = {}
    for name, kind in (*responses.kinds(), *responses.kinds_of_http()):
        server = Server(good[str(call)], exchange.route, kind(exchange))
        problem = problem_with(call, server, like, is_unreadable="an HTML page" in name)
        if problem is not None:
            problems[name] = problem
    assert problems == {}


@pytest.mark.sample(3)
@EACH
def test_sign_in_wrong_anywhere_is_a_typed_error_or_token(call, good):
    like, exchange = good_result(call, good), granted(call, good)

    @given(mutated(responses.parsed(exchange)))
    def check(bad: Any) -> None:
        server = Server(good[str(call)], exchange.route, [exchange.but(body=as_body(bad))])
        assert problem_with(call, server, like) is None

    check()


@EACH
def test_malformed_expiry_of_a_token_does_not_matter(call, good):
    exchange = granted(call, good)
    for end in (10**400, 1e308, -1, True, "soon", [1], {"s": 1}, None):
        bad = exchange.but(body=as_body({"access_token": "t-1", "expires_in": end}))

        assert outcome_of(call, Server(good[str(call)], exchange.route, [bad]))[1] is None


# The middle of a token with two dots is read for its end: a list, 1e999, half a surrogate pair, what is no base64.
MIDDLES = (b"", b"W10", b"eyJleHAiOiAxZTk5OX0", b"IlxcdWQ4MDAi", b"*")
TOKENS = (*(b"a.%b.c" % middle for middle in MIDDLES), b"\\ud800", b"\\n", b"x" * 10**6)


@EACH
def test_token_of_any_format_breaks_nothing(call, good):
    like, exchange = good_result(call, good), granted(call, good)
    for token in TOKENS:
        server = Server(good[str(call)], exchange.route, [exchange.but(body=b'{"access_token": "%b"}' % token)])

        assert problem_with(call, server, like) is None


@EACH
def test_secret_repeated_at_sign_in_or_later_is_in_no_error(call, good):
    secret = SECRETS[call.hook.__name__]
    for exchange, (name, kind) in itertools.product(good[str(call)], list(responses.echoes(secret))):
        _, error = outcome_of(call, Server(good[str(call)], exchange.route, kind(exchange)))

        assert error is None or secret not in texts_of(error), f"{exchange.route}: {name}"


@pytest.mark.parametrize("call", [call for call in SIGNING_IN if call.writes], ids=str)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503])
def test_no_write_action_is_sent_without_a_token(call, good, status):
    exchange = granted(call, good)
    server = Server(good[str(call)], exchange.route, [exchange.but(status=status, body=b"")])

    _, error = outcome_of(call, server)

    assert isinstance(error, NOTHING_DONE)
    assert {route for route in server.requested if route != exchange.route} == set()
