"""What only a real socket can do to a call: cut off, hang up, say too much, and respond before or after its turn."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest

from airflow_provider_workflows.client.auth import TokenAuth
from airflow_provider_workflows.client.http import MAX_RESPONSE_BYTES
from airflow_provider_workflows.exceptions import (
    NOTHING_DONE,
    AuthenticationError,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.hooks.procore import ProcoreHook
from tests.robustness.hostile.calls import FOLLOWS, POLLS
from tests.robustness.hostile.conftest import connections_to
from tests.robustness.hostile.responses import PAGE, UNPACKS_BY_THE_PIECE
from tests.robustness.hostile.server import HostileServer, Send, closing, endless, head, raw, whole
from tests.robustness.hostile.test_hooks import EACH

BOMB = gzip.compress(b"0" * 2**26, 1)
BOMB_IN_A_BOMB = gzip.compress(gzip.compress(b"0" * 2**26))
CHUNKED = {"Transfer_Encoding": "chunked"}
JSON = b'{"data": []}'


def kinds(elsewhere: str) -> dict[str, Send]:
    return {
        "nothing": closing(),
        "half a status line": closing(b"HTTP/1.1 2"),
        "no HTTP": closing(b"SSH-2.0-OpenSSH_9.2\r\n"),
        "a status that is no number": closing(b"HTTP/1.1 abc OK\r\n\r\n"),
        "half a header": closing(b"HTTP/1.1 200 OK\r\nContent-Le"),
        "a header that is none": closing(b"HTTP/1.1 200 OK\r\n\x00\xff\r\n\r\n"),
        "200 headers": closing(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
        "a header of 100,000 letters": closing(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"),
        "less than its length": closing(head(Content_Length="100"), JSON),
        "more than its length": closing(head(Content_Length="2"), JSON),
        "two lengths": closing(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 12\r\n\r\n", JSON),
        "a length that is no number": closing(head(Content_Length="many"), JSON),
        "a length below zero": closing(head(Content_Length="-1"), JSON),
        "a chunk that is cut off": closing(head(**CHUNKED), b"ff\r\n{"),
        "chunks without an end": closing(head(**CHUNKED), b"2\r\n{}\r\n"),
        "a chunk of no size": closing(head(**CHUNKED), b"zz\r\n{}\r\n"),
        "gzip that is none": raw(whole(JSON, Content_Encoding="gzip")),
        "gzip that is cut off": closing(whole(gzip.compress(JSON)[:-6], Content_Encoding="gzip")),
        "an encoding of many": raw(whole(JSON, Content_Encoding=", ".join(["gzip"] * 50))),
        "100 and a page": raw(head("100 Continue") * 3, whole(PAGE, Content_Type="text/html")),
        "101": raw(head("101 Switching Protocols", Upgrade="websocket")),
        "103 and a response": raw(head("103 Early Hints"), whole(JSON)),
        "a redirect to itself": raw(whole(b"", "302 Found", Location="")),
        "a redirect to another host": raw(whole(PAGE, "307 Temporary Redirect", Location=elsewhere)),
        "a redirect without a place": raw(whole(b"", "301 Moved Permanently")),
        "304": raw(head("304 Not Modified")),
    }


@EACH
def test_broken_socket_is_a_typed_error_and_sends_once(call, connect):
    problems = {}
    with HostileServer(raw(whole(b""))) as elsewhere:
        for name, send in kinds(elsewhere.url).items():
            with HostileServer(send) as server:
                connect(connections_to(server.url, signing_in=False))
                TokenAuth._shared.clear()
                ProcoreHook._tools.clear()
                hook = call.hook()
                error: WorkflowsError | None = None
                try:
                    call.made(hook)
                except WorkflowsError as typed:
                    error = typed
                except Exception as bare:
                    problems[name] = repr(bare)
                finally:
                    hook.close()
                if call.writes and len(server.requests) != 1:
                    problems[name] = f"sent {len(server.requests)} times"
                shows_sign_in = str(call) == POLLS and isinstance(error, AuthenticationError)
                if call.writes and isinstance(error, NOTHING_DONE) and not shows_sign_in:
                    problems[name] = f"{error!r} would say that nothing was done"
        assert elsewhere.requests == [] or str(call) == FOLLOWS
    assert problems == {}


def test_late_response_is_not_read_as_the_next_one(connect):
    """A server says 103 first, and sends the response proper when the next request is there."""
    accepted = []

    def hint(connection):
        accepted.append(connection)
        connection.sendall(head("103 Early Hints"))

    def late(connection):
        if connection in accepted:
            connection.sendall(whole(b'{"data": {"id": "of the first call"}}'))
        connection.sendall(whole(b'{"data": {"id": "of the second call"}}'))

    with HostileServer(hint, late) as server:
        connect(connections_to(server.url, signing_in=False))
        hook = ProcoreHook()
        with pytest.raises(UnexpectedResponse):
            hook.get_instance("1", project_id="1001")
        assert hook.get_instance("2", project_id="1001") == {"id": "of the second call"}
        hook.close()


MEMORY = {
    "a gzip bomb": raw(whole(BOMB, Content_Encoding="gzip")),
    "a gzip bomb in a gzip bomb": raw(whole(BOMB_IN_A_BOMB, Content_Encoding="gzip, gzip")),
    "a redirect that is a bomb": raw(whole(BOMB, "302 Found", Location="/x", Content_Encoding="gzip")),
    "an error that is a bomb": raw(whole(BOMB, "500 Oops", Content_Encoding="gzip")),
    "a body without an end": endless(head(), b"x" * 2**16),
    "an error of many words": raw(whole(b"ab " * (10 * 2**20), "422 No")),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("send", MEMORY.values(), ids=MEMORY)
def test_response_of_any_size_takes_bounded_memory(connect, request, send):
    if "bomb" in request.node.name and not UNPACKS_BY_THE_PIECE:
        pytest.skip("urllib3 before 2.6 unpacks a bomb whole")
    with HostileServer(send) as server:
        connect(connections_to(server.url, signing_in=False))
        hook = ProcoreHook()
        hook.get_conn()
        tracemalloc.start()
        try:
            with pytest.raises(WorkflowsError):
                hook.get_instance("1", project_id="1001")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            hook.close()

    assert peak < 3 * MAX_RESPONSE_BYTES
