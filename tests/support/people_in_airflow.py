"""People who respond in Airflow's Required Actions, while `dag.test()` runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

KIM = {"id": "7", "name": "Kim"}


@contextmanager
def person(option: str) -> Iterator[None]:
    """Let a person choose this option at each request in Required Actions."""
    leave = threading.Event()

    def work() -> None:
        while not leave.wait(0.2):
            choose(option)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join()


def choose(option: str) -> None:
    """Respond to each open request as Airflow's API does, and resume the tasks that wait for it."""
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import handle_event_submit
    from airflow.triggers.base import TriggerEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        for detail in session.scalars(select(HITLDetail).where(HITLDetail.responded_at.is_(None))).unique().all():
            detail.responded_at, detail.responded_by = datetime.now(timezone.utc), KIM
            detail.chosen_options, detail.params_input = [option], {}
            waiting = session.get(TaskInstance, detail.ti_id)
            if waiting.state == "awaiting_input":
                event = TriggerEvent(detail.as_resume_event_payload())
                handle_event_submit(event, task_instance=waiting, session=session)
