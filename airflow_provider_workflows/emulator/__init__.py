"""
Emulate Procore and Workflowsoft on this machine, so that DAGs can be tested without an account.

``python -m airflow_provider_workflows.emulator`` runs it. In a test it is a context manager::

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
    Run an emulator on a free port of this machine for the duration of a ``with`` block.

    :param seed: The initial data: ``default``, ``large`` or ``huge``.
    """

    def __init__(self, seed: str = "default"):
        self.seed = seed
        self.url = ""
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def attach(cls, url: str) -> Emulator:
        """Return the same interface to an emulator that is already running at ``url``."""
        emulator = cls()
        emulator.url = url.rstrip("/")
        return emulator

    def __enter__(self) -> Emulator:
        self._server = server(self.seed)
        listener = listening_socket("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        self.control("GET", "clock")  # the socket already listens, so this call waits for the server
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
        :param body: Members of the JSON body; query parameters of a GET.
        :return: The parsed response.
        :raises RuntimeError: The emulator rejected the call; the message contains the response.
        """
        query = "?" + urllib.parse.urlencode(body) if method == "GET" and body else ""
        request = urllib.request.Request(  # noqa: S310  the URL is this emulator's own
            f"{self.url}/_emulator/{path}{query}",
            method=method,
            data=None if method == "GET" else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            # The emulator runs on this machine, so no proxy is used.
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path} returned {error.code}: {error.read().decode()}") from None

    def connection(self, conn_type: str) -> dict[str, Any]:
        """Return the Airflow connection of a product, ``procore`` or ``workflowsoft``, as a dict."""
        found: dict[str, Any] = self.control("GET", "connections")[f"{conn_type}_default"]
        return found

    def effects(self) -> list[dict[str, Any]]:
        """Return all changes, in order."""
        found: list[dict[str, Any]] = self.control("GET", "effects")
        return found

    def requests(self, since: int = 0) -> list[dict[str, Any]]:
        """Return the requests to the emulated APIs, in order, without calls of control routes."""
        found: list[dict[str, Any]] = self.control("GET", "requests", since=since)
        return found


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address. Port 0 selects a free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    # asyncio sets this only on sockets of its own. Without it, a response takes 40 ms longer.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def server(seed: str) -> uvicorn.Server:
    """Return an emulator as a uvicorn server that is not running yet."""
    import uvicorn

    from .app import EmulatorApp

    config = uvicorn.Config(
        EmulatorApp(seed),
        log_level="critical",
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        date_header=False,  # responses carry the time of the emulator's own clock
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)
