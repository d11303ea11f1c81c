"""A server that speaks just enough HTTP to break it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

RESET = "reset"


class BrokenServer:
    """Responds to each connection with the next raw response; ``RESET`` closes it without one."""

    def __init__(self) -> None:
        self.responses: list[bytes | str] = []
        self.received: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self.received.append(connection.recv(2**16))
                response = self.responses.pop(0)
                if isinstance(response, bytes):
                    connection.sendall(response)

    def close(self) -> None:
        # Closing alone does not end a thread that waits in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def broken_server() -> Iterator[Callable[..., BrokenServer]]:
    server = BrokenServer()

    def responding_with(*responses: bytes | str) -> BrokenServer:
        server.responses = list(responses)
        return server

    yield responding_with
    server.close()
