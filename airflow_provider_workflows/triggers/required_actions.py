"""The request of a deferred task in Airflow's Required Actions: a worker creates it, and the trigger reads it once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from airflow_provider_workflows.triggers.open_wait import supervisor_lock

if TYPE_CHECKING:
    from airflow.sdk import Context


def create_request(
    context: Context,
    *,
    subject: str,
    body: str,
    options: Sequence[str],
    params: Mapping[str, Any],
    assigned_users: Sequence[Mapping[str, str]],
) -> None:
    """
    Create the task's request, which Airflow shows while the task is deferred (Airflow 3.1+).

    Call it once per task: a second call does not change the request, and it deletes a response that it already has.
    """
    from airflow.sdk.execution_time import hitl

    hitl.upsert_hitl_detail(
        ti_id=context["ti"].id,
        options=list(options),
        subject=subject,
        body=body,
        params=dict(params),
        assigned_users=[{"id": user["id"], "name": user["name"]} for user in assigned_users],
    )


async def read_response(ti_id: str) -> dict[str, Any] | None:
    """
    Return the response to a task's request, in the form of Airflow's own event, or None; await it in a triggerer.

    Airflow does not serve this request on a worker.

    :param ti_id: Id of the task instance.
    :return: ``{chosen_options, params_input, responded_at, responded_by_user}``, JSON primitives.
    """
    from airflow.sdk.execution_time import hitl

    async with supervisor_lock():
        found = await asyncio.to_thread(hitl.get_hitl_detail_content_detail, ti_id=UUID(ti_id))
    if found is None:  # dag.test(), in which no user can respond
        return None
    if not found.response_received or not (chosen := list(found.chosen_options or ())):
        return None
    user, at = found.responded_by_user, found.responded_at
    return {
        "chosen_options": chosen,
        "params_input": dict(found.params_input or {}),
        "responded_at": None if at is None else at.isoformat(),
        "responded_by_user": None if user is None else {"id": user.id, "name": user.name},
    }
