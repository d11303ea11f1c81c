"""Successful responses: parse their JSON, yield their rows, and raise an error if they are malformed."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_workflows import json_text
from airflow_provider_workflows.client.error_mapping import html_text, request_id, truncated
from airflow_provider_workflows.exceptions import (
    ApiError,
    UnexpectedResponse,
)

MAX_RESPONSE_DEPTH = 100  # of nested lists and objects; deeper values would exceed the recursion limit later


@dataclass(frozen=True)
class ApiResponse:
    """
    Hold a successful response.

    :param body: Decoded, and within the size limit.
    :param scrub: Removes secrets from a text.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    method: str
    path: str
    scrub: Callable[[str], str] = field(default=str, repr=False, compare=False)

    @property
    def call(self) -> dict[str, Any]:
        """The call and its status, as an :class:`ApiError` names them."""
        return {
            "method": self.method,
            "path": self.path,
            "status_code": self.status,
            "request_id": request_id(self.headers, self.scrub),
        }

    def json(self, *, exact: bool = False) -> Any:
        """
        Return the parsed body, or None if it is empty.

        :param exact: Read numbers with a fraction as ``Decimal`` instead of ``float``.
        :raises UnexpectedResponse: the body is not JSON, or nested too deeply.
        """
        if not self.body.strip():
            return None
        try:
            parsed = json_text.parse(self.body.decode("utf-8-sig"), exact=exact)
        except (ValueError, RecursionError):
            raise self._malformed("The response is not JSON") from None
        if _is_too_deep(parsed):
            raise self._malformed("The response is nested too deeply")
        return parsed

    def rows(self, key: str | None = None) -> Iterator[dict[str, Any]]:
        """
        Yield the objects of a list one by one, and decode each only when it is needed.

        Decoding thousands at once would block all other threads and slow down the garbage collector.

        :param key: Key of the list in the body; None if the body is the list.
        :raises UnexpectedResponse: the list is missing or is not a list of objects.
        """
        try:
            for row in _elements(self.body.decode("utf-8-sig"), key):
                if not isinstance(row, dict) or _is_too_deep(row):
                    raise ValueError
                yield row
        except (ValueError, IndexError, RecursionError):
            raise self._malformed("The response is not a list of objects") from None

    def reject_page(self, error: type[ApiError] = UnexpectedResponse) -> None:
        """
        Reject an HTML page; for responses whose format is not documented.

        :param error: Class of the error.
        """
        if self.body.removeprefix(BOM_UTF8).lstrip()[:1] == b"<":
            raise self._malformed("The response is an HTML page, possibly a sign-in page", error)

    def _malformed(self, problem: str, error: type[ApiError] = UnexpectedResponse) -> ApiError:
        content_type = self.headers.get("Content-Type", "no content type")
        return error(
            f"{problem} ({self.scrub(content_type)})",
            server_message=self.scrub(html_text(truncated(self.body)) or ""),
            **self.call,
        )


def _elements(text: str, key: str | None) -> Iterator[Any]:
    """Yield the elements of a list in a JSON text one by one; raise ValueError or IndexError if there is no list."""
    decode = json_text.decoder(text).raw_decode
    text = json_text.storable(text)
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
    """Return whether parsed JSON is nested more deeply than allowed, level by level: this must not recurse."""
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
