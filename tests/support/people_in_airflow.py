"""People who respond in Airflow's Required Actions, while `dag.test()` runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone

KIM = {"id": "7", "name": "Kim"}


@contextmanager
def person(option: str) -> Iterator[None]:
    """Let a person choose this option at each request in Required Actions."""
    from sqlalchemy.exc import OperationalError

    leave = threading.Event()

    def work() -> None:
        while not leave.wait(0.2):
            with suppress(OperationalError):  # SQLite is locked while a task writes: the next time it is not
                choose(option, in_state="awaiting_input")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join()


def choose(option: str, *, in_state: str) -> None:
    """
    Respond to each request as Airflow's API does, and resume the tasks that wait for it.

    A task that waits although it has a response is resumed again: dag.test() sets the state of a task once more after
    the task has started to wait.

    :param in_state: Only to the requests of tasks in this state.
    """
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import handle_event_submit
    from airflow.triggers.base import TriggerEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        for detail in session.scalars(select(HITLDetail)).unique().all():
            task = session.get(TaskInstance, detail.ti_id)
            if task.state != in_state:
                continue
            if detail.responded_at is None:
                detail.responded_at, detail.responded_by = datetime.now(timezone.utc), KIM
                detail.chosen_options, detail.params_input = [option], {}
            if in_state == "awaiting_input":
                handle_event_submit(TriggerEvent(detail.as_resume_event_payload()), task_instance=task, session=session)
