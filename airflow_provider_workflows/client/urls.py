"""Build paths from ids that come from users, so that no id can change which endpoint is called."""

from __future__ import annotations

import re
from urllib.parse import quote

from airflow_provider_workflows.exceptions import ConfigurationError

LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # which no URL can contain


def build_path(template: str, *ids: object) -> str:
    """
    Fill ids into a path so that each stays one segment.

    :param template: The path with ``{}`` for each id.
    :param ids: The ids.
    :raises ConfigurationError: an id is empty, only dots, or neither text nor a whole number.
    """
    segments = []
    for value in ids:
        if value is not None and type(value) is not int and not isinstance(value, str):
            raise ConfigurationError(f"An id in {template} must be text or a whole number; got {value!r}.")
        text = "" if value is None else str(value)
        if text.strip(" .") == "" or LONE_SURROGATE.search(text):
            raise ConfigurationError(f"An id in {template} is empty or not a valid id: {text!r}.")
        segments.append(quote(text, safe=""))
    return template.format(*segments)
