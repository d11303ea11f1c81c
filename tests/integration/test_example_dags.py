"""What every example DAG promises: it parses alone, fast, and touches nothing while it does."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.examples import NEEDS
from tests.support.versions import AIRFLOW

pytestmark = pytest.mark.compat

FOLDER = Path(__file__).parents[2] / "example_dags"
EXAMPLES = sorted(path for path in FOLDER.glob("*.py") if NEEDS.get(path.stem, AIRFLOW) <= AIRFLOW)
# Parses each DAG as the DAG processor does, in a fork of a process that imported Airflow, and records every connection,
# look-up, process and file that is written.
PARSE = """
import importlib.util, json, os, pathlib, sys
import airflow.sdk
airflow.sdk.DAG("first", schedule=None)  # what Airflow itself does at the first DAG is not the example's
AUDITED = {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.remove", "os.rename", "os.mkdir"}
def parse(path):
    touched = []
    def record(event, arguments):
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if (event in AUDITED or writes) and "__pycache__" not in str(arguments[0]):
            touched.append(f"{event} {arguments[0]}")
    spec = importlib.util.spec_from_file_location("example", path)
    module = importlib.util.module_from_spec(spec)
    sys.addaudithook(record)
    spec.loader.exec_module(module)
    dag = vars(module)[path.stem]()
    heavy = sorted({"requests", "pyarrow", "fastapi", "duckdb", "matplotlib"} & set(sys.modules))
    print(json.dumps([path.stem, dag.dag_id, len(dag.tasks), touched, heavy, bool(dag.doc_md)]))
for path in map(pathlib.Path, sys.argv[1:]):
    sys.stdout.flush()
    if os.fork() == 0:
        parse(path)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def parsed() -> dict[str, list[Any]]:
    """What each example's DAG is and what parsing it touched, by the name of its file."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN_")}
    command = [sys.executable, "-B", "-c", PARSE, *map(str, EXAMPLES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {name: found for name, *found in lines}


@pytest.mark.skipif(AIRFLOW < (3, 1), reason="Airflow 3.0 itself opens files and imports FastAPI when a DAG is made")
def test_examples_parse_without_connection_network_or_files(parsed):
    found = {
        name: (dag_id, touched, heavy, documented) for name, (dag_id, _, touched, heavy, documented) in parsed.items()
    }

    assert found == {example.stem: (example.stem, [], [], True) for example in EXAMPLES}
    assert [name for name, (_, tasks, *_) in parsed.items() if tasks < 2] == []


@pytest.mark.parametrize("example", NEEDS)
def test_example_for_a_newer_airflow_is_not_an_import_error(example):
    module = runpy.run_path(str(FOLDER / f"{example}.py"))

    assert (module["LoopDecision"] is None) is (NEEDS[example] > AIRFLOW)
