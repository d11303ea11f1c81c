"""The status of a request to replace an assignee, and the failures in its CSV file of errors."""

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
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is a prefix of it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SEPARATORS = ",;\t"
# Whether the file starts with a row of column names is not documented, nor are the names. A row of these words counts
# as column names; any other row counts as a failure, because one false failure is better than a lost one.
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
    """Return the status of a request in lower case, as documented, or None if it has no status."""
    status = request.get("status")
    return None if status is None else str(status).strip().casefold()


def failures_in(report: bytes) -> list[list[str]]:
    """
    Return the rows of a file of errors, without its row of column names if it has one.

    :param report: The CSV file, in any encoding.
    """
    text = _decoded(report).replace("\0", "")
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error:  # for example a cell that is too long
        rows = [[line] for line in text.splitlines()]
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    return rows[1:] if rows and _names_columns(rows[0]) else rows


def is_empty(report: bytes) -> bool:
    """Return whether a file of errors is empty, even without column names."""
    return not _decoded(report).strip("\0 \t\r\n")


def _decoded(report: bytes) -> str:
    for mark, encoding in BOMS:
        if report.startswith(mark):
            return report.decode(encoding, "replace")
    if report[:2].count(0) == 1:  # UTF-16 without a mark: no other encoding has such zeros
        return report.decode("utf-16-be" if report[0] == 0 else "utf-16-le", "replace")
    try:
        return report.decode()
    except UnicodeDecodeError:
        return report.decode("cp1252", "replace")


def _names_columns(row: Sequence[str]) -> bool:
    """Return whether most cells of a row consist of words of column names, and no cell is empty or has a digit."""
    names = [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cell) for cell in row]
    words = [re.findall(r"[^\W_]+", name.casefold()) for name in names]
    if not all(words) or any(any(map(str.isdecimal, word)) for cell in words for word in cell):
        return False
    named = [cell for cell in words if COLUMN_WORDS.issuperset(cell)]
    return 2 * len(named) > len(words)
