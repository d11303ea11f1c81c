"""A successful response: its JSON, its rows, and what makes it malformed."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import simplejson

from airflow_provider_workflows.client.error_mapping import beginning, html_text, request_id
from airflow_provider_workflows.exceptions import (
    ApiError,
    UnexpectedResponse,
)

MAX_RESPONSE_DEPTH = 100  # lists and objects in one another; what is deeper breaks whatever goes through it later


@dataclass(frozen=True)
class ApiResponse:
    """A successful answer; ``body`` is decoded and within the size limit, ``scrub`` takes secrets out of words."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    method: str
    path: str
    scrub: Callable[[str], str] = field(default=str, repr=False, compare=False)

    def json(self, *, exact: bool = False) -> Any:
        """
        Return the parsed body, None when it is empty.

        :param exact: Read numbers with a fraction as ``Decimal`` instead of ``float``.
        :raises UnexpectedResponse: it is not JSON, or too deep.
        """
        if not self.body.strip():
            return None
        try:
            parsed = simplejson.loads(self.body.decode("utf-8-sig"), use_decimal=exact)
        except (ValueError, RecursionError):
            raise self._malformed("The answer is not JSON") from None
        if _is_too_deep(parsed):
            raise self._malformed("The answer is too deep")
        return parsed

    def rows(self, key: str | None = None) -> Iterator[dict[str, Any]]:
        """
        Yield the objects of a list one by one, each decoded when it is asked for.

        Decoding thousands at once would stop all other threads, and leave the garbage collector a heap to search.

        :param key: Under which the body, an object, holds the list; None where the body is the list.
        :raises UnexpectedResponse: it is not a list of objects.
        """
        try:
            for row in _elements(self.body.decode("utf-8-sig"), key):
                if not isinstance(row, dict) or _is_too_deep(row):
                    raise ValueError
                yield row
        except (ValueError, IndexError, RecursionError):
            raise self._malformed("The answer is not a list of objects") from None

    def reject_page(self, error: type[ApiError] = UnexpectedResponse) -> None:
        """
        Require an answer of the API where its form is not documented: a page for people is none.

        :param error: What to raise.
        """
        if self.body.removeprefix(BOM_UTF8).lstrip()[:1] == b"<":
            raise self._malformed("The answer is a page, perhaps to sign in", error)

    def _malformed(self, words: str, error: type[ApiError] = UnexpectedResponse) -> ApiError:
        kind = self.headers.get("Content-Type", "no content type")
        return error(
            f"{words} ({self.scrub(kind)})",
            method=self.method,
            path=self.path,
            status_code=self.status,
            request_id=request_id(self.headers, self.scrub),
            server_message=self.scrub(html_text(beginning(self.body)) or ""),
        )


def _elements(text: str, key: str | None) -> Iterator[Any]:
    """Yield the elements of a list in a JSON text, one by one; ValueError or IndexError where there is none."""
    decode = simplejson.JSONDecoder().raw_decode
    at = _next_sign(text, 0, "[" if key is None else "{")
    if key is not None:
        while True:
            name, at = decode(text, at)
            at = _next_sign(text, at, ":")
            if name == key:
                at = _next_sign(text, at, "[")
                break
            _, at = decode(text, at)
            at = _next_sign(text, at, ",")
    while text[at] != "]":
        element, at = decode(text, at)
        yield element
        at = _skip_spaces(text, at)
        if text[at] != "]":
            at = _next_sign(text, at, ",")
            if text[at] == "]":
                raise ValueError
    if key is None and text[at + 1 :].strip():
        raise ValueError


def _next_sign(text: str, at: int, sign: str) -> int:
    at = _skip_spaces(text, at)
    if text[at] != sign:
        raise ValueError
    return _skip_spaces(text, at + 1)


def _skip_spaces(text: str, at: int) -> int:
    while text[at] in " \t\n\r":
        at += 1
    return at


def _is_too_deep(value: Any) -> bool:
    """Tell whether parsed JSON lies deeper than any documented answer; level by level, for this must not recurse."""
    containers = {dict, list}
    level = [value] if type(value) in containers else []
    for _ in range(MAX_RESPONSE_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in containers
        ]
        if not level:
            return False
    return True
