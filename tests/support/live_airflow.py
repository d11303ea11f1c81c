"""A real Airflow on this machine: scheduler, triggerer, DAG processor and API server, until the block ends."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

ENDED = {"success", "failed"}
# Airflow's processes by name, each with the arguments of its command; there can be several of a kind.
COMPONENTS: Mapping[str, Sequence[str]] = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer"],
}
NAME = "LIVE_AIRFLOW_PROCESS"  # environment variable with the name of a process
# Seconds that a condition may take to come true. Long, because a busy machine must not fail a test; when a process of
# Airflow ends, the wait ends at once.
MAX_WAIT_SECONDS = 900.0
POLL_SECONDS = 0.5  # seconds between two polls of Airflow's API
TAIL_LENGTH = 3000  # characters of a process's output in an error
# On SQLite Airflow's API server responds with 500 at times, or not at all, while others write.
RETRIES = Retry(
    total=None,
    connect=0,
    read=5,
    status=5,
    status_forcelist=[500],
    allowed_methods={"GET", "PATCH", "PUT"},
    backoff_factor=0.5,
    raise_on_status=False,
)
PAGE = 100  # rows; the most that Airflow's API server gives at once


class ProcessEnded(Exception):
    """A process of Airflow has ended that should run; the message has the last lines of its output."""


class LiveAirflow:
    """
    An Airflow deployment of its own: temporary home, free ports, processes ended by their own ids.

    :param dags: Folder of the DAGs.
    :param connections: Airflow connections by id, as dicts.
    :param settings: More environment variables, such as ``AIRFLOW__WORKFLOWS__POKE_INTERVAL``; they can name another
        executor.
    :param components: Which processes to run, by name, with the arguments of each one's command.
    :param database: URL of an empty database. Default: an SQLite file, which is enough for a few DAGs at a time.
    """

    def __init__(
        self,
        dags: Path,
        connections: Mapping[str, Mapping[str, Any]],
        settings: Mapping[str, str] | None = None,
        components: Mapping[str, Sequence[str]] = COMPONENTS,
        database: str | None = None,
    ):
        self.components = components
        self._home = tempfile.TemporaryDirectory(prefix="airflow-live-", ignore_cleanup_errors=True)
        self.home = Path(self._home.name)
        api, worker_logs, trigger_logs = free_ports(3)
        self.url = f"http://localhost:{api}"
        # On a busy machine a process of Airflow's ends when it has waited for SQLite's 5 seconds. At times two
        # requests in its API server wait for each other that long, so it is not much more.
        self.database = database or f"sqlite:///{self.home}/airflow.db?timeout=15"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy between this machine and itself
        self._session.mount("http://", HTTPAdapter(max_retries=RETRIES))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(api),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "300",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database,
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
            "NO_PROXY": "localhost,127.0.0.1",
            **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections.items()},
            **(settings or {}),
        }

    def __enter__(self) -> LiveAirflow:
        try:
            self._airflow("db", "migrate")
            for component in self.components:
                self.start(component)
            self.until("Airflow is healthy", self._is_healthy)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for component in list(self._processes):
            self.kill(component)
        self._session.close()
        self._home.cleanup()

    def start(self, component: str) -> None:
        """Start one of Airflow's processes, in a session of its own so that it and its children can be ended."""
        with (self.home / f"{component}.out").open("ab") as output:
            self._processes[component] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *self.components[component]],
                env={**self.environment, NAME: component},
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def kill(self, component: str) -> None:
        """End one of Airflow's processes and its children as a power cut would."""
        process = self._processes.pop(component)
        process.kill()
        self._signal(process, signal.SIGKILL)
        process.wait()

    def suspend(self, component: str) -> None:
        """Stop one of Airflow's processes and its children where they are, as a paused container does."""
        self._signal(self._processes[component], signal.SIGSTOP)

    def resume(self, component: str) -> None:
        """Let a suspended process and its children go on."""
        self._signal(self._processes[component], signal.SIGCONT)

    def _signal(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        # A task runs in a process group of its own, but in the session of its component.
        for other in psutil.pids():
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(other) == process.pid:
                    os.kill(other, number)

    def usage(self, component: str) -> tuple[float, float]:
        """Return the seconds of CPU that a process and its children have spent, and the MB that are theirs alone."""
        root = psutil.Process(self._processes[component].pid)
        processes = [root, *root.children(recursive=True)]
        times = [process.cpu_times() for process in processes]
        return sum(spent.user + spent.system for spent in times), sum(
            process.memory_full_info().uss for process in processes
        ) / 1e6

    def until(
        self,
        what: str,
        is_true: Callable[[], object],
        seconds: float = MAX_WAIT_SECONDS,
        interval: float = POLL_SECONDS,
    ) -> None:
        """
        Poll a condition until it is true.

        :param what: A description of the condition, for the error.
        :raises ProcessEnded: a process of Airflow has ended, so the condition may never become true.
        :raises TimeoutError: the time is up; the message has the last lines of each process's output.
        """
        end = time.monotonic() + seconds
        while not is_true():
            self.check_processes()
            if time.monotonic() > end:
                outputs = "\n".join(f"{component}:\n{self.tail(component)}" for component in self._processes)
                raise TimeoutError(f"Not within {seconds:.0f} s: {what}\n{outputs}")
            time.sleep(interval)

    def check_processes(self) -> None:
        """Raise ``ProcessEnded`` if a process of Airflow has ended that should run."""
        for component, process in self._processes.items():
            if process.poll() is not None:
                raise ProcessEnded(f"airflow {component} ended with {process.returncode}:\n{self.tail(component)}")

    def unpause(self, dag_id: str) -> None:
        """Unpause a DAG as soon as Airflow has parsed it, and let Airflow parse it again, which starts its watchers."""
        tokens: list[str] = []

        def is_unpaused() -> bool:
            response = self._call("PATCH", f"dags/{dag_id}", ok=(200, 404), json={"is_paused": False})
            if response.status_code == 200:
                tokens.append(response.json()["file_token"])
            return bool(tokens)

        self.until(f"Airflow has parsed {dag_id}", is_unpaused)
        self._call("PUT", f"parseDagFile/{tokens[0]}", ok=(201, 409))

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Unpause a DAG as soon as Airflow has parsed it, start a run, and return the run's id."""
        self.unpause(dag_id)
        response = self._call("POST", f"dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": dict(conf or {})})
        return str(response.json()["dag_run_id"])

    def wait(self, dag_id: str, run_id: str, seconds: float = MAX_WAIT_SECONDS) -> str:
        """Wait until a run has ended, and return its state."""
        state = ""

        def has_ended() -> bool:
            nonlocal state
            state = str(self._call("GET", f"dags/{dag_id}/dagRuns/{run_id}").json()["state"])
            return state in ENDED

        self.until(f"the run of {dag_id} ends", has_ended, seconds)
        return state

    def runs(self, dag_id: str) -> dict[str, str]:
        """Return the state of each run of a DAG."""
        return {run["dag_run_id"]: run["state"] for run in self.all_rows(f"dags/{dag_id}/dagRuns", "dag_runs")}

    def asset_payloads(self, assets: Collection[str]) -> list[dict[str, Any]]:
        """Return the payloads that the watchers of these assets emitted, in order."""
        events = self.all_rows("assets/events", "asset_events")
        return [event["extra"]["payload"] for event in events if event["name"] in assets]

    def until_scheduled(self) -> None:
        """Wait until the scheduler has been through its loop, so that a run that an event triggers exists."""
        for _ in range(2):
            before = self._scheduler_heartbeat()
            self.until("the scheduler has a heartbeat", lambda before=before: self._scheduler_heartbeat() != before)

    def _scheduler_heartbeat(self) -> str:
        return str(self._call("GET", "monitor/health").json()["scheduler"]["latest_scheduler_heartbeat"])

    def clear(self, dag_id: str, run_id: str) -> None:
        """Clear all tasks of a run that has ended, so that it runs again."""
        order = {"dag_run_id": run_id, "dry_run": False, "only_failed": False, "reset_dag_runs": True}
        self._call("POST", f"dags/{dag_id}/clearTaskInstances", json=order)

    def mark_failed(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> None:
        """Mark a task failed, as a user does who kills it."""
        where = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        self._call("PATCH", where, params={"map_index": map_index}, json={"new_state": "failed"})

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the run's task instances in the order in which they started."""
        found = self.all_rows(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances")
        return sorted(found, key=lambda task: task["start_date"] or "~")

    def count(self, dag_id: str, run_id: str, state: str) -> int:
        """Return how many of the run's task instances are in a state."""
        where = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        return int(self._call("GET", where, params={"state": state, "limit": 1}).json()["total_entries"])

    def until_deferred(self, dag_id: str, run_id: str, task_id: str) -> None:
        """
        Wait until a task is deferred and the scheduler knows that its worker has ended.

        :raises AssertionError: a task of the run has failed; the message has its log.
        """

        def is_deferred() -> bool:
            states = {task["task_id"]: task["state"] for task in self.task_instances(dag_id, run_id)}
            assert "failed" not in states.values(), self.failures(dag_id, run_id)
            return states.get(task_id) == "deferred" and self.worker_has_ended(dag_id, run_id, task_id)

        self.until(f"{task_id} of {dag_id} is deferred", is_deferred)

    def worker_has_ended(self, dag_id: str, run_id: str, task_id: str) -> bool:
        """
        Return whether the scheduler knows that a task's worker has ended.

        Before that Airflow can fail a task that is resumed (apache/airflow#66374).
        """
        ended = f"TaskInstance Finished: dag_id={dag_id}, task_id={task_id}, run_id={run_id},"
        return ended in self.output("scheduler")

    def failures(self, dag_id: str, run_id: str) -> str:
        """Return the failed tasks of a run, each with the end of its last log and what the scheduler says of it."""
        found = []
        for task in self.task_instances(dag_id, run_id):
            if task["state"] == "failed":
                name, place, number = task["task_id"], task["map_index"], task["try_number"]
                lines = [line for line in self.output("scheduler").splitlines() if dag_id in line and name in line]
                ends = [
                    text[-TAIL_LENGTH:] for text in (self.log(dag_id, run_id, name, number, place), "\n".join(lines))
                ]
                found.append("\n".join([f"{name} {place} failed in try {number}:", *ends]))
        return "\n".join(found)

    def tasks_with_results(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the run's task instances by task id, each with what it returned and the log of its first try."""
        return {
            task["task_id"]: {
                **task,
                "xcom": self.xcom(dag_id, run_id, task["task_id"], map_index=task["map_index"]),
                "log": self.log(dag_id, run_id, task["task_id"], map_index=task["map_index"]),
            }
            for task in self.task_instances(dag_id, run_id)
        }

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return what a task returned."""
        where = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        response = self._call("GET", where, ok=(200, 404), params={"deserialize": "true", "map_index": map_index})
        return response.json().get("value")

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the text of a task's log; "" of a task that did not run."""
        where = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        response = self._call("GET", where, ok=(200, 404), params={"full_content": "true", "map_index": map_index})
        return "" if response.status_code == 404 else response.text

    def all_rows(self, path: str, rows: str, **query: str) -> list[dict[str, Any]]:
        """Return all rows of a list of Airflow's API, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            response = self._call("GET", path, params={**query, "limit": PAGE, "offset": len(found)}).json()
            found += response[rows]
            if not response[rows] or len(found) >= response["total_entries"]:
                return found

    def _call(self, method: str, path: str, *, ok: tuple[int, ...] = (200,), **kwargs: Any) -> requests.Response:
        if "Authorization" not in self._session.headers:
            token = self._session.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
            self._session.headers["Authorization"] = f"Bearer {token}"
        try:
            response = self._session.request(method, f"{self.url}/api/v2/{path}", timeout=60, **kwargs)
        except requests.RequestException:
            self.check_processes()
            raise
        if response.status_code not in ok:
            raise RuntimeError(f"{method} {path} returned {response.status_code}: {response.text[:500]}")
        return response

    def _airflow(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"airflow {' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    def _is_healthy(self) -> bool:
        try:
            health = self._session.get(f"{self.url}/api/v2/monitor/health", timeout=60).json()
        except (requests.RequestException, ValueError):
            return False
        return all(health[part]["status"] == "healthy" for part in ("scheduler", "triggerer", "dag_processor"))

    def output(self, component: str) -> str:
        """Return what a process has printed."""
        return (self.home / f"{component}.out").read_text(errors="replace")

    def tail(self, component: str) -> str:
        """Return the last lines that a process has printed."""
        return self.output(component)[-TAIL_LENGTH:]


def name_of_this_process() -> str:
    """Return the name of one of Airflow's processes; as ``[core] hostname_callable`` it distinguishes them."""
    return os.environ.get(NAME, "localhost")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports
