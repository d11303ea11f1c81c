"""The command ``airflow-workflows report``, which needs no Airflow database."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Mapping
from typing import Any

# Option, placeholder and help by parameter of `write_report`, which has the defaults.
OPTIONS: Mapping[str, tuple[str, str, str]] = {
    "tables_path": ("--tables", "DIR", "folder for the tables; default: no tables"),
    "tables_format": ("--tables-format", "FORMAT", "parquet or csv"),
    "time_zone": ("--time-zone", "ZONE", "time zone of the page and of the working hours, such as Europe/Berlin"),
    "country": ("--country", "CODE", "country of the public holidays, such as DE, US-CA; default: no holidays"),
    "working_days": ("--working-days", "DAYS", "such as Sun-Thu"),
    "working_hours": ("--working-hours", "HOURS", "such as 08:00-12:00,13:00-17:00"),
    "as_of": ("--as-of", "TIME", "time up to which open steps are measured, with its zone; default: now"),
    "item_url": ("--item-url", "URL", "pattern of the links to items, such as https://example.com/{item_id}"),
    "object_storage_conn_id": (
        "--conn-id",
        "CONN_ID",
        "Airflow connection to the storage; default: the one in the path",
    ),
}


def add_report_command(commands: Any) -> None:
    """Add the command to the sub-parsers of ``airflow-workflows``."""
    parser = commands.add_parser(
        "report",
        help="report where approvals wait, from exported histories",
        description="Write a page and tables about the waiting times in exported histories of Procore's workflows. "
        "Exits with 0 if the report was written, 1 if it was not, 2 if the arguments are invalid.",
    )
    parser.add_argument("history_path", metavar="HISTORY_PATH", help="folder of the exports: a path, or a URL")
    parser.add_argument("--output", required=True, metavar="FILE", dest="output_path", help="the HTML page to write")
    for name, (option, placeholder, text) in OPTIONS.items():
        parser.add_argument(option, metavar=placeholder, dest=name, default=argparse.SUPPRESS, help=text)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, out: Any) -> bool:
    """Write the report; return whether that failed."""
    from airflow_provider_workflows.exceptions import ConfigurationError
    from airflow_provider_workflows.reports.report_files import write_report

    arguments = {
        name: value for name, value in vars(options).items() if name in inspect.signature(write_report).parameters
    }
    try:
        result = write_report(**arguments)
    except ConfigurationError as error:
        # A message may quote a file, which must not give commands to the terminal.
        text = "".join(letter if letter.isprintable() else " " for letter in str(error))
        print(f"airflow-workflows report: {text}", file=sys.stderr)
        return True
    print(
        f"Instances: {result['instances']}. Step occurrences: {result['step_rows']}, open: {result['open_steps']}. "
        f"Malformed rows, left out: {result['malformed']}.",
        *(f"Wrote {path}" for path in (result["page"], *result["tables"].values())),
        sep="\n",
        file=out,
    )
    return False
