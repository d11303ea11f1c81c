"""Check one connection: read the tenant, run the probes, and put their outcomes beside the open questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_workflows.diagnostics.checks import MAX_CALL_SECONDS, Fault, OneAttempt
from airflow_provider_workflows.diagnostics.contract_check import (
    history_probes,
    procore_legacy_probes,
    procore_probes,
    workflowsoft_probes,
)
from airflow_provider_workflows.diagnostics.contract_check.outcomes import (
    CANNOT_BE_READ,
    SEEN,
    UNEXPECTED,
    Outcome,
    Probe,
    not_seen,
)
from airflow_provider_workflows.diagnostics.contract_check.procore_reader import ProcoreReader
from airflow_provider_workflows.diagnostics.contract_check.recording import Reader, Recorder, Records
from airflow_provider_workflows.diagnostics.contract_check.workflowsoft_reader import WorkflowsoftReader
from airflow_provider_workflows.diagnostics.diagnosis import find_connection
from airflow_provider_workflows.diagnostics.open_questions import OpenQuestion, open_questions
from airflow_provider_workflows.exceptions import ConfigurationError, WorkflowsError
from airflow_provider_workflows.hooks.base import WorkflowsHook, type_problem
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.version_compat import mask_secret

PROBES: Mapping[str, Probe] = {
    **procore_probes.PROBES,
    **history_probes.PROBES,
    **procore_legacy_probes.PROBES,
    **workflowsoft_probes.PROBES,
}
NUMBERS = ("token_lifetime", "spike_limit", "hourly_limit")  # flags
PRODUCTS = {"procore": ("procore", "procore_legacy"), "workflowsoft": ("workflowsoft",)}  # by connection type


@dataclass(frozen=True)
class Finding:
    """
    Hold what the check found for one open question.

    :param question: The question.
    :param outcome: Its result is ``seen``, ``not_seen``, ``unexpected`` or ``cannot_be_read``.
    """

    question: OpenQuestion
    outcome: Outcome

    @property
    def answer(self) -> str | None:
        """The side in words; None if no side was seen."""
        side = self.outcome.side
        if side is None:
            return None
        return self.question.sides.get(side, side)

    @property
    def takes_number(self) -> bool:
        """Whether the sides are examples of numbers, of which any may be found; statuses are not."""
        return self.question.flag in NUMBERS


@dataclass(frozen=True)
class CheckedContract:
    """
    Hold the result of a contract check.

    :param findings: One for each open question of the connection's products, in the order of the table.
    :param problem: Why the tenant was not read, or not to the end; "" if it was.
    :param requests: Number of requests that were sent.
    """

    conn_id: str
    conn_type: str | None
    findings: Sequence[Finding]
    problem: str
    requests: int
    records: Records

    @property
    def is_ok(self) -> bool:
        """Whether everything was read and nothing is unexpected."""
        return not self.problem and not any(f.outcome.result == UNEXPECTED for f in self.findings)

    def emulator_flags(self) -> dict[str, str | int]:
        """Return the behaviour flags that make the emulator take the sides that were seen."""
        return {
            f.question.flag: int(f.outcome.side) if f.takes_number else f.outcome.side
            for f in self.findings
            if f.outcome.result == SEEN and f.outcome.side is not None
        }


def check_contract(
    conn_id: str, instance_ids: Sequence[str] = (), *, sleep: Callable[[float], None] = time.sleep
) -> CheckedContract:
    """
    Read the tenant of a connection, and find which side of each open question it takes.

    :param conn_id: Id of an Airflow connection of type ``procore`` or ``workflowsoft``.
    :param instance_ids: Ids of open integration instances of Workflowsoft whose fields are read.
    :param sleep: Waits a number of seconds, to stay below the rate limit.
    """
    recorder = Recorder(sleep)
    reader: Reader | None = None
    conn_type, problem = None, ""
    hook: WorkflowsHook | None = None
    try:
        connection = find_connection(conn_id)
        conn_type = connection.conn_type
        if (wrong_type := type_problem(conn_id, conn_type, *PRODUCTS)) is not None:
            raise ConfigurationError(" ".join(wrong_type))
        if instance_ids and conn_type != "workflowsoft":
            raise ConfigurationError("--instance-id is for connections of type workflowsoft.")
        hook = ProcoreHook(conn_id) if conn_type == "procore" else WorkflowsoftHook(conn_id)
        hook._client = hook._build(
            connection,
            connection.extra_dejson,
            OneAttempt(),
            mask_secret,
            max_timeout=MAX_CALL_SECONDS / 2,
            observer=recorder,
        )
        hook.start_dry_run()  # the client itself rejects a change, too
        reader = Reader(hook.client, recorder)
        _read(hook, reader, list(instance_ids))
        problem = reader.stopped
    except Fault as fault:
        problem = f"{fault} {fault.fix}"
    except WorkflowsError as error:
        problem = str(error)
    finally:
        if hook is not None:
            hook.close()
    records = Records() if reader is None else reader.records
    questions = open_questions(*PRODUCTS[conn_type]) if conn_type in PRODUCTS else []
    findings = [Finding(question, _outcome(question, records)) for question in questions]
    return CheckedContract(conn_id, conn_type, findings, problem, recorder.sent, records)


def _read(hook: Any, reader: Reader, instance_ids: list[str]) -> None:
    if isinstance(hook, ProcoreHook):
        ProcoreReader(reader, hook).read()
    else:
        WorkflowsoftReader(reader, hook, instance_ids).read()


def _outcome(question: OpenQuestion, records: Records) -> Outcome:
    if question.cannot_be_read is not None:
        return Outcome(CANNOT_BE_READ, None, question.cannot_be_read)
    outcome = PROBES[question.flag](records)
    finding = Finding(question, outcome)
    if outcome.side is not None and outcome.side not in question.sides and not finding.takes_number:
        return Outcome(UNEXPECTED, None, f"{outcome.detail}: {outcome.side}", outcome.values)
    if outcome.side is not None and question.sides.get(outcome.side, "") is None:
        return not_seen("the question does not arise here")
    return outcome
