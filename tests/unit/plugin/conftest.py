"""Airflow's tables with rows of waiting tasks, in a database of their own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, insert
from sqlalchemy.orm import Session

from airflow_provider_workflows.rules.open_wait import OPEN_WAIT, OpenWait
from tests.support.versions import AIRFLOW

if AIRFLOW >= (3, 1):
    from airflow.models import import_all_models
    from airflow.models.asset import AssetModel
    from airflow.models.base import Base
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.models.xcom import XComModel

    if AIRFLOW >= (3, 2):
        from airflow.models.asset import AssetWatcherModel
    else:
        from airflow.models.asset import asset_trigger_association_table
    if AIRFLOW >= (3, 4):
        from airflow.models.dagrun import DagRun
        from airflow.models.xcom import XComModelV2
else:
    collect_ignore_glob = ["test_*.py"]  # before, Airflow has no pages of plugins

NOW = datetime(2026, 5, 4, 12, tzinfo=timezone.utc)
INSTANCE_TRIGGER = "airflow_provider_workflows.triggers.procore.ProcoreInstanceWaitTrigger"


class Tables:
    """Write rows of Airflow's tables, as many at once as a test needs."""

    def __init__(self, session: Session):
        self.session = session
        self.triggers = 0
        self.task_instances: dict[tuple[str, str, str, int], Any] = {}
        self.dag_runs: set[tuple[str, str]] = set()
        self.rows: dict[Any, list[dict[str, Any]]] = {}

    def add_task(
        self,
        task_id: str = "wait",
        *,
        dag_id: str = "orders",
        run_id: str = "run",
        state: str = "deferred",
        map_index: int = -1,
        try_number: int = 1,
        trigger_id: int | None = None,
    ) -> None:
        ti_id: Any = uuid.uuid4() if AIRFLOW >= (3, 2) else str(uuid.uuid4())
        self.task_instances[dag_id, run_id, task_id, map_index] = ti_id
        self._add(
            TaskInstance,
            id=ti_id,
            task_id=task_id,
            dag_id=dag_id,
            run_id=run_id,
            map_index=map_index,
            region_index=map_index,  # from Airflow 3.4 on
            state=state,
            try_number=try_number,
            trigger_id=trigger_id,
            start_date=NOW - timedelta(days=3),
            pool="default_pool",
            pool_slots=1,
            max_tries=0,
            dag_version_id=None,
        )

    def add_trigger(self, classpath: str = INSTANCE_TRIGGER, **arguments: Any) -> int:
        self.triggers += 1
        kwargs = Trigger.encrypt_kwargs(arguments)
        self._add(Trigger, id=self.triggers, classpath=classpath, kwargs=kwargs, created_date=NOW)
        return self.triggers

    def add_wait(
        self, wait: OpenWait | None, task_id: str = "wait", *, classpath: str = INSTANCE_TRIGGER, **task: Any
    ) -> None:
        """Add a deferred task whose trigger has stored a description."""
        arguments = {
            "procore_conn_id": "procore_default",
            "deadline": "2026-06-01T00:00:00+00:00",
            "poll_interval": 60.0,
        }
        self.add_task(task_id, trigger_id=self.add_trigger(classpath, **arguments), **task)
        if wait is not None:
            self.store(XComModel, wait, task_id, **task)

    def store(self, table: Any, wait: OpenWait, task_id: str = "wait", **task: Any) -> None:
        """Store a description as XCom or in the task state store."""
        key = {"dag_id": "orders", "run_id": "run", "map_index": -1, "task_id": task_id}
        key |= {name: value for name, value in task.items() if name in key}
        text = json.dumps(wait.to_dict())
        times = {"timestamp": NOW} if table is XComModel else {"updated_at": NOW}
        run = len(self.rows.get(table, ()))
        if table is XComModel and AIRFLOW >= (3, 4):
            self._store_xcom(text, **key)
        else:
            self._add(table, dag_run_id=run, key=OPEN_WAIT, value=text, region_index=key["map_index"], **times, **key)

    def _store_xcom(self, text: str, *, dag_id: str, run_id: str, task_id: str, map_index: int) -> None:
        """Store an XCom as Airflow 3.4 does: for a task instance, and readable only with its DAG run."""
        ti_id = self.task_instances[dag_id, run_id, task_id, map_index]
        self._add(XComModelV2, id=uuid.uuid4(), task_instance_id=ti_id, key=OPEN_WAIT, value=text, timestamp=NOW)
        if (dag_id, run_id) not in self.dag_runs:
            self.dag_runs.add((dag_id, run_id))
            self._add(DagRun, dag_id=dag_id, run_id=run_id, run_type="manual", run_after=NOW)

    def add_watcher(self, classpath: str) -> None:
        self._add(
            AssetModel, id=1, name="decided", uri="x://decided", group="asset", extra={}, created_at=NOW, updated_at=NOW
        )
        if AIRFLOW >= (3, 2):
            self._add(AssetWatcherModel, asset_id=1, trigger_id=self.add_trigger(classpath), name="watch")
        else:  # Airflow does not store the watcher's name
            watch = {"asset_id": 1, "trigger_id": self.add_trigger(classpath)}
            self.rows.setdefault(asset_trigger_association_table, []).append(watch)

    def write(self) -> Session:
        for table, rows in self.rows.items():
            self.session.execute(insert(getattr(table, "__table__", table)), rows)
        self.rows.clear()
        return self.session

    def _add(self, table: Any, **values: Any) -> None:
        names = {column.name for column in table.__table__.columns}
        self.rows.setdefault(table, []).append({name: value for name, value in values.items() if name in names})


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    import_all_models()
    engine = create_engine(f"sqlite:///{tmp_path}/airflow.db")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield Tables(session)
    engine.dispose()
