"""The results of a contract check as text, as JSON, and as a report without anything of the tenant's own."""

from __future__ import annotations

import json
import platform
import textwrap
from collections.abc import Iterator
from typing import Any

from airflow_provider_workflows import __version__
from airflow_provider_workflows.diagnostics.contract_check.check import CheckedContract, Finding
from airflow_provider_workflows.diagnostics.contract_check.outcomes import (
    CANNOT_BE_READ,
    NOT_SEEN,
    SEEN,
    UNEXPECTED,
)
from airflow_provider_workflows.diagnostics.contract_check.pseudonyms import Pseudonyms
from airflow_provider_workflows.diagnostics.open_questions import PRODUCTS
from airflow_provider_workflows.diagnostics.texts import counted, printable

HEADINGS = {
    UNEXPECTED: "Unexpected: this package may not read it rightly",
    SEEN: "Seen",
    NOT_SEEN: "Not seen: the tenant has nothing to tell by",
    CANNOT_BE_READ: "Cannot be found by reading",
}
NAME_WIDTH = 26
MAX_VALUES = 5


def lines(checked: CheckedContract, width: int) -> Iterator[str]:
    """
    Yield the lines of the text.

    :param width: Columns of the terminal.
    """
    yield f"Connection {printable(checked.conn_id)}"
    if checked.problem:
        yield from ("", *textwrap.wrap(f"FAILED: {printable(checked.problem)}", width))
    for result, heading in HEADINGS.items():
        found = [finding for finding in checked.findings if finding.outcome.result == result]
        if found:
            yield from ("", f"{heading} ({len(found)})")
            for finding in found:
                yield from _of_finding(finding, width)
    numbers = [sum(f.outcome.result == result for f in checked.findings) for result in (SEEN, UNEXPECTED, NOT_SEEN)]
    yield ""
    yield (
        f"{counted(len(checked.findings), 'question')}: {numbers[0]} seen, {numbers[1]} unexpected, "
        f"{numbers[2]} not seen; {counted(checked.requests, 'request')}."
    )


def _of_finding(finding: Finding, width: int) -> Iterator[str]:
    outcome = finding.outcome
    answer = f"{finding.answer} [{outcome.side}]; " if finding.answer and outcome.side != finding.answer else ""
    if not answer and outcome.side is not None:
        answer = f"{outcome.side}; "
    named = ", ".join(map(printable, outcome.values[:MAX_VALUES]))
    text = f"{answer}{outcome.detail}{': ' + named if named else ''}"
    wrapped = textwrap.wrap(text, max(width - NAME_WIDTH - 2, 30), break_on_hyphens=False) or [""]
    yield f"  {finding.question.flag:<{NAME_WIDTH - 1}} {wrapped[0]}"
    for line in wrapped[1:]:
        yield " " * (NAME_WIDTH + 2) + line


def as_dict(checked: CheckedContract) -> dict[str, Any]:
    """Return the results as one JSON object."""
    return {
        "connection": checked.conn_id,
        "type": checked.conn_type,
        "ok": checked.is_ok,
        "problem": checked.problem,
        "requests": checked.requests,
        "findings": [
            {**_common(finding), "detail": finding.outcome.detail, "values": list(finding.outcome.values)}
            for finding in checked.findings
        ],
    }


def anonymous(checked: CheckedContract) -> str:
    """Return the report as JSON text: the findings, and the structure of each response."""
    pseudonyms = Pseudonyms()
    report = {
        "report": "airflow-workflows contract-check",
        "package": __version__,
        "python": platform.python_version(),
        "type": checked.conn_type,
        "is_complete": not checked.problem,
        "requests": checked.requests,
        "findings": [
            {
                **_common(finding),
                "detail": finding.outcome.detail,
                "values": [pseudonyms.member(value) for value in finding.outcome.values],
            }
            for finding in checked.findings
        ],
        "responses": [pseudonyms.response(reading) for reading in checked.records.readings],
    }
    return json.dumps(report, indent=2, default=str) + "\n"


def _common(finding: Finding) -> dict[str, Any]:
    question = finding.question
    return {
        "product": PRODUCTS[question.product],
        "question": question.question,
        "flag": question.flag,
        "result": finding.outcome.result,
        "side": finding.outcome.side,
        "answer": finding.answer,
    }
