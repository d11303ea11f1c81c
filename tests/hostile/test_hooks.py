"""Whatever a server answers: a typed error or a result, soon, nothing to anybody else, and nothing twice."""

from __future__ import annotations

import time
import traceback
from typing import Any

import pytest

from airflow_provider_workflows.client.auth import TokenAuth
from airflow_provider_workflows.exceptions import LONGEST_WORDS, NOTHING_DONE, WorkflowsError
from airflow_provider_workflows.hooks.procore import ProcoreHook
from tests.hostile import answers
from tests.hostile.calls import ASKS_NOBODY, CALLS, Call, public_members
from tests.hostile.replay import Exchange, Server, served_by

SOON = 5.0  # seconds
SIGN_IN = {("POST", "/oauth/token"), ("GET", "/api/v2/app/apitoken")}


def test_every_public_member_of_a_hook_is_asked_or_asks_nobody():
    for hook in {call.hook for call in CALLS}:
        asked = {call.name for call in CALLS if call.hook is hook}
        assert public_members(hook) - asked <= ASKS_NOBODY
        assert not asked & ASKS_NOBODY


def outcome_of(call: Call, server: Server) -> tuple[Any, WorkflowsError | None]:
    """Make a call against a server; what is not an error of this package is raised."""
    TokenAuth._shared.clear()
    ProcoreHook._tools.clear()
    hook = call.hook()
    with served_by(server):
        try:
            return call.made(hook), None
        except WorkflowsError as error:
            return None, error
        finally:
            hook.close()


def problem_with(call: Call, server: Server, like: Any) -> str | None:
    """Say in words what is wrong with how a call takes what a server answers, or None."""
    began = time.monotonic()
    try:
        result, error = outcome_of(call, server)
    except Exception as bare:
        return "".join(traceback.format_exception(bare)[-3:])
    if time.monotonic() - began > SOON:
        return f"took {time.monotonic() - began:.1f} s"
    if len(server.hosts) > 1:
        return f"asked {server.hosts}"
    if error is not None:
        return problem_with_error(call, server, error)
    return None if type(result) is type(like) else f"returned {result!r:.100}"


def problem_with_error(call: Call, server: Server, error: WorkflowsError) -> str | None:
    if len(str(error)) > LONGEST_WORDS + 10:
        return f"{type(error).__name__} of {len(str(error))} characters: {error!s:.100}"
    if not call.acts or server.spoiled in SIGN_IN:
        return None
    status = server.answers[0].status
    refused = status in (401, 429)
    if not refused and server.asked.count(server.spoiled) > 1:
        return f"was sent {server.asked.count(server.spoiled)} times"
    if status < 300 and isinstance(error, NOTHING_DONE):
        return f"{type(error).__name__} would say that nothing was done"
    return None


def spoilt(call: Call, good: dict[str, list[Exchange]]) -> list[Exchange]:
    """Return the good answers of a call that are to be spoiled, one of each route."""
    routes = {exchange.route: exchange for exchange in good[str(call)] if exchange.route not in SIGN_IN}
    return list(routes.values())


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_a_bad_answer_is_a_typed_error_or_a_result(call, good):
    like, _ = outcome_of(call, Server(good[str(call)], ("", ""), []))
    problems = {}
    for exchange in spoilt(call, good):
        for name, kind in answers.kinds():
            server = Server(good[str(call)], exchange.route, kind(exchange))
            problem = problem_with(call, server, like)
            if problem is not None:
                problems[f"{exchange.route}: {name}"] = problem
    assert problems == {}
