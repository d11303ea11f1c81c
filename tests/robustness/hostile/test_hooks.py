"""Any response of a server leads to a typed error or a result, soon; nothing goes to other hosts or is sent twice."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import pytest

from airflow_provider_workflows.client import http
from airflow_provider_workflows.client.auth import TokenAuth
from airflow_provider_workflows.exceptions import (
    MAX_MESSAGE_CHARACTERS,
    NOTHING_DONE,
    AuthenticationError,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.hooks.procore import ProcoreHook
from tests.robustness.hostile import responses
from tests.robustness.hostile.calls import CALLS, FOLLOWS, POLLS, SENDS_NOTHING, Call, public_members
from tests.robustness.hostile.conftest import READY
from tests.robustness.hostile.replay import Exchange, Server, served_by

MAX_WORK_SECONDS = 5.0  # seconds of work; no sleep is a real one here, and a busy machine must not fail the test
SIGN_IN = {("POST", "/oauth/token"), ("GET", "/api/v2/app/apitoken")}
CALLING = [call for call in CALLS if call.name != "get_api_token"]  # a static token is not fetched
# One call of each way in which a response is read: an object in an object, pages of both APIs, fields, names that are
# looked up; and one write action of each API. The other calls read in the same ways, and run with the slow tests.
REPRESENTATIVE = (
    "ProcoreHook.get_instance",
    "ProcoreHook.list_instances",
    "ProcoreHook.respond",
    "ProcoreLegacyHook.list_instances",
    "ProcoreLegacyHook.perform_activity",
    "WorkflowsoftHook.get_fields",
    "WorkflowsoftHook.resolve_step",
    "WorkflowsoftHook.poll_new_integrations",
)
LARGE = ("ProcoreHook.get_instance",)
# They do not parse what they read as all others do.
OTHER_WAYS = ("ProcoreHook.each_bulk_history", "ProcoreHook.get_bulk_replace_errors")
MAY_BE_NONE = {"user_login"}  # only the id of a user is sure
Good = dict[str, list[Exchange]]
PAGED = (
    "ProcoreHook.find_user_id",
    "ProcoreHook.list_templates",
    "ProcoreHook.list_presets",
    "ProcoreHook.list_possible_assignees",
    "ProcoreHook.list_workflow_managers",
    "ProcoreHook.list_instances",
    "ProcoreHook.list_item_instances",
    "ProcoreHook.list_bulk_replace_requests",
    "ProcoreLegacyHook.find_user_id",
    "ProcoreLegacyHook.list_instances",
    "ProcoreLegacyHook.find_instance_id",
    "ProcoreLegacyHook.list_permanent_logs",
    "ProcoreLegacyHook.list_activity_histories",
)


def each_of(calls: Iterable[Call], quick: Collection[str] = REPRESENTATIVE) -> Any:
    """Parametrize a test with calls; all but a few of them are slow."""
    params = [pytest.param(call, id=str(call), marks=() if str(call) in quick else pytest.mark.slow) for call in calls]
    return pytest.mark.parametrize("call", params)


EACH = each_of(CALLING)


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


def good_result(call: Call, good: Good) -> Any:
    result, error = outcome_of(call, Server(good[str(call)], ("", ""), []))
    assert error is None
    return result


def problem_with(call: Call, server: Server, like: Any, *, is_unreadable: bool = False) -> str | None:
    """
    Describe what is wrong with how a call handles the response of a server, or return None.

    :param like: What it returns when all is well.
    :param is_unreadable: No result can be made of what the server sends.
    """
    start_time = time.thread_time()
    try:
        result, error = outcome_of(call, server)
    except Exception as bare:
        return "".join(traceback.format_exception(bare)[-3:])
    if time.thread_time() - start_time > MAX_WORK_SECONDS:
        return f"took {time.thread_time() - start_time:.1f} s"
    hosts = server.trusted if str(call) == FOLLOWS else server.hosts
    if len(hosts) > 1:
        return f"requested {hosts}"
    if unstorable := [value for value in primitives([result, str(error)]) if not is_storable(value)]:
        return f"Airflow cannot store {unstorable[0]!r:.100}"
    if error is not None:
        return problem_with_error(call, server, error)
    if is_unreadable and not (call.name == "test_connection" and result[0] is False):
        return f"returned {result!r:.100}"
    if type(result) is type(like) or (result is None and call.name in MAY_BE_NONE):
        return None
    return f"returned {result!r:.100}"


def primitives(value: Any) -> Iterator[Any]:
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        for inner in value:
            yield from primitives(inner)
    else:
        yield value


def is_storable(value: Any) -> bool:
    """Return whether PostgreSQL and the messages between Airflow's processes can hold a text or number."""
    if isinstance(value, str):
        return "\0" not in value and value == value.encode("utf-8", "replace").decode()
    return not isinstance(value, int) or value.bit_length() < 64


def problem_with_error(call: Call, server: Server, error: WorkflowsError) -> str | None:
    if len(str(error)) > MAX_MESSAGE_CHARACTERS + 10:
        return f"{type(error).__name__} of {len(str(error))} characters: {error!s:.100}"
    if not call.writes or server.spoiled in SIGN_IN:
        return None
    status = server.responses[0].status
    if status not in (401, 429) and server.requested.count(server.spoiled) > 1:
        return f"was sent {server.requested.count(server.spoiled)} times"
    shows_sign_in = str(call) == POLLS and isinstance(error, AuthenticationError)
    if status < 300 and isinstance(error, NOTHING_DONE) and not shows_sign_in:
        return f"{type(error).__name__} would say that nothing was done"
    return None


def spoilt(call: Call, good: Good) -> list[Exchange]:
    """Return the good responses of a call that are to be spoiled, one of each route."""
    routes = {exchange.route: exchange for exchange in good[str(call)] if exchange.route not in SIGN_IN}
    return list(routes.values())


def problems_of(call: Call, good: Good, kinds: Any) -> dict[str, str]:
    """Spoil each response of a call in each way; return the problems by what was spoiled and how."""
    like = good_result(call, good)
    found = {}
    for exchange, (name, kind) in itertools.product(spoilt(call, good), list(kinds)):
        server = Server(good[str(call)], exchange.route, kind(exchange))
        # A storage may send any body: what counts is the status.
        is_page = "an HTML page" in name and "_storage" not in exchange.route[1]
        problem = problem_with(call, server, like, is_unreadable=is_page)
        if problem is not None:
            found[f"{exchange.route}: {name}"] = problem
    return found


def test_every_public_hook_member_is_tried_or_sends_nothing():
    for hook in {call.hook for call in CALLS}:
        called = {call.name for call in CALLS if call.hook is hook}
        assert public_members(hook) - called <= SENDS_NOTHING
        assert not called & SENDS_NOTHING


@EACH
def test_bad_response_is_a_typed_error_or_result(call, good):
    assert problems_of(call, good, responses.kinds()) == {}


@each_of(call for call in CALLING if str(call) in {*REPRESENTATIVE, *OTHER_WAYS, *PAGED})
def test_bad_http_is_a_typed_error_or_result(call, good):
    assert problems_of(call, good, responses.kinds_of_http()) == {}


@each_of([call for call in CALLING if str(call) in {*REPRESENTATIVE, *OTHER_WAYS}], quick=LARGE)
def test_large_response_makes_no_large_error(call, good):
    assert problems_of(call, good, responses.large_kinds()) == {}


def without_news(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_news(inner) for key, inner in value.items() if key != "x_new"}
    return [without_news(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.sample(8)
@pytest.mark.parametrize("call", CALLING, ids=str)
def test_unknown_fields_change_no_result(call, good):
    like = good_result(call, good)
    for exchange in spoilt(call, good):
        known = [good_exchange for good_exchange in good[str(call)] if good_exchange.route == exchange.route]
        spoiled = [more for good_exchange in known for more in with_more_fields(good_exchange)]

        result, error = outcome_of(call, Server(good[str(call)], exchange.route, spoiled))

        assert (without_news(result), error) == (like, None)


def with_more_fields(exchange: Exchange) -> list[Exchange]:
    return responses.changed(responses.more_of)(exchange) if exchange.body.strip()[:1] in (b"{", b"[") else [exchange]


def texts_of(error: WorkflowsError) -> str:
    """Return all that a log could show of an error."""
    return "".join(traceback.format_exception(error)) + json.dumps(vars(error), default=str)


@pytest.mark.sample(8)
@pytest.mark.parametrize("call", CALLING, ids=str)
def test_secret_that_the_server_repeats_is_in_no_error(call, good):
    for exchange, (name, kind) in itertools.product(spoilt(call, good), list(responses.echoes(READY))):
        if "_storage" in exchange.route[1]:
            continue  # which has never seen the token
        result, error = outcome_of(call, Server(good[str(call)], exchange.route, kind(exchange)))

        reported = (
            "".join(traceback.format_exception(error))
            if error
            else str(result)
            if call.name == "test_connection"
            else ""
        )
        assert READY not in reported, f"{exchange.route}: {name}"
        assert error is None or READY not in json.dumps([vars(error)], default=str), f"{exchange.route}: {name}"


# --- lists without an end ---


def pages_of(call: Call) -> list[Any]:
    """Return the ways in which a list of this API never ends: each makes the response to the n-th request."""
    row = {"id": 1, "login": "x", "instance": {}}

    def body(rows: list[Any], **more: Any) -> bytes:
        is_v1 = call.hook is not ProcoreHook or call.name == "find_user_id"
        return json.dumps(rows if is_v1 else {"data": rows, **more}).encode()

    def link(number: int) -> dict[str, str]:
        return {"Link": f'<?cursor=c{number}>; rel="next"'}

    return [
        lambda number, good: good.but(headers=link(number), body=body([{**row, "id": number}])),
        lambda number, good: good.but(headers=link(number), body=body([])),
        lambda number, good: good.but(
            headers={"Link": f'<?page={number + 1}>; rel="next"'}, body=body([{**row, "id": number}])
        ),
        lambda number, good: good.but(
            headers={"Per-Page": "1"}, body=body([{**row, "id": number}], next_cursor=f"c{number}")
        ),
        lambda number, good: good.but(headers={"Total": "9" * 18}, body=body([{**row, "id": number}])),
        lambda number, good: good.but(headers={"Per-Page": "1"}, body=body([{**row, "id": number}])),
    ]


@pytest.mark.sample(3)
@pytest.mark.parametrize("call", [call for call in CALLING if str(call) in PAGED], ids=str)
def test_endless_list_ends_after_the_maximum_of_pages(call, good, monkeypatch):
    monkeypatch.setattr(http, "MAX_PAGES", 20)
    exchange = next(e for e in spoilt(call, good) if not e.route[1].endswith("/me"))
    for make in pages_of(call):
        endless = [make(number, exchange) for number in range(1, 40)]
        server = Server(good[str(call)], exchange.route, endless)

        _, error = outcome_of(call, server)

        assert isinstance(error, UnexpectedResponse)
        assert "does not end after 20 pages" in str(error)
        assert server.requested.count(exchange.route) == 20


def test_maximum_of_pages_is_enough_for_a_large_company(good):
    """A million instances at a hundred a page."""
    assert http.MAX_PAGES * 100 >= 1_000_000
