"""
Read from Airflow's tables which task instances and watchers of this provider wait, and for what.

Only columns are selected, because ten thousand ORM objects would take seconds. What waits comes from the trigger rows
of deferred tasks and from the task state store; the step, its assignees and the rest from the description that the
sensor and the trigger store (:mod:`airflow_provider_workflows.rules.open_wait`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import lru_cache
from importlib import import_module
from operator import itemgetter
from statistics import median
from typing import TYPE_CHECKING, Any

from airflow.models.asset import AssetModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from sqlalchemy import and_, select

from airflow_provider_workflows.rules.datetimes import parse_time
from airflow_provider_workflows.rules.open_wait import OPEN_WAIT, OpenWait, current_open_wait
from airflow_provider_workflows.rules.overdue import end_of_due
from airflow_provider_workflows.version_compat import HAS_TASK_STATE_STORE, TASKS_HAVE_REGIONS, WATCHERS_HAVE_NAMES

if WATCHERS_HAVE_NAMES:
    from airflow.models.asset import AssetWatcherModel

    WATCHES, WATCHER_NAME = AssetWatcherModel.__table__.c, AssetWatcherModel.name
else:
    # The type checker sees the newest Airflow, which no longer has this table.
    from airflow.models.asset import asset_trigger_association_table  # type: ignore[attr-defined]

    WATCHES, WATCHER_NAME = asset_trigger_association_table.c, AssetModel.name
if TYPE_CHECKING:
    from sqlalchemy.orm import Session

ROWS_PER_PAGE = 50
MAX_TIMES = 50_000  # texts whose time is stored
MAX_DESCRIPTIONS = 20_000  # texts of about 300 characters
OUR_TRIGGERS = "airflow_provider_workflows.triggers."
WAITING_STATES = ("running", "up_for_reschedule")  # of a sensor in poke or reschedule mode
NOTHING_STORED = "Airflow has not stored what this task waits for."
WATCHER = "Watches for events; it has no step of its own."

Key = tuple[str, str, str, int]

# The index that Airflow's pages show: -1 for a task in a loop that is not mapped. And the columns that identify a task
# instance in Airflow's tables.
_MAP_INDEX: Any = TaskInstance.map_index
_IDENTITY: tuple[str, ...] = ("dag_id", "run_id", "task_id", "map_index")
if TASKS_HAVE_REGIONS:
    task_coordinates = import_module("airflow.models.task_coordinates")
    _MAP_INDEX = task_coordinates.public_map_index_expression(TaskInstance)
    _IDENTITY = ("dag_id", "run_id", "task_id", "region_id", "region_index")


@lru_cache(MAX_TIMES)
def _unix_time(text: str) -> float | None:
    """Return the Unix time of a text; the standard library reads the usual form ten times as fast as pendulum."""
    try:
        moment: datetime | None = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        moment = parse_time(text)
    return None if moment is None else moment.timestamp()


@lru_cache(MAX_TIMES)
def _end_of_due(due: str) -> float | None:
    return end_of_due(due)


@dataclass
class WaitRow:
    """
    Describe one waiting task instance or watcher.

    :param key: ``(dag_id, run_id, task_id, map_index)``; for a watcher ``("", "", "", trigger id)``.
    :param wait: What it waits for, as far as it is known.
    :param started_at: Start of the task's try, or creation of the watcher's trigger.
    :param trigger_id: Trigger of a deferred task or of a watcher, or None.
    """

    key: Key
    wait: OpenWait
    state: str
    try_number: int = 0
    label: str | None = None
    started_at: datetime | None = None
    trigger_id: int | None = None
    classpath: str = ""
    asset: str | None = None
    watcher: str | None = None
    note: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    overdue: bool = False

    @property
    def since(self) -> float | None:
        """Start of the pending step, or of the wait if no step is known, as Unix time."""
        started = _unix_time(self.wait.since) if self.wait.since else None
        return started or (None if self.started_at is None else self.started_at.timestamp())

    def to_json(self) -> dict[str, Any]:
        """Return the fields that the page shows; nothing else of Airflow's tables leaves the server."""
        dag_id, run_id, task_id, map_index = self.key
        is_task = self.watcher is None
        wait = self.wait
        return {
            "kind": "task" if is_task else "watcher",
            "dag_id": dag_id if is_task else None,
            "run_id": run_id if is_task else None,
            "task_id": task_id if is_task else None,
            "map_index": map_index if is_task else None,
            "try_number": self.try_number if is_task else None,
            "label": self.label,
            "state": self.state,
            "asset": self.asset,
            "watcher": self.watcher,
            "product": wait.product,
            "subject": wait.subject,
            "workflow": wait.workflow,
            "instance_id": wait.instance_id,
            "item_id": wait.item_id,
            "tool_type": wait.tool_type,
            "project_id": wait.project_id,
            "item_url": wait.item_url if (wait.item_url or "").startswith(("https://", "http://")) else None,
            "step": wait.step,
            "assignees": list(wait.assignees),
            "more_assignees": wait.more_assignees,
            "since": wait.since,
            "started_at": None if self.started_at is None else self.started_at.isoformat(),
            "due": wait.due,
            "overdue": self.overdue,
            "escalation_level": wait.escalation_level,
            "poll_interval": wait.poll_interval,
            "deadline": wait.deadline,
            "last_error": wait.last_error,
            "as_of": wait.polled_at,
            "note": self.note,
        }


@dataclass(frozen=True)
class Filters:
    """
    Select rows.

    :param person: An assignee; "" for rows without a known assignee; None for all.
    :param search: Text that occurs in one of the shown fields, in upper or lower case.
    """

    person: str | None = None
    dag_id: str | None = None
    product: str | None = None
    overdue: bool = False
    search: str = ""

    def match(self, row: WaitRow, *, any_person: bool = False) -> bool:
        """Return whether a row is selected; ``any_person`` ignores the person."""
        wait = row.wait
        if self.product is not None and wait.product != self.product:
            return False
        if self.dag_id is not None and row.key[0] != self.dag_id:
            return False
        if self.overdue and not row.overdue:
            return False
        if self.person is not None and not any_person and self.person not in (wait.assignees or ("",)):
            return False
        return not self.search or self.search.casefold() in _text_of(row)


def read_waits(session: Session, dag_ids: Collection[str], *, sees_assets: bool, now: datetime) -> list[WaitRow]:
    """
    Read all waits that a user may see.

    :param dag_ids: The DAGs that the user may read.
    :param sees_assets: Whether the user may read assets, and so sees their watchers.
    :param now: The time with which due dates are compared.
    """
    rows = [*_deferred(session), *_on_workers(session)]
    rows = [row for row in rows if row.key[0] in dag_ids]
    if sees_assets:
        rows += _watchers(session)
    for row in rows:
        row.overdue = is_overdue(row.wait, now)
    return rows


def read_wait(session: Session, key: Key, *, now: datetime) -> WaitRow | None:
    """Return the wait of one task instance, or None if it does not wait or is not a task of this provider."""
    dag_id, run_id, task_id, map_index = key
    condition = and_(
        TaskInstance.dag_id == dag_id,
        TaskInstance.run_id == run_id,
        TaskInstance.task_id == task_id,
        map_index == _MAP_INDEX,
    )
    for row in (*_deferred(session, condition), *_on_workers(session, condition)):
        row.overdue = is_overdue(row.wait, now)
        return row
    return None


def is_overdue(wait: OpenWait, now: datetime) -> bool:
    """Return whether the API reports a step as overdue, or its due date has passed."""
    ends = None if wait.due is None else _end_of_due(wait.due)
    return wait.is_overdue or (ends is not None and ends <= now.timestamp())


def _deferred(session: Session, condition: Any = True) -> list[WaitRow]:
    found = _rows(
        session,
        select(*_TASK_COLUMNS, Trigger.id, Trigger.classpath)
        .join(Trigger, TaskInstance.trigger_id == Trigger.id)
        .where(TaskInstance.state == "deferred", Trigger.classpath.startswith(OUR_TRIGGERS), condition),
    )
    stored = _descriptions(session, condition) if found else {}
    rows = []
    for dag_id, run_id, task_id, map_index, try_number, state, label, started_at, trigger_id, classpath in found:
        key = (dag_id, run_id, task_id, map_index)
        wait = current_open_wait(stored.get(trigger_id, ()), try_number)
        rows.append(
            WaitRow(
                key,
                wait or OpenWait(product=product_of(classpath)),
                str(state),
                try_number,
                label,
                started_at,
                trigger_id,
                classpath,
                note=None if wait else NOTHING_STORED,
            )
        )
    return rows


def _on_workers(session: Session, condition: Any = True) -> list[WaitRow]:
    """Return the sensors in poke or reschedule mode, which only the task state store names."""
    if not HAS_TASK_STATE_STORE:
        return []
    from airflow.models.task_state_store import TaskStateStoreModel

    found = _rows(
        session,
        select(*_TASK_COLUMNS, TaskStateStoreModel.value)
        .join(TaskStateStoreModel, _same_task(TaskStateStoreModel))
        .where(TaskStateStoreModel.key == OPEN_WAIT, TaskInstance.state.in_(WAITING_STATES), condition),
    )
    rows = []
    for dag_id, run_id, task_id, map_index, try_number, state, label, started_at, value in found:
        wait = current_open_wait([_description(value)], try_number)
        if wait is not None:
            key = (dag_id, run_id, task_id, map_index)
            rows.append(WaitRow(key, wait, str(state), try_number, label, started_at))
    return rows


def _descriptions(session: Session, condition: Any) -> dict[int, list[OpenWait | None]]:
    """Return the descriptions that sensors and triggers have stored for deferred task instances, by trigger."""
    tables: list[Any] = [XComModel]
    if HAS_TASK_STATE_STORE:
        from airflow.models.task_state_store import TaskStateStoreModel

        tables.append(TaskStateStoreModel)
    found: dict[int, list[OpenWait | None]] = {}
    for table in tables:
        rows = _rows(
            session,
            select(TaskInstance.trigger_id, table.value)
            .join(table, _same_task(table))
            .where(table.key == OPEN_WAIT, TaskInstance.state == "deferred", condition),
        )
        for trigger_id, value in rows:
            found.setdefault(trigger_id, []).append(_description(value))
    return found


def _rows(session: Session, statement: Any) -> Sequence[Any]:
    """Return the rows of a statement; the connection returns them with less work than the session."""
    return session.connection().execute(statement).all()


def _watchers(session: Session) -> list[WaitRow]:
    found = session.execute(
        select(Trigger.id, Trigger.classpath, Trigger.created_date, AssetModel.name, WATCHER_NAME)
        .where(WATCHES.trigger_id == Trigger.id, WATCHES.asset_id == AssetModel.id)
        .where(Trigger.classpath.startswith(OUR_TRIGGERS))
    ).all()
    return [
        WaitRow(
            ("", "", "", trigger_id),
            OpenWait(product=product_of(classpath), subject=f"events of asset {asset}"),
            "watching",
            started_at=created,
            trigger_id=trigger_id,
            classpath=classpath,
            asset=asset,
            watcher=watcher,
            note=WATCHER,
        )
        for trigger_id, classpath, created, asset, watcher in found
    ]


def add_arguments(session: Session, rows: Sequence[WaitRow]) -> None:
    """Read the arguments of the rows' triggers; they supply ids, interval and deadline where nothing was stored."""
    ids = [row.trigger_id for row in rows if row.trigger_id is not None]
    found: dict[int, str] = {}
    for start in range(0, len(ids), 500):  # a database accepts only so many parameters
        batch = ids[start : start + 500]
        columns = select(Trigger.id, Trigger.encrypted_kwargs).where(Trigger.id.in_(batch))
        found.update((id_, kwargs) for id_, kwargs in session.execute(columns))
    for row in rows:
        if (kwargs := found.get(row.trigger_id or -1)) is None:
            continue
        try:
            row.arguments = Trigger._decrypt_kwargs(kwargs)
        except Exception:  # unreadable by this server, for example with another Fernet key: the rest is shown anyway
            row.note = row.note or "The API server cannot read the arguments of this trigger."
            continue
        row.wait = _completed(row.wait, row.arguments)


def _completed(wait: OpenWait, arguments: Mapping[str, Any]) -> OpenWait:
    """Fill what a description does not state from the arguments of the trigger."""
    names = ("instance_id", "item_id", "tool_type", "project_id", "deadline")
    known: dict[str, Any] = {name: arguments[name] for name in names if isinstance(arguments.get(name), str)}
    if isinstance(arguments.get("poll_interval"), (int, float)):
        known["poll_interval"] = float(arguments["poll_interval"])
    return replace(wait, **{name: value for name, value in known.items() if getattr(wait, name) is None})


def product_of(classpath: str) -> str:
    """Return the product of a trigger by the module of its class; "" if it only resumes the task at a time."""
    module = classpath.removeprefix(OUR_TRIGGERS)
    return next((name for name in ("procore_legacy", "procore", "workflowsoft") if module.startswith(name)), "")


# --- what the page asks for ---


SORT_KEYS: Mapping[str, Callable[[WaitRow], Any]] = {
    "since": lambda row: row.since,
    "due": lambda row: None if row.wait.due is None else _end_of_due(row.wait.due),
    "step": lambda row: (row.wait.step or "").casefold() or None,
    "person": lambda row: (row.wait.assignees[0] if row.wait.assignees else "").casefold() or None,
    "dag": lambda row: row.key[:3] if row.key[0] else None,
    "product": lambda row: row.wait.product,
    "item": lambda row: row.wait.item_id or row.wait.instance_id,
}


def sort_rows(rows: Iterable[WaitRow], sort: str, *, descending: bool) -> list[WaitRow]:
    """Sort rows; those without the value come last either way."""
    keyed = [(SORT_KEYS[sort](row), row.key, row) for row in rows]
    known = sorted((entry for entry in keyed if entry[0] is not None), key=itemgetter(0, 1), reverse=descending)
    unknown = sorted((entry for entry in keyed if entry[0] is None), key=itemgetter(1))
    return [row for _, _, row in (*known, *unknown)]


def tiles_of(rows: Sequence[WaitRow], now: datetime) -> dict[str, Any]:
    """Return the figures of the tiles."""
    starts = sorted(moment for row in rows if row.watcher is None and (moment := row.since) is not None)
    ages = [now.timestamp() - moment for moment in starts]
    return {
        "open": len(rows),
        "overdue": sum(row.overdue for row in rows),
        "oldest_since": datetime.fromtimestamp(starts[0], timezone.utc).isoformat() if starts else None,
        "median_age_seconds": round(median(ages)) if ages else None,
    }


def people_of(rows: Iterable[WaitRow]) -> list[dict[str, Any]]:
    """Count the rows of each assignee; "" stands for rows without a known one."""
    counts: Counter[str] = Counter()
    overdue: Counter[str] = Counter()
    for row in rows:
        for name in row.wait.assignees or ("",):
            counts[name] += 1
            overdue[name] += row.overdue
    ordered = sorted(counts, key=lambda name: (-counts[name], name.casefold()))
    return [{"name": name, "count": counts[name], "overdue": overdue[name]} for name in ordered]


_TASK_COLUMNS = (
    TaskInstance.dag_id,
    TaskInstance.run_id,
    TaskInstance.task_id,
    _MAP_INDEX,
    TaskInstance.try_number,
    TaskInstance.state,
    TaskInstance._rendered_map_index,
    TaskInstance.start_date,
)


def _same_task(table: Any) -> Any:
    if hasattr(table, "task_instance_id"):  # an XCom from Airflow 3.4 on
        return table.task_instance_id == TaskInstance.id
    return and_(*(getattr(table, name) == getattr(TaskInstance, name) for name in _IDENTITY))


def _description(value: Any) -> OpenWait | None:
    """Return a stored description, which an XCom holds as a JSON text inside JSON."""
    return _description_of_text(value) if isinstance(value, str) else OpenWait.from_dict(value)


@lru_cache(MAX_DESCRIPTIONS)  # an open page reads them every few seconds, and few have changed
def _description_of_text(text: str) -> OpenWait | None:
    try:
        return OpenWait.from_dict(json.loads(text))
    except ValueError:
        return None


def _text_of(row: WaitRow) -> str:
    wait = row.wait
    texts = (*row.key[:3], row.label, row.asset, row.watcher, wait.subject, wait.workflow, wait.instance_id)
    more = (wait.item_id, wait.tool_type, wait.project_id, wait.step, *wait.assignees, wait.last_error)
    return "\n".join(text for text in (*texts, *more) if text).casefold()


def utc_now() -> datetime:
    return datetime.now(timezone.utc)
