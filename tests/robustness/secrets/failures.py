"""A DAG for the search for secrets: its tasks fail in every way in which a connection, a server or a user can fail."""

from __future__ import annotations

import hashlib

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.sensors.procore import ProcoreAsyncOperationSensor
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor

# Each task has the name of its connection.
PROCORE = (
    "wrong_secret",
    "rejecting_sign_in",
    "malformed_token",
    "unauthorized",
    "invalid",
    "failing",
    "moved",
    "ready_token_rejected",
    "ready_token_in_a_list",
    "ready_token_as_company",
    "ready_token_as_environment",
    "secret_in_the_host",
    "secret_in_the_login_url",
    "secret_in_a_proxy",
    "extra_is_not_json",
)
WORKFLOWSOFT = (
    "wrong_password",
    "rejecting_basic",
    "rejecting_bearer",
    "rejecting_cookie",
    "malformed_api_token",
    "ready_api_token_rejected",
)


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"integration_instance_id": Param("", type="string")},
)
def failures():
    for name in PROCORE:
        task(task_id=name)(lambda name: ProcoreHook(name).list_tools())(name)
    for name in WORKFLOWSOFT:
        task(task_id=name)(lambda name: WorkflowsoftHook(name).list_process_diagrams())(name)

    @task
    def linking():
        return list(ProcoreLegacyHook("linking").list_instances())

    @task
    def lost():
        ProcoreHook("lost").respond("1", step_occurrence_id="2", option_id="3")

    @task
    def connection_is_missing():
        ProcoreHook("nowhere").me()

    @task
    def a_hook_at_hand():
        hook = ProcoreHook()
        me, token = hook.me(), hook.client.token()
        password = hook.get_connection(hook.conn_id).password
        raise ValueError(f"{hook} of {me['login']} holds {len(token)} and {len(password)} letters.", hook, hook.client)

    @task.workflowsoft_integration
    def a_callable_of_an_integration_step():
        hook = WorkflowsoftHook()
        token = hook.get_api_token()
        raise ValueError(f"{hook} has a token of {len(token)} letters.")

    @task
    def upload_to_another_host():
        content = b"a plan"
        segment = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        ProcoreHook().upload("plan.txt", "text/plain", [segment], [content])

    linking()
    lost()
    connection_is_missing()
    a_hook_at_hand()
    a_callable_of_an_integration_step(integration_instance_id="{{ params.integration_instance_id }}")
    upload_to_another_host()
    # Retries only for a busy machine: Airflow fails a task whose trigger fires before it has seen the deferral.
    soon = {"deferrable": True, "poke_interval": 2, "timeout": 600, "retries": 4}
    ProcoreAsyncOperationSensor(task_id="deferred", procore_conn_id="later", operation_id="op", **soon)
    ProcoreAsyncOperationSensor(
        task_id="deferred_with_a_stored_connection", procore_conn_id="stored_later", operation_id="stored_op", **soon
    )
    WorkflowsoftIntegrationSensor(
        task_id="deferred_at_a_step", workflowsoft_conn_id="later_ws", diagram="Diagram", step="Step", **soon
    )


failures()
