"""Whether anything of a call was sent, on real sockets: handshakes and proxies that fail, idle connections."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from airflow_provider_workflows.client import http
from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.client.retry import Idempotency, RetryPolicy
from airflow_provider_workflows.exceptions import ConnectionFailed, OutcomeUnknown

EVERY_CALL = pytest.mark.parametrize("idempotency", list(Idempotency))
TWICE = RetryPolicy(attempts=2, first_wait=0.0)
ALERT = b"\x15\x03\x03\x00\x02\x02\x28"  # handshake_failure, fatal
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Serve = Callable[[socket.socket, bytes], None]


class Listener:
    """Passes each connection, with its first bytes, to a function."""

    def __init__(self, serve: Serve):
        self._serve = serve
        self.connections = 0
        self.open = threading.Event()  # until the test is over
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._serve(connection, connection.recv(2**16))

    def close(self) -> None:
        self.open.set()
        self._socket.shutdown(socket.SHUT_RDWR)  # closing alone does not end a thread that waits in accept()
        self._socket.close()


@pytest.fixture
def listen() -> Iterator[Callable[[Serve], Listener]]:
    listeners: list[Listener] = []

    def listen(serve: Serve) -> Listener:
        listeners.append(Listener(serve))
        return listeners[-1]

    yield listen
    for listener in listeners:
        listener.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


HANDSHAKES: dict[str, Serve] = {
    "closed": lambda connection, _: connection.close(),
    "reset": lambda connection, _: reset(connection),
    "alerted": lambda connection, _: connection.sendall(ALERT),
    "silent": lambda connection, _: bool(connection.recv(1)),  # until the client gives up
}


@pytest.mark.sample(3)
@EVERY_CALL
@pytest.mark.parametrize("handshake", HANDSHAKES)
def test_a_handshake_that_fails_is_tried_again(listen, handshake, idempotency):
    server = listen(HANDSHAKES[handshake])
    client = RestClient(f"https://127.0.0.1:{server.port}", retry=TWICE, timeout=0.3)

    with pytest.raises(ConnectionFailed):
        client.call("POST", "/x", idempotency=idempotency)
    assert server.connections == 2


def test_a_silent_handshake_ends_with_the_time_to_connect(listen, monkeypatch):
    monkeypatch.setattr(http, "CONNECT_TIMEOUT", 0.2)
    server = listen(HANDSHAKES["silent"])
    client = RestClient(f"https://127.0.0.1:{server.port}", retry=RetryPolicy.none(), timeout=3600)

    with pytest.raises(ConnectionFailed):
        client.call("POST", "/x", idempotency=Idempotency.UNSAFE)


TOKEN_REJECTIONS = {
    "407": b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
    "502": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno",
    "503": b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n",
    "nothing": b"",
    "a tunnel that is closed": b"HTTP/1.1 200 Connection established\r\n\r\n",
}


@EVERY_CALL
@pytest.mark.parametrize("rejection", TOKEN_REJECTIONS)
def test_a_call_without_a_proxy_tunnel_is_retried(listen, rejection, idempotency):
    connects: list[bytes] = []

    def reject(connection: socket.socket, received: bytes) -> None:
        connects.append(received)
        connection.sendall(TOKEN_REJECTIONS[rejection])

    proxy = listen(reject)
    proxies = {"https": f"http://127.0.0.1:{proxy.port}"}
    client = RestClient("https://api.example.com", retry=TWICE, proxies=proxies, timeout=2)

    with pytest.raises(ConnectionFailed):
        client.call("POST", "/x", idempotency=idempotency)
    assert [request.split(b" ", 1)[0] for request in connects] == [b"CONNECT"] * 2


def test_call_dropped_by_a_proxy_is_an_unknown_outcome(listen):
    proxy = listen(lambda connection, _: connection.close())
    client = RestClient("http://api.example.com", retry=TWICE, proxies={"http": f"http://127.0.0.1:{proxy.port}"})

    with pytest.raises(OutcomeUnknown):
        client.call("POST", "/x", idempotency=Idempotency.UNSAFE)
    assert proxy.connections == 1


def test_an_error_in_handling_does_not_affect_the_next_call(listen):
    """An operator can call again while it handles a call of which nothing was sent."""
    server = listen(lambda connection, _: connection.close())
    closed = socket.create_server(("127.0.0.1", 0))
    unreachable = RestClient(f"http://127.0.0.1:{closed.getsockname()[1]}", retry=RetryPolicy.none())
    closed.close()

    def call_again() -> None:
        try:
            unreachable.get("/x")
        except ConnectionFailed:
            RestClient(f"http://127.0.0.1:{server.port}", retry=TWICE).call(
                "POST", "/x", idempotency=Idempotency.UNSAFE
            )

    with pytest.raises(OutcomeUnknown):
        call_again()
    assert server.connections == 1


@pytest.fixture
def drops_idle(listen) -> Listener:
    """A server behind a device that silently drops a connection after its first call."""

    def serve(connection: socket.socket, received: bytes) -> None:
        connection.sendall(OK)
        if connection.recv(2**16):
            reset(connection)

    return listen(serve)


@pytest.mark.parametrize(("idle", "connections"), [(0.5, 1), (10.0, 2), (4000.0, 2)])
def test_an_unsafe_call_goes_out_on_no_connection_that_was_idle(drops_idle, monkeypatch, idle, connections):
    now = [1000.0]
    monkeypatch.setattr(http, "time", SimpleNamespace(monotonic=lambda: now[0], time=http.time.time))
    client = RestClient(f"http://127.0.0.1:{drops_idle.port}", retry=TWICE)

    client.get("/x")
    now[0] += idle
    with contextlib.nullcontext() if connections == 2 else pytest.raises(OutcomeUnknown):
        client.call("POST", "/x", idempotency=Idempotency.UNSAFE)

    assert drops_idle.connections == connections


def test_calls_that_follow_one_another_share_a_connection(listen):
    def serve(connection: socket.socket, received: bytes) -> None:
        while received:
            connection.sendall(OK)
            received = connection.recv(2**16)

    server = listen(serve)
    client = RestClient(f"http://127.0.0.1:{server.port}")

    for idempotency in (Idempotency.SAFE, Idempotency.UNSAFE, Idempotency.UNSAFE, Idempotency.SAFE):
        client.call("POST", "/x", idempotency=idempotency)
    client.close()
    assert server.connections == 1
