"""Find the texts of an error that a server has returned, with an error's status or in a successful response."""

from __future__ import annotations

from typing import Any

# Members of an error that have its texts, in the order in which a message names them.
ERROR_TEXTS = (
    "message",
    "detail",  # of a ProblemDetails object (RFC 9457)
    "exceptionmessage",
    "error_description",
    "error",
    "errors",
    "errormessage",
    "exception",
    "reason",
    "details",
    "fields",
    "modelstate",
    "innerexception",
)


def error_texts(error: Any) -> list[str]:
    """Return the texts of an error of any known format; those of unknown members have the member's name before them."""
    if isinstance(error, (str, int, float)) and not isinstance(error, bool):
        return [str(error)] if str(error) else []
    if isinstance(error, list):
        return [text for item in error for text in error_texts(item)]
    if not isinstance(error, dict):
        return []
    named = {str(name).lower(): value for name, value in error.items()}
    stated = [texts for name in ERROR_TEXTS if (texts := error_texts(named.get(name)))]
    if stated:
        return [text for texts in stated for text in texts]
    return [f"{name}: {', '.join(texts)}" for name, value in error.items() if (texts := error_texts(value))]
