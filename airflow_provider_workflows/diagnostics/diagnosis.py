"""
Check a connection step by step, and say how to fix each problem.

A diagnosis only reads, sends about twenty requests at most, and never polls for new integration instances of
Workflowsoft.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

from airflow.providers.common.compat.sdk import BaseHook, Connection

from airflow_provider_workflows.diagnostics.checks import FAILED, FIRST_STEPS, OK, SKIPPED, Check, Fault, Step
from airflow_provider_workflows.diagnostics.fixes import SETTINGS_FIX, fix_of
from airflow_provider_workflows.diagnostics.procore import ProcoreChecks
from airflow_provider_workflows.diagnostics.texts import printable, text_of
from airflow_provider_workflows.diagnostics.workflowsoft import WorkflowsoftChecks
from airflow_provider_workflows.exceptions import (
    RateLimited,
    WorkflowsError,
)
from airflow_provider_workflows.hooks.base import lookup_problem, type_problem


class Diagnosis:
    """
    Check one connection.

    :param conn_id: Id of an Airflow connection of type ``procore`` or ``workflowsoft``.
    """

    def __init__(self, conn_id: str):
        self.conn_id = conn_id
        self.conn_type: str | None = None
        self._steps: tuple[Step, ...] = tuple(Step(name, "connection", str) for name in FIRST_STEPS[1:])
        self._halted = False

    def checks(self) -> Iterator[Check]:
        """Yield the checks one by one as they are done; all are ``ok`` if the connection has no problem."""
        done = {"connection": self._check(Step("connection", "", self._connection))}
        yield done["connection"]
        for step in self._steps:
            if self._halted:
                check = Check(step.name, SKIPPED, "not checked: rate-limited by the server")
            elif done[step.after].status in (FAILED, SKIPPED):
                check = Check(step.name, SKIPPED, f"not checked: {_cause(step.after, done, self._steps)} failed")
            else:
                check = self._check(step)
            done[step.name] = check
            yield check

    def _check(self, step: Step) -> Check:
        try:
            return Check(step.name, OK, printable(step.run()))
        except Fault as fault:
            return Check(step.name, fault.status, printable(str(fault)), printable(fault.fix))
        except WorkflowsError as error:
            self._halted = isinstance(error, RateLimited)
            return Check(step.name, FAILED, printable(text_of(error)), printable(fix_of(error, step.fix)))

    def _connection(self) -> str:
        connection = find_connection(self.conn_id)
        self.conn_type = connection.conn_type
        if (problem := type_problem(self.conn_id, connection.conn_type, *CHECKS)) is not None:
            raise Fault(*problem)
        checks = CHECKS[str(connection.conn_type)]
        if not isinstance(connection.extra_dejson, dict):
            raise Fault("The extra is not a JSON object.", 'Set it to an object, such as {"company_id": "1"}.')
        self._steps = checks(self.conn_id, connection).steps()
        variable = _variable(self.conn_id)
        origin = f"the variable {variable}" if variable in os.environ else "a secrets backend or the metadata database"
        return f"type {connection.conn_type}, from {origin}"


CHECKS: dict[str, Callable[[str, Connection], ProcoreChecks | WorkflowsoftChecks]] = {
    "procore": ProcoreChecks,
    "workflowsoft": WorkflowsoftChecks,
}


def find_connection(conn_id: str) -> Connection:
    """
    Look a connection up as the hooks do.

    :raises Fault: Airflow has no such connection, or cannot read it.
    """
    try:
        return BaseHook.get_connection(conn_id)
    except Exception as error:  # a secrets backend may raise anything
        problem = lookup_problem(conn_id, error)
        kind = type(error).__name__
    if problem is None:  # an error of a secrets backend
        raise Fault(f"Airflow cannot look up connection {conn_id!r} ({kind}).", SETTINGS_FIX)
    detail, fix = problem
    raise Fault(detail, fix if _variable(conn_id) in os.environ else f"{fix} {SETTINGS_FIX}")


def _variable(conn_id: str) -> str:
    return f"AIRFLOW_CONN_{conn_id.upper()}"


def _cause(name: str, done: Mapping[str, Check], steps: tuple[Step, ...]) -> str:
    """Return the failed step because of which a step was skipped."""
    while done[name].status == SKIPPED:
        name = next(step.after for step in steps if step.name == name)
    return name
