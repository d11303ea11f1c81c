"""Paths whose ids stay one segment."""

from __future__ import annotations

from urllib.parse import quote

from airflow_provider_workflows.client.pagination import HALF_A_PAIR
from airflow_provider_workflows.exceptions import (
    ConfigurationError,
)


def build_path(template: str, *ids: object) -> str:
    """
    Fill ids into a path so that each stays one segment, whatever it holds.

    :param template: The path with ``{}`` for each id.
    :param ids: The ids.
    :raises ConfigurationError: an id is empty, neither text nor a whole number, or would climb the path.
    """
    segments = []
    for value in ids:
        if value is not None and type(value) is not int and not isinstance(value, str):
            raise ConfigurationError(f"An id of {template} is neither text nor a whole number: {value!r}.")
        text = "" if value is None else str(value)
        if text.strip(" .") == "" or HALF_A_PAIR.search(text):
            raise ConfigurationError(f"An id of {template} is empty or not an id: {text!r}.")
        segments.append(quote(text, safe=""))
    return template.format(*segments)
