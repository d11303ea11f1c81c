"""The results of a contract check as text, as JSON, and as a report without anything of the tenant's own."""

from __future__ import annotations

import json
import platform
import textwrap
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

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
    UNEXPECTED: "Unexpected: this package may misread it",
    SEEN: "Seen",
    NOT_SEEN: "Not seen: the tenant shows no evidence",
    CANNOT_BE_READ: "Cannot be found by reading",
}
NAME_WIDTH = 24
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
        found = {f.question.flag: f for f in checked.findings if f.outcome.result == result}
        if found:
            yield from ("", f"{heading} ({len(found)})")
        if result == CANNOT_BE_READ:
            yield from _reasons(list(found.values()), width)
        else:
            for flag, finding in found.items():
                yield from _row(flag, _text(finding), width)
    count = Counter(finding.outcome.result for finding in checked.findings)
    yield ""
    yield (
        f"{counted(len(checked.findings), 'question')}: {count[SEEN]} seen, {count[UNEXPECTED]} unexpected, "
        f"{count[NOT_SEEN]} not seen, {count[CANNOT_BE_READ]} not readable; {counted(checked.requests, 'request')}."
    )


def _reasons(findings: list[Finding], width: int) -> Iterator[str]:
    """Yield each reason once, with the flags that it is for."""
    flags: dict[str, list[str]] = {}
    for finding in findings:
        flags.setdefault(finding.outcome.detail, []).append(finding.question.flag)
    for reason, names in flags.items():
        yield from textwrap.wrap(f"{reason}: {', '.join(names)}", width, initial_indent="  ", subsequent_indent="    ")


def _row(name: str, text: str, width: int) -> Iterator[str]:
    first, *others = textwrap.wrap(text, max(width - NAME_WIDTH - 2, 30), break_on_hyphens=False)
    yield f"  {name:<{NAME_WIDTH - 1}} {first}"
    for line in others:
        yield " " * (NAME_WIDTH + 2) + line


def _text(finding: Finding) -> str:
    """Return the answer, the value of the flag if that says more, and by what it shows."""
    outcome, answer = finding.outcome, finding.answer
    named = ": " + ", ".join(map(printable, outcome.values[:MAX_VALUES])) if outcome.values else ""
    if answer is None:
        return f"{outcome.detail}{named}"
    side = "" if answer == outcome.side else f" [{outcome.side}]"
    return f"{answer}{side}; {outcome.detail}{named}"


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
        "versions": {
            "airflow-provider-workflows": version("airflow-provider-workflows"),
            "apache-airflow": version("apache-airflow"),
            "python": platform.python_version(),
        },
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
