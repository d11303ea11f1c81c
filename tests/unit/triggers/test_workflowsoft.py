"""What a drain of an integration step delivers if it ends early."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.exceptions import AuthenticationError, ServerError
from airflow_provider_workflows.triggers.workflowsoft import WorkflowsoftIntegrationWaitTrigger

ROW = {"integration_instance_id": "1"}


@pytest.mark.parametrize("fault", [ServerError, AuthenticationError])
def test_error_ends_a_drain_after_what_was_received(fault):
    polls = iter([[ROW], fault("No")])

    def poll():
        found = next(polls)
        if isinstance(found, Exception):
            raise found
        return found

    trigger = WorkflowsoftIntegrationWaitTrigger(
        workflowsoft_conn_id="workflowsoft_default", diagram="Events", step="Check", poll_interval=60.0, deadline=None
    )

    assert trigger.drain(poll, 2) == [ROW]
