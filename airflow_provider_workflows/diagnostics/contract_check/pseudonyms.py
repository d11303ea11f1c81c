"""Replace all names, ids, texts and times of a tenant, so that only the structure of its responses is left."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_workflows.diagnostics.contract_check import documented
from airflow_provider_workflows.diagnostics.contract_check.recording import Reading

MAX_ROWS = 3  # of a list; the others are counted
MAX_EVENTS = 12  # of a history, whose order matters
ID = re.compile(r"(^|_)(id|uuid|key|login)s?$|I[dD]s?$")
TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?|/Date\(\d+\)/")
# Parameters whose values are the check's own.
OWN_PARAMETERS = frozenset(
    {
        "per_page",
        "page",
        "limit",
        "mode",
        "entityType",
        "integration",
        "Query",
        "searchTerm",
        "filters[active]",
        "filters[status]",
    }
)


class Pseudonyms:
    """Give each text and id one pseudonym, which is the same wherever it occurs in a report."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}

    def response(self, reading: Reading) -> dict[str, Any]:
        """Return what a report shows of a response."""
        return {
            "read": reading.name,
            "method": reading.method,
            "path": reading.path,
            "query": {
                name: value if name in OWN_PARAMETERS else self.value(_inner(name), value)
                for name, value in reading.query.items()
                if value is not None
            },
            "status": reading.status,
            "headers": self._headers(reading.headers),
            "body": self._body(reading),
        }

    def member(self, name: str) -> str:
        """Return a member's name, or its pseudonym if a customer could have chosen it."""
        return name if documented.is_technical(name) else f"<member {self._letters('member', name)}>"

    def value(self, name: str, value: Any) -> Any:
        """
        Return a value with everything replaced that is not the API's own.

        :param name: Name of its member.
        """
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Mapping):
            return {self.member(str(key)): self.value(str(key), item) for key, item in value.items()}
        if isinstance(value, list):
            shown = MAX_EVENTS if name == "history" else MAX_ROWS
            rest = [f"<more: {len(value) - shown}>"] if len(value) > shown else []
            return [self.value(name, item) for item in value[:shown]] + rest
        if not isinstance(value, str):
            return f"<number {self._letters('id', str(value))}>" if ID.search(name) else "<number>"
        return self._text(name, value)

    def _text(self, name: str, text: str) -> str:
        if text == "" or text.lower() in documented.WORDS:
            return text
        if TIME.fullmatch(text):
            return re.sub(r"\d", "9", text)
        if name.lower() == "type" and text.removeprefix("System.").rstrip("?").lower() in _FIELD_TYPES:
            return text
        if name.lower() == "valuejson":
            try:
                return json.dumps(self.value("value", json.loads(text)))
            except (ValueError, RecursionError):
                pass
        if ID.search(name):
            return f"<id {self._letters('id', text)}>"
        return f"<text {self._letters('text', text)}>"

    def _letters(self, kind: str, text: str) -> str:
        """Return the letters of a text: A, B, ..., Z, AA, ...; digits could be taken for an id."""
        known = self._known.setdefault(kind, {})
        if text not in known:
            number, letters = len(known) + 1, ""
            while number:
                number, rest = divmod(number - 1, 26)
                letters = chr(ord("A") + rest) + letters
            known[text] = letters
        return known[text]

    def _headers(self, headers: Mapping[str, str]) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for name, value in headers.items():
            plain = name.lower()
            if plain == "content-type":
                media = value.partition(";")[0].strip().lower()
                shown[plain] = media if media in documented.CONTENT_TYPES else "<text>"
            elif plain == "link":
                shown[plain] = [self._link(link) for link in value.split(",")]
            elif plain in documented.HEADERS:
                is_word = value.lower() in documented.WORDS or value == ""
                shown[plain] = value if is_word else "<number>" if value.isdecimal() else "<text>"
        return shown

    def _link(self, link: str) -> str:
        relation = re.search(r'rel="?(next|prev|first|last)\b', link)
        names = [self.member(name) for name in re.findall(r"[?&]([^=&>]+)=", link) if name.isidentifier()]
        return f"<{'&'.join(names)}>; rel={relation[1] if relation else '?'}"

    def _body(self, reading: Reading) -> Any:
        if not reading.body.strip():
            return ""
        if reading.json is None and reading.body.strip() != b"null":
            return "<page>" if reading.body.lstrip()[:1] == b"<" else "<text>"
        return self.value("", reading.json)


_FIELD_TYPES = {name.lower() for name in documented.FIELD_TYPES}


def _inner(name: str) -> str:
    """Return the name of what a filter compares: ``item_id`` of ``filters[item_id]``."""
    return name.removeprefix("filters[").rstrip("[]")
