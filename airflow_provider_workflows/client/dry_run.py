"""What a dry run does not send: whether a call changes something, and a description of it without secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import simplejson

from airflow_provider_workflows.client.retry import Idempotency
from airflow_provider_workflows.exceptions import DryRun

READING_METHODS = ("GET", "HEAD")


def changes_something(method: str, idempotency: Idempotency, *, only_reads: bool) -> bool:
    """
    Return whether a call may change something at the server.

    A change that may be sent twice is still a change, and a GET that may not be sent twice consumes what it returns.

    :param only_reads: The call only reads, although its method says otherwise.
    """
    return not only_reads and (method.upper() not in READING_METHODS or idempotency is Idempotency.UNSAFE)


def not_sent(
    method: str,
    path: str,
    *,
    redact: Callable[[str], str],
    params: Mapping[str, Any] | None,
    json: Any,
    form: Mapping[str, str] | None,
    files: Any,
    data: bytes | None,
    headers: Mapping[str, str | None] | None,
) -> DryRun:
    """
    Return the exception that describes a call which a dry run does not send.

    :param redact: Removes secrets from a text.
    :param json: See :meth:`RestClient.call`, as the other parameters.
    """
    if json is not None:
        # Numbers with a fraction as text: the floats of an XCom would round them.
        body = simplejson.loads(simplejson.dumps(json, use_decimal=True), parse_float=str)
    elif files is not None:
        body = {**_hidden(form), **_described(files)}
    elif form is not None:
        body = _hidden(form)
    else:
        body = None if data is None else f"<{len(data)} bytes>"
    query = {name: value for name, value in (params or {}).items() if value is not None}
    return DryRun(
        method=method.upper(),
        path=redact(path),
        body=_redacted(body, redact),
        query=_redacted({name: _text(value) for name, value in query.items()}, redact),
        headers=_redacted({name: value for name, value in (headers or {}).items() if value is not None}, redact),
    )


def _hidden(form: Mapping[str, str] | None) -> dict[str, str]:
    """Return the names of form fields without their values: they are the signature of an upload, or a sign-in."""
    return dict.fromkeys(form or {}, "***")


def _described(files: Any) -> dict[str, Any]:
    """Return the parts of a multipart body: fields as they are, files by name, size and type; a repeated name once."""
    described: dict[str, list[Any]] = {}
    for name, part in files.items() if isinstance(files, Mapping) else files:
        filename, content, *media_type = part if isinstance(part, tuple) else (name, part)
        size = f"{len(content)} bytes" if isinstance(content, (bytes, str)) else "a stream"
        file = f"<file {filename}: {', '.join([size, *map(str, media_type)])}>"
        described.setdefault(name, []).append(content if filename is None else file)
    return {name: parts[0] if len(parts) == 1 else parts for name, parts in described.items()}


def _text(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_text(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(name)): _redacted(item, redact) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(item, redact) for item in value]
    return value
