"""The command ``airflow-workflows contract-check``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any


def add_contract_check_command(commands: Any) -> None:
    """Add the command to the sub-parsers of ``airflow-workflows``."""
    parser = commands.add_parser(
        "contract-check",
        help="find which side of each open question a tenant takes",
        description="Find, by reading only, which side of each undocumented behaviour the tenant of a connection "
        "takes. Exits with 0 if everything was read and every side is known, 1 if a side is unexpected or something "
        "could not be read, 2 if the arguments are invalid.",
    )
    parser.add_argument("conn_id", metavar="CONN_ID", help="id of an Airflow connection, such as procore_default")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    output.add_argument(
        "--emulator-flags",
        action="store_true",
        help="print the behaviour flags that make the emulator behave like this tenant, as JSON",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        type=Path,
        help="also write a report for a bug report, in which all names, ids and texts are replaced",
    )
    parser.add_argument(
        "--instance-id",
        metavar="ID",
        action="append",
        default=[],
        help="Workflowsoft: an open integration instance whose fields may be read; may be repeated",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, out: Any) -> bool:
    """Check a connection and print the results; return whether something is unexpected or could not be read."""
    from airflow_provider_workflows.diagnostics.contract_check import report
    from airflow_provider_workflows.diagnostics.contract_check.check import check_contract

    if options.report is not None and not _may_write(options.report):
        message = f"--report: {options.report} cannot be written. Name a file in a folder that exists."
        print(f"airflow-workflows contract-check: {message}", file=sys.stderr)
        raise SystemExit(2)
    checked = check_contract(options.conn_id, options.instance_id)
    if options.report is not None:  # before the results, whose reader may close the pipe
        options.report.write_text(report.anonymous(checked), encoding="utf-8")
    if options.json:
        print(json.dumps(report.as_dict(checked), indent=2), file=out)
    elif options.emulator_flags:
        print(json.dumps(checked.emulator_flags(), indent=2), file=out)
        if checked.problem:
            print(f"airflow-workflows contract-check: {checked.problem}", file=sys.stderr)
    else:
        for line in report.lines(checked, shutil.get_terminal_size().columns):
            print(line, file=out)
    return not checked.is_ok


def _may_write(path: Path) -> bool:
    place = path if path.exists() else path.absolute().parent
    return not path.is_dir() and place.exists() and os.access(place, os.W_OK)
