"""
Both products on this machine, for testing DAGs without an account.

``python -m airflow_provider_workflows.emulator`` runs it; in a test it is a context manager::

    with Emulator() as emulator:
        emulator.url
        emulator.control("POST", "clock", advance=3600)
"""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import uvicorn

__all__ = ["Emulator"]


class Emulator:
    """
    An emulator on a free port of this machine while the ``with`` block lasts.

    :param seed: What is there at the start: ``default``, ``large`` or ``huge``.
    """

    def __init__(self, seed: str = "default"):
        self.seed = seed
        self.url = ""
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def attach(cls, url: str) -> Emulator:
        """Return the same interface to an emulator that runs elsewhere."""
        emulator = cls()
        emulator.url = url.rstrip("/")
        return emulator

    def __enter__(self) -> Emulator:
        self._server = server(self.seed)
        listener = listening_socket("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        self.control("GET", "clock")  # the socket listens already, so this waits until the server answers
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.should_exit = True
        self._thread.join(10)

    def control(self, method: str, path: str, /, **body: Any) -> Any:
        """
        Call a control route.

        :param method: HTTP method.
        :param path: Path below ``/_emulator/``.
        :param body: Fields of the JSON body; of a GET, its query.
        :return: The parsed answer.
        :raises RuntimeError: it was refused; the message holds the answer.
        """
        query = "?" + urllib.parse.urlencode(body) if method == "GET" and body else ""
        request = urllib.request.Request(  # noqa: S310  the URL is this emulator's own
            f"{self.url}/_emulator/{path}{query}",
            method=method,
            data=None if method == "GET" else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            # No proxy: this is always a server on this machine.
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            raise RuntimeError(f"{method} {path} answered {refused.code}: {refused.read().decode()}") from None

    def connection(self, conn_type: str) -> dict[str, Any]:
        """Return the Airflow connection of a product, ``procore`` or ``workflowsoft``, as a dict."""
        found: dict[str, Any] = self.control("GET", "connections")[f"{conn_type}_default"]
        return found

    def effects(self) -> list[dict[str, Any]]:
        """Return everything that was changed, in order."""
        found: list[dict[str, Any]] = self.control("GET", "effects")
        return found

    def requests(self, since: int = 0) -> list[dict[str, Any]]:
        """Return the requests the products were sent, in order, without the control routes."""
        found: list[dict[str, Any]] = self.control("GET", "requests", since=since)
        return found


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    # asyncio does so only for sockets it made itself; without it an answer takes 40 ms longer.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def server(seed: str) -> uvicorn.Server:
    """Return an emulator as a uvicorn server that does not run yet."""
    import uvicorn

    from .app import Emulated

    config = uvicorn.Config(
        Emulated(seed),
        log_level="critical",
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        date_header=False,  # answers have the time of the emulator's own clock
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)
