"""How the tests run an example DAG, and read the outcomes of its tasks."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "example_dags"
# These have a DAG only on newer versions of Airflow.
NEEDS = {"example_procore_rework": (3, 4)}
# Each run of an example takes seconds, so that make test runs each of them once; the slow tests run the rest.
EITHER_MODE = pytest.mark.parametrize(
    "deferrable", [pytest.param("True", id="deferrable"), pytest.param("False", id="blocking", marks=pytest.mark.slow)]
)


def once_and_in_full(**axes: Sequence[Any]) -> Any:
    """
    Parametrize a test of an example with the first value of each axis, and as slow tests with all of them.

    Of three axes of two values the slow tests run the half in which all pairs of values occur. The parameter ``again``
    says whether the test runs the example a second time, as only the slow tests do.

    :param axes: The values of each parameter.
    """

    def is_run(values: Sequence[Any]) -> bool:
        return len(axes) < 3 or sum(map(list.index, map(list, axes.values()), values)) % 2 == 0

    chosen = list(filter(is_run, product(*axes.values())))
    slow = [pytest.param(*values, True, marks=pytest.mark.slow) for values in chosen]
    return pytest.mark.parametrize((*axes, "again"), [pytest.param(*chosen[0], False), *slow])


def load(dag_id: str, constants: dict | None = None):
    """
    Return the DAG of an example, whose file is then the only one in the DAGs folder.

    `dag.test()` parses the whole folder and stores all its DAGs, which takes seconds for all examples.
    """
    folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    module = _module(Path(shutil.copy(EXAMPLES / f"{dag_id}.py", folder)))
    vars(module).update(constants or {})
    return vars(module)[dag_id]()


def run(dag_id: str, *, constants: dict | None = None, **params):
    """Run an example in this process, without Airflow's retries; return the run."""
    dag = load(dag_id, constants)
    for task in dag.tasks:
        if task.is_mapped:
            task.partial_kwargs["retries"] = 0
        else:
            task.retries = 0
    return dag.test(run_conf=params)


def run_source(dag_id: str, source: str, monkeypatch: Any, folder: Path):
    """Run a DAG of these lines, which end with the call of its function, from a file of its own; return the run."""
    from airflow.dag_processing.bundles import manager

    file = folder / f"{dag_id}.py"
    file.write_text(source)
    bundle = {"name": "flow", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle"}
    monkeypatch.setenv(
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([{**bundle, "kwargs": {"path": str(folder)}}])
    )
    read_bundles = getattr(manager, "_load_bundle_config_snapshot", None)
    if read_bundles is not None:  # Airflow 3.4 reads them once in a process
        uncached = getattr(read_bundles, "__wrapped__", read_bundles)
        monkeypatch.setattr(manager, "_load_bundle_config_snapshot", uncached)
    return vars(_module(file))[dag_id]().test()


def _module(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def states(run) -> dict[str, list[str]]:
    """Return the states of each task, of all its mapped instances."""
    found: dict[str, list[str]] = {}
    for task_instance in sorted(
        run.get_task_instances(), key=lambda task_instance: (task_instance.task_id, task_instance.map_index)
    ):
        found.setdefault(task_instance.task_id, []).append(str(task_instance.state))
    return found


def result(run, task_id: str):
    (task_instance,) = [task_instance for task_instance in run.get_task_instances() if task_instance.task_id == task_id]
    return task_instance.xcom_pull(task_ids=task_id)
