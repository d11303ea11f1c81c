"""Good responses, recorded from the emulator once, and a server that plays them back with one of them spoiled."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPHeaderDict, HTTPResponse

Route = tuple[str, str]


@dataclass(frozen=True)
class Exchange:
    """One response of a server, and the route of the request."""

    route: Route
    status: int
    headers: Mapping[str, str]
    body: bytes

    def but(self, **changes: Any) -> Exchange:
        return replace(self, **changes)


@dataclass
class Server:
    """
    Responds to every request as recorded, except those of one route, and records the routes that were requested.

    :param good: The recorded responses.
    :param spoiled: The route with other responses.
    :param responses: Its responses there, in order; the last one is repeated.
    """

    good: list[Exchange]
    spoiled: Route
    responses: list[Exchange]
    hosts: set[str] = field(default_factory=set)
    trusted: set[str] = field(default_factory=set)  # hosts that were shown the token
    requested: list[Route] = field(default_factory=list)

    def respond(self, request: requests.PreparedRequest) -> Exchange:
        parts = urlsplit(str(request.url))
        route = (str(request.method), parts.path)
        self.hosts.add(parts.netloc)
        if "Authorization" in request.headers:
            self.trusted.add(parts.netloc)
        self.requested.append(route)
        if route == self.spoiled:
            return self.responses[min(self.requested.count(route), len(self.responses)) - 1]
        known = [exchange for exchange in self.good if exchange.route == route]
        nothing = Exchange(route, 404, {}, b'{"error": "not here"}')
        return known[min(self.requested.count(route), len(known)) - 1] if known else nothing


@contextmanager
def served_by(server: Server) -> Iterator[Server]:
    """Let this server respond to every request."""

    def send(adapter: HTTPAdapter, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        exchange = server.respond(request)
        raw = HTTPResponse(
            body=io.BytesIO(exchange.body),
            headers=HTTPHeaderDict(exchange.headers),
            status=exchange.status,
            preload_content=False,
        )
        return adapter.build_response(request, raw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HTTPAdapter, "send", send)
        yield server


@contextmanager
def recorded(into: list[Exchange]) -> Iterator[None]:
    """Record the responses to all requests."""
    send: Callable[..., requests.Response] = HTTPAdapter.send

    def noting(adapter: HTTPAdapter, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        response = send(adapter, request, **settings)
        body = response.content
        headers = {name: value for name, value in response.headers.items() if name.lower() != "content-length"}
        into.append(
            Exchange((str(request.method), urlsplit(str(request.url)).path), response.status_code, headers, body)
        )
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HTTPAdapter, "send", noting)
        yield
