"""A server on a real socket that sends, byte for byte, what the test says."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable

Send = Callable[[socket.socket], None]


class HostileServer:
    """
    Accepts every sign-in, and responds to the other requests in order as its script says.

    :param script: What is sent to each request; the last one again and again.
    """

    def __init__(self, *script: Send):
        self.script = script
        self.requests: list[bytes] = []  # the first line of each, without those that sign in
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> HostileServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # closing alone does not end a thread that waits in accept()
        self._listener.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as stream:
            while line := stream.readline():
                size = 0
                while (header := stream.readline()).strip():
                    found = re.match(rb"(?i)content-length: *(\d+)", header)
                    size = int(found[1]) if found else size
                stream.read(size)
                self.requests.append(line)
                self.script[min(len(self.requests), len(self.script)) - 1](connection)


def raw(*pieces: bytes | float) -> Send:
    """Send pieces as they are; a number is a sleep in seconds, after which the client may be gone."""

    def send(connection: socket.socket) -> None:
        for piece in pieces:
            if isinstance(piece, bytes):
                connection.sendall(piece)
            else:
                time.sleep(piece)

    return send


def closing(*pieces: bytes) -> Send:
    """Send pieces and hang up."""

    def send(connection: socket.socket) -> None:
        raw(*pieces)(connection)
        connection.shutdown(socket.SHUT_RDWR)

    return send


def head(status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def whole(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    return head(status, Content_Length=str(len(body)), **headers) + body


def endless(first: bytes, piece: bytes) -> Send:
    """Send a first piece, then another again and again, until the client is gone."""

    def send(connection: socket.socket) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(piece)

    return send
