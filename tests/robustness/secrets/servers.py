"""Untrusted servers: one that repeats every text that it is sent, and one that represents another host."""

from __future__ import annotations

import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit


class Server(ThreadingHTTPServer):
    """A server on a free port of this machine while the ``with`` block lasts, and what it was sent."""

    daemon_threads = True
    handler: type[BaseHTTPRequestHandler]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.received: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def respond_to_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.sent = self.rfile.read(length).decode("utf-8", "replace")
        self.server.received.append(
            {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": self.sent}
        )
        self.respond()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond_to_any

    def respond(self) -> None:
        raise NotImplementedError

    def send_json(self, status: int, body: Any, **headers: str) -> None:
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class OtherHost(Server):
    """Takes everything it is sent, like a storage that needs no token."""

    class handler(_Handler):
        def respond(self) -> None:
            self.send_json(200, {}, ETag='"etag"')


class Hostile(Server):
    """
    Gives a token to everybody, and then does what the first piece of the path says.

    :param other: Another host, to send clients to.
    """

    class handler(_Handler):
        def respond(self) -> None:
            _, kind, path = urlsplit(self.path).path.split("/", 2)
            if path == "oauth/token" and kind == "rejecting":
                self.send_json(401, {"error": "invalid_client", "error_description": f"Unknown client {self.sent}"})
            elif path == "api/v2/app/apitoken" and kind == "rejecting":
                self.repeat(401)
            elif path in ("oauth/token", "api/v2/app/apitoken"):
                token = self.server.issue()
                self.send_json(200, {"result": {"secret": token}} if kind == "malformed" else {"access_token": token})
            else:
                getattr(self, kind)(path)

        def repeat(self, status: int) -> None:
            """Send the caller its whole request, in each form that an error can have."""
            lines = [f"{name}: {value}" for name, value in self.headers.items()]
            _, _, credentials = self.headers.get("Authorization", "").partition(" ")
            fields = {name: [value] for name, value in self.headers.items()}
            bodies = {
                401: {"got": lines, "credentials": credentials, "body": self.sent},
                422: {"message": f"bad token {credentials}", "errors": {**fields, "token": [credentials]}},
                500: "\n".join([self.requestline, *lines, credentials, self.sent]),
            }
            self.send_json(status, bodies[status])

        def unauthorized(self, path: str) -> None:
            self.repeat(401)

        def invalid(self, path: str) -> None:
            self.repeat(422)

        def failing(self, path: str) -> None:
            self.repeat(500)

        def moved(self, path: str) -> None:
            self.send_json(302, "", Location=f"{self.server.other.url}/{path}")

        def linking(self, path: str) -> None:
            self.send_json(200, [{"id": 1}], Link=f'<{self.server.other.url}/{path}?page=2>; rel="next"')

        def lost(self, path: str) -> None:
            self.close_connection = True

        def later(self, path: str) -> None:
            """Serve the first pokes of a sensor, and reject those that follow."""
            responses = {
                "api/v2/workflows": [{"Id": "1", "Title": "Diagram"}],
                "api/v2/workflows/1/tasks": [{"Id": "2", "Title": "Step"}],
                "api/v2/workflows/instances/new-integrations": [],
            }
            operation = {
                "data": {"id": path.rpartition("/")[2], "operation_type": "bulk_create", "status": "processing"}
            }
            if self.server.count(self.path) > 1 and ("async" in path or "new-int" in path):
                self.repeat(401)
            else:
                self.send_json(200, responses.get(path, operation))

    def __init__(self, other: OtherHost):
        super().__init__()
        self.other = other
        self.tokens: list[str] = []

    def issue(self) -> str:
        self.tokens.append(secrets.token_urlsafe(24))
        return self.tokens[-1]

    def count(self, path: str) -> int:
        return sum(request["path"] == path for request in self.received)
