"""
Write the tables of the documentation that are made from data; ``make generate`` runs it.

Each file in ``docs/open-questions`` lists what one product's documents leave open. A row has:

question: What is not documented, as the end of the sentence "It is not documented ...".
sides: The plausible answers, each in a few words.
reading: What this package does, whichever side is true.
flags: The emulator's behaviour flags that take each of these sides.
tests: The tests that run with each side, as ``file::function``; a test that is parametrized counts once.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from airflow_provider_workflows.emulator.behaviour_flags import BEHAVIOUR_FLAGS

DOCS = Path(__file__).parent
PRODUCTS = {"procore": "Procore v2", "procore_legacy": "Procore Legacy", "workflowsoft": "Workflowsoft"}


def questions() -> list[dict[str, Any]]:
    """Return the open questions of all products."""
    return [
        {"product": title, **row}
        for name, title in PRODUCTS.items()
        for row in yaml.safe_load((DOCS / "open-questions" / f"{name}.yaml").read_text())
    ]


def table_of_questions() -> str:
    rows = [
        "| product | what is not documented | plausible answers | what this package does | behaviour flag |",
        "|---|---|---|---|---|",
    ]
    for row in questions():
        flags = ", ".join(f"`{flag}`" for flag in row["flags"])
        rows.append(
            f"| {row['product']} | {row['question']} | {'; '.join(row['sides'])} | {row['reading']} | {flags} |"
        )
    return "\n".join(rows)


def table_of_flags() -> str:
    rows = ["| behaviour flag | values | why |", "|---|---|---|"]
    rows += [f"| `{name}` | {flag.allowed} | {flag.why} |" for name, flag in BEHAVIOUR_FLAGS.items()]
    return "\n".join(rows)


TABLES = {
    "contract-gaps.md": {"open-questions": table_of_questions},
    "emulator.md": {"behaviour-flags": table_of_flags},
}


def pages() -> dict[Path, str]:
    """Return each page with a generated table, as it must be."""
    written: dict[Path, str] = {}
    for page, tables in TABLES.items():
        text = (DOCS / page).read_text()
        for name, table in tables.items():
            begin, end = f"<!-- generated: {name} -->\n", "<!-- end of generated -->"
            found = re.search(f"{re.escape(begin)}.*?{re.escape(end)}", text, re.DOTALL)
            if found is None:
                sys.exit(f"docs/{page} has no place for the table {name!r}.")
            text = text.replace(found[0], f"{begin}\n{table()}\n\n{end}")
        written[DOCS / page] = text
    return written


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text)
