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
                choose(option, only_listed=True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join()


def choose(option: str, *, only_listed: bool = False) -> None:
    """
    Respond to each open request as Airflow's API does, and resume the tasks that wait for it.

    :param only_listed: Only to those that Required Actions lists: a task makes its request before it waits.
    """
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import handle_event_submit
    from airflow.triggers.base import TriggerEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        for detail in session.scalars(select(HITLDetail).where(HITLDetail.responded_at.is_(None))).unique().all():
            waiting = session.get(TaskInstance, detail.ti_id)
            if only_listed and waiting.state != "awaiting_input":
                continue
            detail.responded_at, detail.responded_by = datetime.now(timezone.utc), KIM
            detail.chosen_options, detail.params_input = [option], {}
            if waiting.state == "awaiting_input":
                event = TriggerEvent(detail.as_resume_event_payload())
                handle_event_submit(event, task_instance=waiting, session=session)
