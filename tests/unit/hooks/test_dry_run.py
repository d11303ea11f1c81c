"""A connection that is a dry run: no method of a hook sends anything that changes something."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_workflows.exceptions import ApiError, ConfigurationError, DryRun
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
from airflow_provider_workflows.hooks.procore_uploads import send_to_storage
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from tests.robustness.hostile.calls import CALLS

HOOKS = (ProcoreHook, ProcoreLegacyHook, WorkflowsoftHook)
EVERY_HOOK = pytest.mark.parametrize("hook_class", HOOKS, ids=lambda hook_class: hook_class.__name__)
# Changes that may be sent twice.
REPEATABLE = {"set_default_preset", "stop_bulk_replace_request", "upload", "await_upload"}
CHANGES = {str(call) for call in CALLS if call.writes or call.name in REPEATABLE}
POLL = "WorkflowsoftHook.poll_new_integrations"


@pytest.fixture
def set_extra(airflow_connections, set_connection):
    """Return a function that sets an extra of both default connections."""

    def set_it(**extra):
        for conn_type in ("procore", "workflowsoft"):
            connection = airflow_connections.connection(conn_type)
            connection["extra"] |= extra
            set_connection(f"{conn_type}_default", connection)

    return set_it


def sent_changes(emulator):
    """Return the requests that were more than a read or a request for a token."""
    reading = ("/oauth/token", "/bulk_history")
    return [r for r in emulator.requests() if r["method"] != "GET" and not r["path"].endswith(reading)]


def test_no_method_of_a_hook_sends_a_change(airflow_connections, set_extra):
    set_extra(dry_run=True)
    rejected, failed = set(), set()

    for call in CALLS:
        try:
            call.made(call.hook())
        except DryRun:
            rejected.add(str(call))
        except (ApiError, ConfigurationError):  # such as a read of something that an earlier call would have created
            failed.add(str(call))

    assert CHANGES & failed == {POLL}
    assert rejected == CHANGES - {POLL}
    assert sent_changes(airflow_connections) == []
    assert airflow_connections.effects() == []
    assert not [r for r in airflow_connections.requests() if r["path"].endswith("/new-integrations")]


@pytest.mark.parametrize("value", [True, "true", "True"])
@EVERY_HOOK
def test_extra_makes_a_dry_run_of_a_task_and_of_a_trigger(set_extra, hook_class, value):
    set_extra(dry_run=value)
    in_task, in_trigger = hook_class(), hook_class()
    asyncio.run(in_trigger.prepare())

    assert in_task.dry_run
    assert in_trigger.dry_run


@pytest.mark.parametrize("value", [None, False, "", "false", "FALSE"])
@EVERY_HOOK
def test_extra_can_state_that_it_is_not_a_dry_run(set_extra, hook_class, value):
    set_extra(dry_run=value)
    assert not hook_class().dry_run


@pytest.mark.parametrize("value", ["yes", 1, 0, "1", [], {"a": 1}])
@EVERY_HOOK
def test_another_value_of_the_extra_is_an_error(airflow_connections, set_extra, hook_class, value):
    set_extra(dry_run=value)

    with pytest.raises(ConfigurationError, match="dry_run"):
        hook_class().check()

    assert airflow_connections.requests() == []


@pytest.mark.parametrize("is_built", [True, False], ids=["with a client", "without a client"])
@EVERY_HOOK
def test_a_task_can_make_a_dry_run_of_any_connection(airflow_connections, hook_class, is_built):
    hook = hook_class()
    if is_built:
        hook.get_conn()

    hook.start_dry_run()

    assert hook.dry_run
    hook.close()
    assert hook.dry_run
    asyncio.run(hook.prepare())
    assert hook.dry_run


def test_test_of_the_connection_says_that_it_is_a_dry_run(set_extra):
    set_extra(dry_run=True)
    for hook_class in HOOKS:
        succeeded, message = hook_class().test_connection()
        assert succeeded
        assert "dry_run" in message


def test_poll_that_consumes_nothing_is_sent(airflow_connections, reading_leaves_instances, set_connection):
    connection = airflow_connections.connection("workflowsoft")
    connection["extra"] |= {"new_integrations": "listed_until_completed", "dry_run": True}
    set_connection("workflowsoft_default", connection)

    WorkflowsoftHook().poll_new_integrations("101")

    assert airflow_connections.requests()[-1]["path"].endswith("/new-integrations")


def test_poll_that_may_consume_is_rejected_before_it_is_sent(airflow_connections, set_extra):
    set_extra(dry_run=True)
    hook = WorkflowsoftHook()

    with pytest.raises(ConfigurationError, match=r"workflowsoft_default.*dry_run"):
        hook.check_may_consume()
    with pytest.raises(ConfigurationError, match="dry_run"):
        hook.poll_new_integrations("101")

    assert airflow_connections.requests() == []


def test_upload_to_a_signed_address_is_not_sent_and_not_shown(airflow_connections, set_extra):
    set_extra(dry_run=True)
    url = f"{airflow_connections.url}/bucket/secret-path?X-Amz-Signature=abcdef"

    with pytest.raises(DryRun) as rejected:
        send_to_storage(ProcoreHook().client, "PUT", url, data=b"12345")

    assert "secret-path" not in str(rejected.value)
    assert "abcdef" not in str(rejected.value)
    assert airflow_connections.requests() == []


def test_kill_of_a_task_terminates_nothing(airflow_connections, set_extra):
    from airflow_provider_workflows.triggers.cancellation import _Termination

    set_extra(dry_run=True)

    async def terminate():
        await _Termination(ProcoreHook(), "700001", "1001")._terminate(asyncio.get_running_loop().time())

    asyncio.run(terminate())

    assert sent_changes(airflow_connections) == []
