"""How a page of a list names the next one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import requests.utils

from airflow_provider_workflows.client.pagination import Signs
from airflow_provider_workflows.client.response import ApiResponse
from airflow_provider_workflows.diagnostics.contract_check.recording import Reading
from airflow_provider_workflows.exceptions import UnexpectedResponse

# Places of a cursor in the envelope, by the side that they show.
CURSORS = {
    "body_meta_next_cursor": ("meta", "next_cursor"),
    "body_pagination_next_cursor": ("pagination", "next_cursor"),
    "body_next_page_token": ("next_page_token",),
    "body_pagination_cursor": ("pagination", "cursor"),
    "body_page_info_end_cursor": ("page_info", "end_cursor"),
    "body_meta_cursors_after": ("meta", "cursors", "after"),
    "body_links_next": ("links", "next"),
}


def cursor_sides(reading: Reading) -> Iterator[str]:
    """Yield each known place in which a page of instances names the next one, other than by a page number."""
    for link in requests.utils.parse_header_links(reading.headers.get("Link", "")):
        url = urljoin(reading.url, link.get("url", ""))
        before, after = (parse_qs(urlsplit(text).query) for text in (reading.url, url))
        is_cursor = any(before.get(name) != value for name, value in after.items() if name not in ("page", "per_page"))
        if "next" in link.get("rel", "").lower().split() and is_cursor:
            is_same = urlsplit(url)[:2] == urlsplit(reading.url)[:2]
            yield "link_header" if is_same else "link_other_host"
    if reading.headers.get("X-Next-Cursor"):
        yield "header_next_cursor"
    for side, path in CURSORS.items():
        if _at(reading.json, *path):
            yield side
    if _at(reading.json, "has_more") is True:
        yield "body_has_more"
    pages = _at(reading.json, "meta", "total_pages")
    if isinstance(pages, int) and pages > 1:
        yield "body_total_pages"


def signs_of(reading: Reading) -> Signs | None:
    """Return what a page says about the rest of its list, as this package reads it; None if it cannot be read."""
    response = ApiResponse(reading.status, reading.headers, reading.body, reading.method, reading.path)
    try:
        return Signs.of(response, reading.json, reading.url, {*reading.query, "per_page"} - {"page"})
    except UnexpectedResponse:
        return None


def names_page(reading: Reading) -> bool:
    """Return whether a page names the next one by its number."""
    signs = signs_of(reading)
    return signs is not None and any(set(place) == {"page"} for place in signs.places)


def has_next(reading: Reading) -> bool:
    """Return whether a page says in any known way that there are more."""
    signs = signs_of(reading)
    if signs is None:
        return True
    has_cursor = bool(signs.cursors) and signs.more is not False
    return bool(signs.places or signs.unknown or signs.more or has_cursor) or signs.pages > 1


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
