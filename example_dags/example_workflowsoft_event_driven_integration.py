"""
Handle an integration step of a Workflowsoft process as soon as instances arrive, without a schedule.

An asset watches the step. When processes reach it, Airflow starts a run with their integration instances: one function
decides the fields of each, in a task of its own, and the step is completed. The DAG reports polls whose response was
lost, because an instance may have been lost with it.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import dag, task

from airflow_provider_workflows.assets.events import events_of, payloads_of
from airflow_provider_workflows.assets.workflowsoft import workflowsoft_asset

# [START howto_asset_workflowsoft_integration]
events_to_check = workflowsoft_asset("workflowsoft_events_to_check", diagram="Event planning", step="Check event")
# [END howto_asset_workflowsoft_integration]


@dag(
    schedule=[events_to_check],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["example", "workflowsoft"],
    doc_md=__doc__,
)
def example_workflowsoft_event_driven_integration():
    @task
    def read_events(triggering_asset_events=None) -> list[dict]:
        """Return the integration instances that started this run."""
        return events_of(triggering_asset_events)

    @task
    def read_losses(triggering_asset_events=None) -> list[dict]:
        """Return the periods in which a response, and perhaps an instance, was lost."""
        return [lost for payload in payloads_of(triggering_asset_events) for lost in payload["possibly_lost"]]

    @task.workflowsoft_integration(
        expected_fields={"Event name": "String", "Venue": "String", "Event exists": "Boolean?"},
        max_active_tis_per_dag=1,  # of all runs: an instance that is delivered twice is found completed
        retries=2,
    )
    def plan_event(fields: dict) -> dict:
        return {"Event exists": True, "Venue": "Main hall"}

    @task
    def report_losses(losses: list[dict]) -> int:
        """Log where to look; a real DAG would notify a person."""
        for stretch in losses:
            print(f"Compare the processes that reached the step from {stretch['since']} to {stretch['until']}.")
        return len(losses)

    @task(trigger_rule="none_failed")
    def report(planned: list[dict]) -> list[str]:
        return [result["integration_instance_id"] for result in planned or []]

    report(plan_event.expand(integration_instance_id=read_events()))
    report_losses(read_losses())


example_workflowsoft_event_driven_integration()
