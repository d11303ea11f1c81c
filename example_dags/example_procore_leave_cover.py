"""
Replace people on leave by deputies in Procore (Workflows v2), and end a replacement when a leave is cancelled.

The DAG compares the leaves in HR with the replacements in Procore. It requests each missing replacement in a task of
its own; Procore starts it on the first day and ends it after the last one. A cancelled leave stops its replacement. A
replacement is not requested twice, so the DAG can run as often as you like.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.operators.procore import ProcoreBulkReplaceAssigneesOperator

STOPPABLE = ("processing", "upcoming", "active")  # states of a replacement


def who_and_when(request: dict) -> list[str | None]:
    """Return who is replaced from when to when, each None where Procore does not show it."""
    person = request.get("old_assignee_id") or (request.get("old_assignee") or {}).get("id")
    days = [request.get(name) for name in ("start_date", "end_date")]
    return [person and str(person), *(day and str(day)[:10] for day in days)]


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # two concurrent runs would request the same replacement twice
    params={
        "leaves": Param(
            [
                {
                    "person": "dana@example.com",
                    "deputy": "lee@example.com",
                    "first_day": "2029-07-02",
                    "last_day": "2029-07-27",
                    "cancelled": False,
                }
            ],
            type="array",
            description="The leaves in HR; a real DAG would query the HR system",
        )
    },
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_leave_cover():
    # [START howto_compare_leaves]
    @task(retries=2)
    def compare_with_procore(params: dict) -> list[dict]:
        """Return each leave that is not over, with its replacements of the same days in Procore."""
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        hook = ProcoreHook()
        today = pendulum.today("UTC").to_date_string()
        found = []
        for leave in params["leaves"]:
            if leave["last_day"] < today:
                continue
            person = hook.find_user_id(leave["person"], parameter="person")
            requests = hook.list_bulk_replace_requests(
                old_assignee_ids=[person],
                replacement_type="temporary",
                start_date=f"{leave['first_day']}...{leave['first_day']}",
                end_date=f"{leave['last_day']}...{leave['last_day']}",
            )
            # A server may ignore a filter, and return other people's replacements.
            expected = [person, leave["first_day"], leave["last_day"]]
            own = [
                {"id": request["id"], "status": str(request["status"]).casefold()}
                for request in requests
                if all(shown in (None, value) for shown, value in zip(who_and_when(request), expected, strict=True))
            ]
            found.append({**leave, "requests": own})
        return found

    # [END howto_compare_leaves]

    @task
    def choose_new(leaves: list[dict]) -> list[dict]:
        """Return the parameters of a task for each missing replacement; a failed one is requested again."""
        return [
            {
                "old_assignee": leave["person"],
                "new_assignees": [leave["deputy"]],
                "first_day": leave["first_day"],
                "last_day": leave["last_day"],
            }
            for leave in leaves
            if not leave["cancelled"] and all(request["status"] == "failed" for request in leave["requests"])
        ]

    @task
    def choose_cancelled(leaves: list[dict]) -> list[str]:
        """Return the replacements of cancelled leaves."""
        cancelled = [request for leave in leaves if leave["cancelled"] for request in leave["requests"]]
        return [str(request["id"]) for request in cancelled if request["status"] in STOPPABLE]

    leaves = compare_with_procore()

    # [START howto_operator_procore_bulk_replace_assignees]
    covered = ProcoreBulkReplaceAssigneesOperator.partial(
        task_id="cover",
        replacement_type="temporary",
        reason="On leave.",
        retries=2,
    ).expand_kwargs(choose_new(leaves))
    # [END howto_operator_procore_bulk_replace_assignees]

    # [START howto_operator_procore_bulk_replace_assignees_stop]
    stopped = ProcoreBulkReplaceAssigneesOperator.partial(task_id="stop", action="stop", retries=2).expand(
        request_id=choose_cancelled(leaves)
    )
    # [END howto_operator_procore_bulk_replace_assignees_stop]

    @task(trigger_rule="none_failed")
    def report(covered: list[dict], stopped: list[dict]) -> dict[str, list]:
        """Report requests and stops; `with_errors` names those that Procore could apply to some workflows only."""
        return {
            "requested": [[result["request_id"], result["status"]] for result in covered or []],
            "with_errors": [result["request_id"] for result in covered or [] if result["errors"]],
            "stopped": [result["request_id"] for result in stopped or []],
        }

    report(covered.output, stopped.output)


example_procore_leave_cover()
