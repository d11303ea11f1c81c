"""How far a request to replace an assignee is, and what Procore could not do for it."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

PROCESSING, UPCOMING, ACTIVE, EXPIRED = "processing", "upcoming", "active", "expired"
FAILED = frozenset({"failed", "stopped"})
OVER = frozenset({"completed", EXPIRED, *FAILED})
DOCUMENTED = frozenset({PROCESSING, UPCOMING, ACTIVE, *OVER})
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SEPARATORS = ",;\t"
# Whether the list of errors begins with the names of its columns is not documented, nor what they are. A row of these
# words names columns; any other row is a failure, for one too many is better than the only one lost.
COLUMN_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        assignee assignees at code column company date description detail details entity error errors failure field
        group id ids instance item kind line link login manager message messages name new no number object of old preset
        project reason record resource role row status step subtype template text time title tool type url user uuid
        value workflow
        """,
    )
)


def status_of(request: Mapping[str, Any]) -> str | None:
    """Return the status of a request in lower case, as the documents spell it, or None where it shows none."""
    status = request.get("status")
    return None if status is None else str(status).strip().casefold()


def failures_in(report: bytes) -> list[list[str]]:
    """
    Return the rows of a list of errors, without the one that names its columns, if it has one.

    :param report: The CSV file as Procore has it, in whatever encoding.
    """
    text = _decoded(report).replace("\0", "")
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error:  # such as a cell that is too long
        rows = [[line] for line in text.splitlines()]
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    return rows[1:] if rows and _names_columns(rows[0]) else rows


def is_empty(report: bytes) -> bool:
    """Tell whether a list of errors has nothing in it, not even names of columns."""
    return not _decoded(report).strip("\0 \t\r\n")


def _decoded(report: bytes) -> str:
    for mark, encoding in BOMS:
        if report.startswith(mark):
            return report.decode(encoding, "replace")
    if report[:2].count(0) == 1:  # without a mark, but no other encoding has such zeros
        return report.decode("utf-16-be" if report[0] == 0 else "utf-16-le", "replace")
    try:
        return report.decode()
    except UnicodeDecodeError:
        return report.decode("cp1252", "replace")


def _names_columns(row: Sequence[str]) -> bool:
    """Tell whether most cells of a row are made of words that name columns, and none holds an id or nothing."""
    names = [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cell) for cell in row]
    words = [re.findall(r"[^\W_]+", name.casefold()) for name in names]
    if not all(words) or any(any(map(str.isdecimal, text)) for cell in words for text in cell):
        return False
    named = [cell for cell in words if COLUMN_WORDS.issuperset(cell)]
    return 2 * len(named) > len(words)
