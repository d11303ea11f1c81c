"""How the tests run an example DAG, and read what became of its tasks."""

from __future__ import annotations

import importlib.util
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "example_dags"


def run(dag_id: str, *, constants: dict | None = None, **params):
    """Run an example in this process, without Airflow's retries; return the run."""
    spec = importlib.util.spec_from_file_location(dag_id, EXAMPLES / f"{dag_id}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(constants or {})
    dag = vars(module)[dag_id]()
    for task in dag.tasks:
        if task.is_mapped:
            task.partial_kwargs["retries"] = 0
        else:
            task.retries = 0
    return dag.test(run_conf=params)


def states(run) -> dict[str, list[str]]:
    """Return the states of each task, of all its mapped instances."""
    found: dict[str, list[str]] = {}
    for one in sorted(run.get_task_instances(), key=lambda one: (one.task_id, one.map_index)):
        found.setdefault(one.task_id, []).append(str(one.state))
    return found


def result(run, task_id: str):
    (one,) = [one for one in run.get_task_instances() if one.task_id == task_id]
    return one.xcom_pull(task_ids=task_id)
