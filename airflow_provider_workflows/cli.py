"""The command line tool ``airflow-workflows``: the checks of a connection and its contract, instances, a report."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.diagnostics.contract_check.command import add_contract_check_command
from airflow_provider_workflows.reports.command import add_report_command

if TYPE_CHECKING:
    from rich.console import Console

    from airflow_provider_workflows.diagnostics.checks import Check
    from airflow_provider_workflows.diagnostics.diagnosis import Diagnosis
    from airflow_provider_workflows.diagnostics.legacy_readiness import LegacyReadiness
    from airflow_provider_workflows.diagnostics.waiting import Waiting

LABELS = {"ok": ("ok", "green"), "failed": ("FAILED", "bold red"), "warning": ("warning", "yellow")}
NOT_CHECKED = ("-", "dim")
INDENT = 21  # columns in front of a check's detail


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0 if nothing failed, else 1. Invalid arguments exit with 2."""
    options = _parser().parse_args(arguments)
    # Without this, Airflow 3.1 and newer look a connection up as a task does, without the metadata database.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    out = sys.stdout
    # Airflow logs to the standard output, which is reserved for the command's own.
    with contextlib.redirect_stdout(sys.stderr):
        return int(options.run(options, out))


def _doctor(options: argparse.Namespace, out: Any) -> bool:
    """Print the checks of a connection; return whether one has failed."""
    from airflow_provider_workflows.diagnostics.diagnosis import Diagnosis

    diagnosis = Diagnosis(options.conn_id)
    checks = _as_json(diagnosis, out) if options.json else _as_text(diagnosis, out)
    return any(check.status == "failed" for check in checks)


def _waiting(options: argparse.Namespace, out: Any) -> bool:
    """Print the active instances of a connection; return whether some could not be read."""
    from airflow_provider_workflows.diagnostics.waiting import Waiting

    filters = {"user": options.user, "overdue": options.overdue, "tools": options.tool, "projects": options.project}
    waiting = Waiting(options.conn_id, **filters).read()
    _print_report(waiting, options, out)
    return waiting.has_failed


def _legacy_readiness(options: argparse.Namespace, out: Any) -> bool:
    """Print what an upgrade to Workflows v2 would do; return whether an instance would be stuck, or may be."""
    from airflow_provider_workflows.diagnostics.legacy_readiness import LegacyReadiness

    readiness = LegacyReadiness(options.conn_id, tools=options.tool, projects=options.project).read()
    _print_report(readiness, options, out)
    return not readiness.is_ready


def _print_report(report: Waiting | LegacyReadiness, options: argparse.Namespace, out: Any) -> None:
    if options.json:
        print(json.dumps(report.to_dict(), indent=2), file=out)
    else:
        for line in report.lines():
            print(line, file=out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="airflow-workflows", description="Helps with airflow-provider-workflows.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    doctor = commands.add_parser(
        "doctor",
        help="check a connection step by step",
        description="Check a connection to Procore or Workflowsoft step by step and print how to fix each problem. "
        "Only reads. Exits with 0 if no check failed, 1 if a check failed, 2 if the arguments are invalid.",
    )
    doctor.set_defaults(run=_doctor)
    waiting = commands.add_parser(
        "waiting",
        help="list active instances and whom they are pending with",
        description="List every active workflow instance of a connection with its step and pending assignees. Only "
        "reads. Exits with 0 if nothing failed, 1 if something could not be read, 2 if the arguments are invalid.",
    )
    waiting.add_argument("--user", help="only instances pending with this user: login, e-mail address or id")
    waiting.add_argument("--overdue", action="store_true", help="only instances whose step is overdue")
    waiting.add_argument("--tool", action="append", default=[], help="only this tool; may be repeated; default: all")
    waiting.add_argument(
        "--project", action="append", default=[], help="only this project; may be repeated; default: the connection's"
    )
    waiting.set_defaults(run=_waiting)
    readiness = commands.add_parser(
        "legacy-readiness",
        help="say which Legacy instances an upgrade to Workflows v2 would leave stuck",
        description="Count the running Legacy instances of each project and tool: those with a valid default preset in "
        "Workflows v2, and those that an upgrade would leave stuck. Only reads. Exits with 0 if all have such a "
        "preset, 1 if some would be or may be stuck or something could not be read, 2 if the arguments are invalid.",
    )
    readiness.add_argument(
        "--tool", action="append", default=[], help="only this tool, by its name in Legacy or v2; may be repeated"
    )
    readiness.add_argument("--project", action="append", default=[], help="only this project; may be repeated")
    readiness.set_defaults(run=_legacy_readiness)
    for command in (doctor, waiting, readiness):
        command.add_argument("conn_id", metavar="CONN_ID", help="id of an Airflow connection, such as procore_default")
        command.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    add_contract_check_command(commands)
    add_report_command(commands)
    return parser


def _as_json(diagnosis: Diagnosis, out: Any) -> list[Check]:
    checks = list(diagnosis.checks())
    report = {
        "connection": diagnosis.conn_id,
        "type": diagnosis.conn_type,
        "ok": all(check.status != "failed" for check in checks),
        "checks": [asdict(check) for check in checks],
    }
    print(json.dumps(report, indent=2), file=out)
    return checks


def _as_text(diagnosis: Diagnosis, out: Any) -> list[Check]:
    from rich.console import Console

    console = Console(file=out, highlight=False, markup=False, emoji=False)
    console.print(f"Connection {diagnosis.conn_id}\n", soft_wrap=True)
    checks = []
    for check in diagnosis.checks():
        checks.append(check)
        _print(console, check)
    failed, warnings, skipped = (
        sum(check.status == status for check in checks) for status in ("failed", "warning", "skipped")
    )
    summary = f"{failed} failed, {warnings} warning{'' if warnings == 1 else 's'}, {skipped} not checked"
    console.print(f"\n{len(checks)} checks: {summary}.")
    return checks


def _print(console: Console, check: Check) -> None:
    from rich.text import Text

    label, style = LABELS.get(check.status, NOT_CHECKED)
    width = max(console.width - INDENT, 30)
    texts = [check.detail, *([f"Fix: {check.fix}"] if check.fix else [])]
    first, *others = (line for text in texts for line in textwrap.wrap(text, width, break_on_hyphens=False))
    console.print(Text.assemble(f"{check.name:<12}", (f"{label:<9}", style), first), soft_wrap=True)
    for line in others:
        console.print(" " * INDENT + line, soft_wrap=True)
