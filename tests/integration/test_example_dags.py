"""What every example DAG promises: it parses alone, fast, and touches nothing while it does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.versions import AIRFLOW

pytestmark = pytest.mark.compat

EXAMPLES = sorted((Path(__file__).parents[2] / "example_dags").glob("*.py"))
# Parses the DAG as the DAG processor does, and notes every connection, look-up, process and file that is written.
PARSE = """
import importlib.util, json, sys
import airflow.sdk
airflow.sdk.DAG("first", schedule=None)  # what Airflow itself does at the first DAG is not the example's
touched = []
WATCHED = {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.remove", "os.rename", "os.mkdir"}
def watch(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if (event in WATCHED or writes) and "__pycache__" not in str(arguments[0]):
        touched.append(f"{event} {arguments[0]}")
spec = importlib.util.spec_from_file_location("example", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.addaudithook(watch)
spec.loader.exec_module(module)
dag = vars(module)[sys.argv[2]]()
heavy = sorted({"requests", "pyarrow", "fastapi"} & set(sys.modules))
print(json.dumps([dag.dag_id, len(dag.tasks), touched, heavy, bool(dag.doc_md)]))
"""


@pytest.mark.skipif(AIRFLOW < (3, 1), reason="Airflow 3.0 itself opens files and imports FastAPI when a DAG is made")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_parses_without_connection_network_or_files(example, monkeypatch):
    for name in ("PROCORE", "WORKFLOWSOFT"):
        monkeypatch.delenv(f"AIRFLOW_CONN_{name}_DEFAULT", raising=False)
    command = [sys.executable, "-B", "-c", PARSE, str(example), example.stem]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    dag_id, tasks, touched, heavy, documented = json.loads(done.stdout.splitlines()[-1])
    assert (dag_id, touched, heavy, documented) == (example.stem, [], [], True)
    assert tasks >= 5
