"""
Write the parts of the documentation that come from code and data; ``make generate`` runs it.

Each page says what it takes in, between two comments::

    <!-- generated: KIND ARGUMENTS -->
    <!-- end of generated -->

KIND is a key of ``KINDS``. A page so reads the same on a code host and on the built site.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from airflow_provider_workflows.diagnostics.open_questions import PRODUCTS, open_questions
from airflow_provider_workflows.emulator.behaviour_flags import BEHAVIOUR_FLAGS
from benchmarks import report
from docs import docstrings, navigation
from tests.support import release_check

DOCS = Path(__file__).parent
EXAMPLES = DOCS.parent / "example_dags"
GENERATED = re.compile(
    r"(?P<begin><!-- generated: (?P<kind>[\w-]+) ?(?P<arguments>.*?) -->\n)(?P<text>.*?)<!-- end of generated -->",
    re.DOTALL,
)
SNIPPET_MARK = re.compile(r"^ *# \[(START|END) \w+\]\n", re.MULTILINE)


def table_of_questions() -> str:
    rows = [
        "| product | what is not documented | plausible answers | what this package does | behaviour flag |",
        "|---|---|---|---|---|",
    ]
    rows += [
        f"| {PRODUCTS[row.product]} | {row.question} | {'; '.join(row.answers)} | {row.reading} | `{row.flag}` |"
        for row in open_questions()
    ]
    return "\n".join(rows)


def table_of_flags() -> str:
    rows = ["| behaviour flag | values | why |", "|---|---|---|"]
    rows += [f"| `{name}` | {flag.allowed} | {flag.why} |" for name, flag in BEHAVIOUR_FLAGS.items()]
    return "\n".join(rows)


def code(file: str, *mark: str) -> str:
    """
    Return a part of an example DAG as a block of code, without the marks that delimit it.

    :param file: Name of the file in ``example_dags``.
    :param mark: The name in ``# [START name]`` and ``# [END name]``; or ``from`` and the text of the line to start at.
    """
    text = (EXAMPLES / file).read_text()
    if mark[0] == "from":
        start = text.index(" ".join(mark[1:]))
        end = len(text)
    else:
        start = text.index(f"# [START {mark[0]}]\n")
        end = text.index(f"# [END {mark[0]}]\n")
    lines = text[text.rfind("\n", 0, start) + 1 : text.rfind("\n", 0, end) + 1]
    shown = re.sub(r"\n{3,}(?= )", "\n\n", SNIPPET_MARK.sub("", lines))
    return f"```python\n{textwrap.dedent(shown).strip()}\n```"


def measured() -> str:
    """Return what the last stored benchmark measured."""
    return report.tables(json.loads((DOCS.parent / report.RESULTS).read_text())).strip()


KINDS: dict[str, Callable[..., str]] = {
    "open-questions": table_of_questions,
    "behaviour-flags": table_of_flags,
    "code": code,
    "measured": measured,
    "parameters": docstrings.parameters,
    "function": docstrings.function,
    "members": docstrings.members,
    "errors": docstrings.errors,
    "release-checklist": release_check.checklist,
}


def pages() -> list[Path]:
    """Return the pages that can have generated parts."""
    return [*sorted(DOCS.rglob("*.md")), DOCS.parent / "CONTRIBUTING.md"]


def generated(page: Path) -> str:
    """Return the text of a page with its generated parts as they must be."""

    to_docs = "../" * (len(page.relative_to(DOCS).parts) - 1) if page.is_relative_to(DOCS) else "docs/"

    def renew(found: re.Match[str]) -> str:
        try:
            kind = KINDS[found["kind"]]
            options = {"to_docs": to_docs} if "to_docs" in inspect.signature(kind).parameters else {}
            text = kind(*found["arguments"].split(), **options)
        except (KeyError, ValueError, FileNotFoundError) as error:
            sys.exit(
                f"{page.relative_to(DOCS.parent)}: cannot generate {found['kind']} {found['arguments']}: {error!r}"
            )
        return f"{found['begin']}\n{text}\n\n<!-- end of generated -->"

    return GENERATED.sub(renew, page.read_text())


if __name__ == "__main__":
    for page in pages():
        page.write_text(generated(page))
    (DOCS / "llms.txt").write_text(navigation.llms_txt())
