"""What an editor and a type checker know of decorated functions: the options, the arguments, and what comes back."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.sdk import BaseOperator

from airflow_provider_workflows.decorators.procore import NO_OPTIONS, _ResponseDecoratedOperator
from airflow_provider_workflows.decorators.typed import IntegrationOptions, ResponseOptions, TaskOptions
from airflow_provider_workflows.decorators.workflowsoft import workflowsoft_integration
from tests.support.versions import AIRFLOW

pytestmark = pytest.mark.skipif(AIRFLOW < (3, 3), reason="what type checkers are told is that of the newest Airflow")

# A line that mypy must refuse ends with what its message holds; every other line must pass.
USER_FILE = """
from decimal import Decimal
from typing import Any

from airflow.sdk import XComArg

from airflow_provider_workflows.decorators.procore import Respond, Skip, Wait, procore_response
from airflow_provider_workflows.decorators.workflowsoft import workflowsoft_integration


@procore_response
def bare(instance: dict[str, Any]) -> Respond:
    return Respond("Approve", comment="fine", files=["a.pdf"])


@procore_response(on_step_moved="skip", timeout=60, deferrable=True, retries=2)
def decide(instance: dict[str, Any], rate: str, *, note: str = "") -> Respond | Wait | Skip:
    return Wait()


@workflowsoft_integration
def plain(fields: dict[str, Any]) -> None: ...


@workflowsoft_integration(expected_fields={"Total": "Decimal"}, retries=2)
def enrich(fields: dict[str, Any], rate: Decimal) -> dict[str, Any]:
    return {"Total": rate}


rows: list[dict[str, Any]] = []
first: XComArg = bare({"instance_id": "1"})
first >> decide(first, "1", note="x")
decide(instance=first, rate="1")
decide.override(task_id="other", confirm_timeout=5).partial(rate="1").expand(instance=rows)
second: XComArg = enrich(integration_instance_id="1", rate=Decimal(1))
plain.override(custom_action="Reject")("1") >> enrich.partial(rate=Decimal(1)).expand(integration_instance_id=rows)

procore_response(on_step_movd="skip")  # wrong: "on_step_movd"
procore_response(retrys=2)  # wrong: "retrys"
workflowsoft_integration(custom_actoin="Reject")  # wrong: "custom_actoin"
procore_response(timeout="1 h")  # wrong: argument type "str"
bare()  # wrong: "instance"
decide("1")  # wrong: "rate"
decide("1", 1)  # wrong: "str"
decide("1", "1", nte="x")  # wrong: "nte"
decide.override(on_step_movd="x")  # wrong: "on_step_movd"
enrich("1", "2")  # wrong: "Decimal"
enrich("1", Decimal(1)).expandd  # wrong: "expandd"
Respond("Approve", remark="x")  # wrong: "remark"


@procore_response  # wrong: incompatible type
def returns_text(instance: dict[str, Any]) -> str:
    return "Approve"
"""

SETTINGS = """
[mypy]
python_version = 3.10
show_column_numbers = false
[mypy-airflow.*,pendulum.*,requests.*,tenacity.*]
follow_imports = skip
[mypy-airflow.sdk.definitions.xcom_arg,airflow.sdk.definitions._internal.mixins]
follow_imports = silent
[mypy-airflow_provider_workflows.*]
follow_imports = silent
"""


def test_mypy_completes_the_options_and_checks_the_calls(tmp_path: Path):
    (tmp_path / "user.py").write_text(USER_FILE)
    (tmp_path / "mypy.ini").write_text(SETTINGS)

    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=mypy.ini", "--cache-dir=cache", "--no-pretty", "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    said: dict[int, str] = {}
    for line in checked.stdout.splitlines():
        if found := re.match(r"user\.py:(\d+): error: (.*)", line):
            said[int(found[1])] = said.get(int(found[1]), "") + found[2]
    wanted = {
        number: text.partition("# wrong: ")[2]
        for number, text in enumerate(USER_FILE.splitlines(), 1)
        if "# wrong: " in text
    }
    assert set(said) == set(wanted), checked.stdout + checked.stderr
    assert {number: message for number, message in said.items() if wanted[number] not in message} == {}


def test_every_option_of_airflows_tasks_is_known():
    parameters = {
        name for name, one in inspect.signature(BaseOperator).parameters.items() if one.kind is one.KEYWORD_ONLY
    }

    assert parameters - {"sla"} == set(TaskOptions.__annotations__)  # Airflow 3 only warns of an sla


def test_the_options_that_are_reported_are_those_that_are_taken():
    taken = {
        name
        for operator in _ResponseDecoratedOperator.__mro__
        if operator.__module__.startswith("airflow_provider_workflows") or operator.__name__ == "BaseSensorOperator"
        for name, one in inspect.signature(vars(operator).get("__init__", lambda: None)).parameters.items()
        if one.kind is one.KEYWORD_ONLY
    }
    integration = inspect.signature(workflowsoft_integration).parameters

    assert taken - NO_OPTIONS == set(ResponseOptions.__annotations__) - set(TaskOptions.__annotations__)
    assert set(integration) - {"python_callable", "kwargs"} == set(IntegrationOptions.__annotations__) - set(
        TaskOptions.__annotations__
    )
