"""The HTTP client: what is sent again and what is not, what an error says, where the token goes."""

from __future__ import annotations

import contextlib
import gzip
import io
import socket
import ssl
import threading
from datetime import datetime, timezone
from decimal import Decimal
from email.utils import formatdate
from itertools import count
from types import SimpleNamespace

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import MaxRetryError, NewConnectionError
from urllib3.exceptions import SSLError as TLSError

from airflow_provider_workflows import __version__
from airflow_provider_workflows.client import http
from airflow_provider_workflows.client.auth import TokenAuth
from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.client.rate_limit_headers import RateLimit
from airflow_provider_workflows.client.retry import Idempotency, RetryPolicy
from airflow_provider_workflows.client.token_sources import StaticToken
from airflow_provider_workflows.client.urls import build_path
from airflow_provider_workflows.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    ServerError,
    UnexpectedResponse,
)

BASE = "https://api.example.com"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
EVERY_CALL = pytest.mark.parametrize("idempotency", list(Idempotency))


class Sleeper:
    """Sleeps by moving the clock."""

    def __init__(self, now: float = 1_700_000_000.0):
        self.now = now
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


@pytest.fixture
def sleeper() -> Sleeper:
    return Sleeper()


def client_to(url: str = BASE, sleeper: Sleeper | None = None, **kwargs) -> RestClient:
    sleeper = sleeper or Sleeper()
    return RestClient(url, sleep=sleeper.sleep, clock=sleeper.clock, **kwargs)


def connection_refused() -> requests.exceptions.ConnectionError:
    return requests.exceptions.ConnectionError(NewConnectionError(None, "rejected"))


# --- paths and bodies ---


def test_ids_stay_one_segment_of_the_path():
    assert build_path("/a/{}/b/{}", "7", "x y") == "/a/7/b/x%20y"


@given(st.text())
def test_no_id_can_leave_its_segment(value):
    try:
        filled = build_path("/a/{}/z", value)
    except ConfigurationError:
        assert value.strip(" .") == ""
        return
    segment = filled.removeprefix("/a/").removesuffix("/z")
    assert not set(segment) & set("/?#&\\ \r\n")
    assert segment not in (".", "..", "")


@pytest.mark.parametrize("value", [None, "", " ", ".", ".."])
def test_an_id_that_is_none_is_rejected(value):
    with pytest.raises(ConfigurationError, match="An id in /a/{}"):
        build_path("/a/{}", value)


def test_queries_are_written_as_the_apis_read_them(requests_mock):
    requests_mock.get(BASE + "/x", json={})

    client_to().get("/x", params={"filters[a]": True, "none": None, "ids[]": ["1", "2"], "n": 7})

    assert requests_mock.last_request.url == BASE + "/x?filters%5Ba%5D=true&ids%5B%5D=1&ids%5B%5D=2&n=7"


def test_every_request_names_the_package_and_its_version(requests_mock):
    requests_mock.get(BASE + "/x", json={})

    client_to().get("/x")

    assert requests_mock.last_request.headers["User-Agent"] == f"airflow-provider-workflows/{__version__}"


def test_decimals_are_exact_both_ways(requests_mock):
    requests_mock.post(BASE + "/x", text='{"v": 12345678901234.5678}')

    response = client_to().call(
        "POST", "/x", idempotency=Idempotency.UNSAFE, json={"v": Decimal("12345678901234.5678")}
    )

    assert requests_mock.last_request.text == '{"v": 12345678901234.5678}'
    assert response.json(exact=True) == {"v": Decimal("12345678901234.5678")}


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_number_too_large_for_a_float_stays_text(requests_mock, number):
    requests_mock.get(BASE + "/x", text=f'{{"data": [{{"id": {number}}}]}}')

    assert client_to().get("/x").json() == {"data": [{"id": number}]}
    assert list(client_to().get("/x").rows("data")) == [{"id": number}]


def test_value_without_a_json_form_is_rejected_before_sending(requests_mock):
    for value in (float("nan"), object()):
        with pytest.raises(ConfigurationError, match="cannot be written as JSON"):
            client_to().call("POST", "/x", idempotency=Idempotency.UNSAFE, json={"v": value})
    assert requests_mock.call_count == 0


@pytest.mark.parametrize("status", [200, 404])
def test_servers_clock_is_known_from_its_last_response(requests_mock, sleeper, status):
    client = client_to(sleeper=sleeper)
    assert client.server_time().timestamp() == sleeper.clock()
    requests_mock.get(BASE + "/x", status_code=status, headers={"Date": "Thu, 01 Jan 1970 00:20:00 GMT"})
    requests_mock.get(BASE + "/malformed", status_code=status, headers={"Date": "yesterday"})

    for where in ("/x", "/malformed"):
        with contextlib.suppress(NotFound):
            client.get(where)
    assert client.server_time().timestamp() == 1200


def test_an_empty_response_is_read_as_none(requests_mock):
    requests_mock.get(BASE + "/x", status_code=204)

    assert client_to().get("/x").json() is None


# --- sending again ---


@EVERY_CALL
def test_any_call_is_repeated_when_nothing_was_sent(requests_mock, sleeper, idempotency):
    requests_mock.post(
        BASE + "/x", [{"exc": connection_refused()}, {"exc": requests.exceptions.ConnectTimeout}, {"json": {}}]
    )

    assert client_to(sleeper=sleeper).call("POST", "/x", idempotency=idempotency).status == 200
    assert len(sleeper.slept) == 2


@EVERY_CALL
def test_any_call_is_repeated_after_429_at_the_stated_time(requests_mock, sleeper, idempotency):
    requests_mock.post(BASE + "/x", [{"status_code": 429, "headers": {"Retry-After": "30"}}, {"json": {}}])

    client_to(sleeper=sleeper).call("POST", "/x", idempotency=idempotency)

    assert 30 <= sleeper.slept[0] < 32


def test_503_with_retry_after_is_handled_like_429_for_safe_calls(requests_mock, sleeper):
    requests_mock.post(BASE + "/x", [{"status_code": 503, "headers": {"Retry-After": "3"}}, {"json": {}}])

    assert client_to(sleeper=sleeper).call("POST", "/x", idempotency=Idempotency.SAFE).status == 200


def test_503_to_an_unsafe_call_is_an_unknown_outcome(requests_mock):
    sent = requests_mock.post(BASE + "/x", status_code=503, headers={"Retry-After": "3"})

    with pytest.raises(OutcomeUnknown) as unknown:
        client_to().call("POST", "/x", idempotency=Idempotency.UNSAFE)
    assert (sent.call_count, unknown.value.wait) == (1, 3)


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("/processes/7", OutcomeUnknown),
        ("/account/processes/7", OutcomeUnknown),
        ("", OutcomeUnknown),
        ("http://[bad", OutcomeUnknown),
        ("/account/login?ReturnUrl=%2Fx", AuthenticationError),
        ("https://login.example.com/SignIn.aspx", AuthenticationError),
    ],
)
def test_only_a_redirect_to_a_login_page_rejects_a_write(requests_mock, location, error):
    headers = {"Location": location, "Content-Type": "text/html"}
    requests_mock.post(BASE + "/x", status_code=302, headers=headers, text="<html></html>")

    with pytest.raises(error):
        client_to().call("POST", "/x", idempotency=Idempotency.UNSAFE)


def test_the_later_of_two_stated_times_counts(requests_mock, sleeper):
    headers = {"Retry-After": "5", "X-Rate-Limit-Reset": str(int(sleeper.now) + 40)}
    requests_mock.get(BASE + "/x", [{"status_code": 429, "headers": headers}, {"json": {}}])

    client_to(sleeper=sleeper).get("/x")

    assert 40 <= sleeper.slept[0] < 42


@pytest.mark.parametrize("skew", [-7200, -200, 200, 7200])
@pytest.mark.parametrize(
    "header_for",
    [
        lambda now: {"Retry-After": "5"},
        lambda now: {"X-Rate-Limit-Reset": str(int(now) + 5)},
        lambda now: {"Retry-After": "5", "X-Rate-Limit-Reset": str(int(now) + 5)},
        lambda now: {"Retry-After": formatdate(now + 5, usegmt=True)},
    ],
)
def test_a_wait_is_reckoned_by_the_clock_of_the_server(requests_mock, skew, header_for):
    sleeper = Sleeper()
    headers = {"Date": formatdate(sleeper.now - skew, usegmt=True), **header_for(sleeper.now - skew)}
    requests_mock.get(BASE + "/x", [{"status_code": 429, "headers": headers}, {"json": {}}])

    client_to(sleeper=sleeper).get("/x")

    assert 5 <= sleeper.slept[0] < 7


@pytest.mark.parametrize("skew", [-200, 200])
def test_a_reset_without_a_date_does_not_beat_retry_after(requests_mock, skew):
    sleeper = Sleeper()
    headers = {"Retry-After": "5", "X-Rate-Limit-Reset": str(int(sleeper.now - skew) + 5)}
    requests_mock.get(BASE + "/x", [{"status_code": 429, "headers": headers}, {"json": {}}])

    client_to(sleeper=sleeper).get("/x")

    assert 5 <= sleeper.slept[0] < 7


def test_a_clock_that_is_set_does_not_cut_a_wait_short(requests_mock, monkeypatch):
    """Between the response and the sleep, by 200 seconds."""
    slept: list[float] = []
    wall = [1_700_000_000.0]
    monkeypatch.setattr(http.time, "time", lambda: wall.__setitem__(0, wall[0] + 200) or wall[0])
    requests_mock.get(BASE + "/x", [{"status_code": 429, "headers": {"Retry-After": "5"}}, {"json": {}}])

    RestClient(BASE, sleep=slept.append, clock=http.time.time).get("/x")

    assert 4 < slept[0] < 7


def test_a_rate_limit_lasts_by_the_servers_clock(requests_mock, sleeper):
    served_at = sleeper.now + 7200
    headers = {"X-Rate-Limit-Reset": str(int(served_at) + 9), "Date": formatdate(served_at, usegmt=True)}
    requests_mock.get(BASE + "/x", json={}, headers=headers)
    client = client_to(sleeper=sleeper)

    client.get("/x")

    assert client.rate is not None
    assert client.rate.reset_in == pytest.approx(9, abs=1)


def test_a_retry_after_may_be_a_date_or_nonsense(requests_mock, sleeper):
    at = datetime.fromtimestamp(sleeper.now + 50, timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
    requests_mock.get(
        BASE + "/x",
        [
            {"status_code": 429, "headers": {"Retry-After": at}},
            {"status_code": 429, "headers": {"Retry-After": "soon"}},
            {"json": {}},
        ],
    )

    client_to(sleeper=sleeper).get("/x")

    assert 50 <= sleeper.slept[0] < 52
    assert sleeper.slept[1] < 3


def test_a_stated_wait_that_is_too_long_is_not_shortened(requests_mock, sleeper):
    requests_mock.get(BASE + "/x", status_code=429, headers={"Retry-After": "3600"})

    with pytest.raises(RateLimited) as limited:
        client_to(sleeper=sleeper).get("/x")

    assert limited.value.retry_at.timestamp() == sleeper.now + 3600
    assert "Rate-limited by the server until 2023-11-14T23:13:20Z" in str(limited.value)
    assert (sleeper.slept, requests_mock.call_count) == ([], 1)


@pytest.mark.parametrize("status", [408, 502, 503, 504])
def test_a_call_lost_at_a_gateway_is_repeated_only_if_it_is_safe(requests_mock, status):
    requests_mock.post(BASE + "/x", [{"status_code": status}, {"json": {}}])
    assert client_to().call("POST", "/x", idempotency=Idempotency.SAFE).status == 200

    requests_mock.post(BASE + "/x", status_code=status)
    with pytest.raises(OutcomeUnknown, match=f"returned {status}"):
        client_to().call("POST", "/x", idempotency=Idempotency.UNSAFE)
    assert requests_mock.call_count == 3


@EVERY_CALL
def test_a_500_is_the_servers_own_response_and_is_not_repeated(requests_mock, idempotency):
    requests_mock.post(BASE + "/x", status_code=500, json={"ExceptionMessage": "Field is read-only"})

    with pytest.raises(ServerError, match="Field is read-only"):
        client_to().call("POST", "/x", idempotency=idempotency)
    assert requests_mock.call_count == 1


@pytest.mark.parametrize(
    "lost",
    [
        "reset",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    ],
)
def test_a_lost_response_is_requested_again_only_if_that_is_safe(broken_server, lost):
    server = broken_server(lost, OK)
    assert client_to(server.url).get("/x").status == 200

    server = broken_server(lost, OK)
    with pytest.raises(OutcomeUnknown, match="The response was lost"):
        client_to(server.url).call("POST", "/x", idempotency=Idempotency.UNSAFE)
    assert len(server.responses) == 1


def test_the_attempts_end(requests_mock, sleeper):
    requests_mock.get(BASE + "/x", exc=connection_refused())

    with pytest.raises(ConnectionFailed, match=r"No connection to https://api.example.com"):
        client_to(sleeper=sleeper, retry=RetryPolicy(attempts=3)).get("/x")
    assert requests_mock.call_count == 3


def test_in_a_trigger_a_call_makes_one_attempt(requests_mock, sleeper):
    requests_mock.get(BASE + "/x", status_code=503)

    with pytest.raises(ServerError):
        client_to(sleeper=sleeper, retry=RetryPolicy.none()).get("/x")
    assert (requests_mock.call_count, sleeper.slept) == (1, [])


def tls_failure(cause: ssl.SSLError) -> requests.exceptions.SSLError:
    """Return a TLS error as requests wraps it."""
    return requests.exceptions.SSLError(MaxRetryError(None, "/x", TLSError(cause)))


@EVERY_CALL
def test_an_untrusted_certificate_is_not_tried_again(requests_mock, idempotency):
    requests_mock.post(BASE + "/x", exc=tls_failure(ssl.SSLCertVerificationError(1, "self-signed")))

    with pytest.raises(ConnectionFailed, match="verify"):
        client_to().call("POST", "/x", idempotency=idempotency)
    assert requests_mock.call_count == 1


def test_tls_that_breaks_may_have_broken_after_the_call_was_sent(requests_mock):
    broken = {"exc": tls_failure(ssl.SSLError(1, "bad record mac"))}
    requests_mock.get(BASE + "/x", [broken, {"json": {}}])
    requests_mock.post(BASE + "/x", [broken, {"json": {}}])

    assert client_to().get("/x").status == 200
    with pytest.raises(OutcomeUnknown):
        client_to().call("POST", "/x", idempotency=Idempotency.UNSAFE)


@pytest.mark.parametrize("status", [502, 504, 520, 524])
def test_unsafe_call_lost_by_a_gateway_has_an_unknown_outcome(requests_mock, status):
    requests_mock.post(BASE + "/x", status_code=status)

    with pytest.raises(OutcomeUnknown):
        client_to().call("POST", "/x", idempotency=Idempotency.UNSAFE)
    assert requests_mock.call_count == 1


@pytest.mark.parametrize(("failure", "waited"), [({}, 1), ({"Retry-After": "3"}, 3)])
def test_a_rate_limit_that_is_not_used_up_delays_nothing(requests_mock, sleeper, failure, waited):
    reset = {"X-Rate-Limit-Remaining": "500", "X-Rate-Limit-Reset": str(int(sleeper.now) + 3000)}
    requests_mock.get(BASE + "/x", [{"status_code": 503, "headers": {**reset, **failure}}, {"json": {}}])

    client_to(sleeper=sleeper).get("/x")

    assert waited <= sleeper.slept[0] < waited + 1


@pytest.mark.parametrize(
    "headers", [{"X-Rate-Limit-Reset": "1700000000000"}, {"Retry-After": "9" * 30}], ids=["milliseconds", "aeons"]
)
def test_a_stated_wait_beyond_the_calendar_is_still_a_rate_limit(requests_mock, headers):
    requests_mock.get(BASE + "/x", status_code=429, headers=headers)

    with pytest.raises(RateLimited) as failure:
        client_to().get("/x")
    assert failure.value.retry_at is None


def test_a_file_is_whole_in_every_attempt(requests_mock):
    requests_mock.post(BASE + "/x", [{"status_code": 429}, {"json": {}}])

    client_to().call(
        "POST", "/x", idempotency=Idempotency.UNSAFE, form={"a": "b"}, files={"file": ("name", io.BytesIO(b"content"))}
    )

    bodies = [request.body for request in requests_mock.request_history]
    assert bodies[0] == bodies[1]
    assert b"content" in bodies[0]
    assert b'name="a"' in bodies[0]


# --- the network as the connection describes it ---


def test_the_connections_proxies_override_the_environments(requests_mock, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://environment:1")
    requests_mock.get(BASE + "/x", json={})

    client_to(proxies={"https": "http://connection:1"}).get("/x")

    assert requests_mock.last_request.proxies["https"] == "http://connection:1"


def test_a_ca_bundle_that_is_not_there_is_named():
    with pytest.raises(ConfigurationError, match=r"/nowhere/ca\.pem.*verify"):
        client_to(verify="/nowhere/ca.pem").get("/x")


@pytest.mark.parametrize("value", ["s3cret\n", " s3cret", "s3cr\u20act"])
def test_an_unsendable_header_is_named_without_its_value(requests_mock, value):
    for build in (
        lambda: client_to(headers={"Cookie": value}),
        lambda: client_to().get("/x", headers={"Cookie": value}),
    ):
        with pytest.raises(ConfigurationError, match="Header Cookie") as failure:
            build()
        assert "s3cr" not in str(failure.value)
    assert requests_mock.call_count == 0


# --- sizes and forms ---


def test_a_response_that_is_too_large_is_not_read_to_its_end(broken_server):
    bomb = gzip.compress(b"0" * 2**22)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()

    with pytest.raises(UnexpectedResponse, match="larger than 1048576 bytes"):
        client_to(broken_server(head + bomb).url, max_bytes=2**20).get("/x")


def test_the_body_of_a_redirect_is_not_read_to_its_end_either(broken_server, monkeypatch):
    bomb = gzip.compress(b"0" * 2**22)
    head = f"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"

    client = client_to(broken_server(head.encode() + bomb).url, max_bytes=2**20)
    # How requests itself would read it, before the client can.
    monkeypatch.setattr(requests.Response, "content", property(lambda _: pytest.fail("read without a limit")))
    with pytest.raises(UnexpectedResponse, match="larger than 1048576 bytes"):
        client.get("/x")


def test_a_body_that_arrives_too_slowly_is_not_read_to_its_end(broken_server, monkeypatch):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server = broken_server(head + b"1\r\n1\r\n" * 20 + b"0\r\n\r\n")
    client = client_to(server.url, retry=RetryPolicy.none(), timeout=5)
    seconds = count()

    monkeypatch.setattr(http, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with pytest.raises(ConnectionFailed, match="ReadTimeout"):
        client.get("/x")
    assert 10 < next(seconds) < 20


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<html><title>Welcome</title></html>", "an HTML page titled 'Welcome'"),
        ("{", "not JSON"),
        ("[" * 10**5, "not JSON"),
    ],
)
def test_a_response_that_is_not_json_is_a_contract_error(requests_mock, body, message):
    requests_mock.get(BASE + "/x", text=body, headers={"Content-Type": "text/html"})

    with pytest.raises(UnexpectedResponse, match=message):
        client_to().get("/x").json()


@pytest.mark.parametrize("body", ['{"a": ' * 200 + "1" + "}" * 200, "[" * 200 + "]" * 200])
def test_a_response_that_is_nested_too_deeply_is_an_error(requests_mock, body):
    requests_mock.get(BASE + "/x", text=body)

    with pytest.raises(UnexpectedResponse, match="too deep"):
        client_to().get("/x").json()


@pytest.mark.parametrize("page", ["<html>", " \n<!-- sign in -->", "\ufeff<html>"])
def test_an_html_page_is_not_a_response(requests_mock, page):
    requests_mock.get(BASE + "/x", text=page)

    for error in (UnexpectedResponse, OutcomeUnknown):
        with pytest.raises(error, match="an HTML page, possibly a sign-in page"):
            client_to().get("/x").reject_page(error)


def test_a_long_error_is_shortened_in_the_middle():
    error = NotFound("first" + "x" * 20_000)

    assert len(str(error)) < 10_100
    assert str(error).startswith("firstx")
    assert str(error).endswith("the response does not say which.")


@pytest.mark.parametrize("location", ["/account/login?next=/", "https://sso.example.com/"])
def test_a_redirect_to_a_login_page_says_so(requests_mock, location):
    requests_mock.get(BASE + "/x", status_code=302, headers={"Location": location})

    with pytest.raises(AuthenticationError, match="login page"):
        client_to().get("/x")


@pytest.mark.parametrize("location", [BASE + "/y", "http://[bad"])
def test_no_redirect_is_followed(requests_mock, location):
    requests_mock.get(BASE + "/x", status_code=307, headers={"Location": location})

    with pytest.raises(UnexpectedResponse, match="redirect"):
        client_to().get("/x")
    assert requests_mock.call_count == 1


# --- errors ---


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, AuthenticationError),
        (403, PermissionDenied),
        (404, NotFound),
        (409, InvalidRequest),
        (422, InvalidRequest),
        (500, ServerError),
        (600, ServerError),
        (199, UnexpectedResponse),
    ],
)
def test_every_status_has_its_error(requests_mock, status, kind):
    requests_mock.get(BASE + "/x", status_code=status, headers={"X-Request-Id": "r-1"}, json={"message": "words"})

    with pytest.raises(kind) as failure:
        client_to().get("/x")

    error = failure.value
    assert (error.status_code, error.method, error.path, error.request_id) == (status, "GET", "/x", "r-1")
    assert error.server_message == "words"
    assert f"GET /x returned {status}: words (request id r-1)" in str(error)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": "Invalid Token"}', "Invalid Token"),
        ('{"errors": "Not Found"}', "Not Found"),
        ('{"errors": ["one", "two"]}', "one; two"),
        ('{"errors": {"name": ["is missing", "is odd"]}}', "name: is missing, is odd"),
        ('{"error": {"code": "c", "message": "m", "details": [{"reason_code": "r", "message": "d"}]}}', "m; d"),
        ('{"code": 1, "message": "m", "fields": {"a": "b"}, "reason": "r"}', "m; r; a: b"),
        ('{"workflowed_object_type": "is missing"}', "workflowed_object_type: is missing"),
        ('{"Message": "An error.", "ExceptionMessage": "Read-only."}', "An error.; Read-only."),
        ('{"Message": "Invalid.", "ModelState": {"Fields.x": ["is no number"]}}', "Invalid.; Fields.x: is no number"),
        ('{"Message": "An error.", "InnerException": {"ExceptionMessage": "Read-only."}}', "An error.; Read-only."),
        ('{"title": "Conflict", "status": 409, "detail": "It is over."}', "It is over."),
        ('{"title": "It is over", "status": 409}', "title: It is over; status: 409"),
        ('"text"', "text"),
        ("plain   words", "plain words"),
        ("<!DOCTYPE html><html><title> Gone </title></html>", "an HTML page titled 'Gone'"),
        ("", ""),
        ("[" * 10**5, "[" * 500),
        ("null", ""),
    ],
)
def test_the_servers_message_is_found_in_every_format(requests_mock, body, message):
    requests_mock.get(BASE + "/x", status_code=400, text=body)

    with pytest.raises(InvalidRequest) as failure:
        client_to().get("/x")

    assert failure.value.server_message == message


@pytest.mark.parametrize(
    "body", [{"errors": {"name": ["is missing"]}}, {"name": "is missing"}, {"fields": {"name": ["is missing"]}}]
)
def test_the_fields_that_are_wrong_are_named(requests_mock, body):
    requests_mock.get(BASE + "/x", status_code=400, json=body)

    with pytest.raises(InvalidRequest) as failure:
        client_to().get("/x")

    assert failure.value.fields == {"name": ["is missing"]}


def test_a_message_is_not_read_as_a_field(requests_mock):
    requests_mock.get(BASE + "/x", status_code=400, json={"message": "no"})

    with pytest.raises(InvalidRequest) as failure:
        client_to().get("/x")

    assert failure.value.fields == {}


def test_a_secret_that_the_server_echoes_is_not_in_the_error(requests_mock):
    auth = TokenAuth(StaticToken("tok-12345"), BASE)
    message = "tok-12345 and s3cret, Authorization: Bearer abc.def-ghi"
    requests_mock.get(BASE + "/x", status_code=400, json={"message": message})

    with pytest.raises(ApiError) as failure:
        client_to(auth=auth, secrets=("s3cret",)).get("/x")

    assert failure.value.server_message == "*** and ***, Authorization: Bearer ***"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html><title>bad pa&quot;ss\\word&amp;12</title></html>"),
        (400, "<html><title>bad pa&quot;ss\\word&amp;12</title></html>"),
        (400, '{"message": "bad pa\\"ss\\\\word&12", "cut'),
        (400, '{"message": "bad pa\\"ss\\\\word&12"}'),
        (400, "bad pa%22ss%5Cword%2612"),
    ],
)
def test_secret_in_another_spelling_is_not_in_the_error(requests_mock, status, body):
    requests_mock.get(BASE + "/x", status_code=status, text=body)

    with pytest.raises(ApiError, match=r"bad \*\*\*"):
        client_to(secrets=('pa"ss\\word&12',)).get("/x").json()


def test_a_secret_inside_ordinary_text_does_not_change_it(requests_mock):
    requests_mock.get(BASE + "/x", status_code=400, json={"message": "The task is already completed"})

    with pytest.raises(ApiError, match="The task is already completed"):
        client_to(secrets=("e",)).get("/x")


def test_every_field_of_a_long_rejection_is_named(requests_mock):
    errors = {f"field_{number}": ["is not one of those that are allowed here"] for number in range(1500)}
    requests_mock.get(BASE + "/x", status_code=422, json={"message": "Invalid", "errors": errors})

    with pytest.raises(InvalidRequest) as failure:
        client_to().get("/x")

    assert failure.value.fields == errors


def test_a_secret_that_the_server_echoes_is_not_in_the_fields(requests_mock):
    auth = TokenAuth(StaticToken("tok-12345"), BASE)
    requests_mock.get(BASE + "/x", status_code=422, json={"errors": {"name": ["not tok-12345"]}})

    with pytest.raises(InvalidRequest) as failure:
        client_to(auth=auth).get("/x")

    assert failure.value.fields == {"name": ["not ***"]}


def test_the_rate_limit_is_remembered_and_may_be_absent(requests_mock):
    headers = {"X-Rate-Limit-Limit": "25", "X-Rate-Limit-Remaining": "24", "X-Rate-Limit-Reset": "1700000010"}
    requests_mock.get(BASE + "/x", [{"json": {}}, {"json": {}, "headers": headers}, {"json": {}}])
    client = client_to()

    client.get("/x")
    assert client.rate is None
    for _ in range(2):
        client.get("/x")
        assert client.rate == RateLimit(25, 24, 1_700_000_010)


# --- lists ---


def rows(*ids: int) -> list[dict]:
    return [{"id": number} for number in ids]


def listed(client: RestClient, style: str, per_page: int = 2) -> list[int]:
    return [row["id"] for row in client.pages("/x", params={"f": "1"}, per_page=per_page, style=style)]


def test_v1_pages_follow_the_link(requests_mock):
    link = {"Link": f'<{BASE}/x?page=1>; rel="first", <{BASE}/x?page=2&per_page=2>; rel="next"'}
    requests_mock.get(BASE + "/x?page=1", json=rows(1, 2), headers=link)
    requests_mock.get(BASE + "/x?page=2", json=rows(3, 4), headers={"Link": f'<{BASE}/x?page=1>; rel="prev"'})

    assert listed(client_to(), "v1") == [1, 2, 3, 4]
    assert requests_mock.request_history[0].qs == {"f": ["1"], "page": ["1"], "per_page": ["2"]}


def test_pages_end_with_the_total_where_there_is_no_link(requests_mock):
    requests_mock.get(BASE + "/x?page=1", json=rows(1, 2), headers={"Total": "3"})
    requests_mock.get(BASE + "/x?page=2", json=rows(3), headers={"Total": "3"})

    assert listed(client_to(), "v1") == [1, 2, 3]


@pytest.mark.parametrize("total", [{}, {"Total": "3"}])
def test_short_pages_are_not_the_last_ones(requests_mock, total):
    headers = {"Per-Page": "2", **total}
    requests_mock.get(BASE + "/x?page=1", json=rows(1, 2), headers=headers)
    requests_mock.get(BASE + "/x?page=2", json=rows(3), headers=headers)

    assert listed(client_to(), "v1", per_page=2000) == [1, 2, 3]


def test_a_full_page_without_any_sign_is_followed_by_a_request(requests_mock):
    requests_mock.get(BASE + "/x?page=1", json=rows(1, 2))
    requests_mock.get(BASE + "/x?page=2", json=[])

    assert listed(client_to(), "v1") == [1, 2]


@pytest.mark.parametrize(
    ("first", "headers"),
    [
        ({"meta": {"next_cursor": "c2"}}, {}),
        ({"pagination": {"next_cursor": "c2"}}, {}),
        ({"meta": {"cursor": {"next": "c2"}}}, {}),
        ({"next_cursor": "c2"}, {}),
        ({"next": None, "meta": {"next_cursor": "c2"}}, {}),
        ({"links": {"next": f"{BASE}/x?cursor=c2&per_page=2"}}, {}),
        ({"links": {"next": "/x?cursor=c2"}}, {}),
        ({}, {"Link": f'<{BASE}/x?cursor=c2>; rel="next"'}),
    ],
)
def test_v2_cursors_are_found_wherever_they_come_back(requests_mock, first, headers):
    requests_mock.get(BASE + "/x", json={"data": rows(1, 2), **first}, headers=headers)
    requests_mock.get(BASE + "/x?cursor=c2", json={"data": rows(3), "meta": {"next_cursor": None}})

    assert listed(client_to(), "v2") == [1, 2, 3]
    assert "page" not in requests_mock.last_request.qs


def test_a_slash_in_a_base64_cursor_does_not_make_it_a_url(requests_mock):
    requests_mock.get(BASE + "/x", json={"data": rows(1, 2), "next_cursor": "a/b+c=="})
    requests_mock.get(BASE + "/x?cursor=a%2Fb%2Bc%3D%3D", json={"data": rows(3), "next_cursor": None})

    assert listed(client_to(), "v2") == [1, 2, 3]


def test_v2_pages_without_a_cursor_are_requested_by_number(requests_mock):
    requests_mock.get(BASE + "/x", json={"data": rows(1, 2)})
    requests_mock.get(BASE + "/x?page=2", json={"data": rows(3)})

    assert listed(client_to(), "v2") == [1, 2, 3]


def test_full_list_without_pages_is_an_error(requests_mock):
    requests_mock.get(BASE + "/x", json={"data": rows(1, 2)})

    with pytest.raises(UnexpectedResponse, match="repeats the one before"):
        listed(client_to(), "v2")


def test_paging_in_a_circle_ends(requests_mock):
    requests_mock.get(BASE + "/x", [{"json": {"data": rows(n), "next_cursor": f"c{n % 2}"}} for n in range(9)])

    with pytest.raises(UnexpectedResponse, match="circle"):
        listed(client_to(), "v2")


@pytest.mark.parametrize("server", ["https://evil.example.com", "http://api.example.com", BASE + ":444"])
def test_of_a_link_to_another_server_only_the_query_is_used(requests_mock, server):
    link = {"Link": f'<{server}/y?cursor=c2&per_page=9>; rel="next"'}
    requests_mock.get(BASE + "/x", [{"json": {"data": rows(1)}, "headers": link}, {"json": {"data": rows(2)}}])

    assert listed(client_to(), "v2") == [1, 2]
    assert requests_mock.last_request.url == BASE + "/x?f=1&per_page=2&cursor=c2"


def test_a_link_that_is_not_a_url_is_an_error(requests_mock):
    requests_mock.get(BASE + "/x", json={"data": rows(1)}, headers={"Link": '<http://[bad>; rel="next"'})

    with pytest.raises(UnexpectedResponse, match="not a valid URL"):
        listed(client_to(), "v2")


def test_a_link_without_a_place_in_the_list_is_an_error(requests_mock):
    requests_mock.get(BASE + "/x", json={"data": rows(1)}, headers={"Link": f'<{BASE}/x>; rel="next"'})

    with pytest.raises(UnexpectedResponse, match="neither a cursor nor a page number"):
        listed(client_to(), "v2")


@pytest.mark.parametrize("body", [{}, {"data": {}}, {"data": ["x"]}, [], None])
def test_what_is_not_a_list_of_rows_is_an_error(requests_mock, body):
    requests_mock.get(BASE + "/x", json=body)

    with pytest.raises(UnexpectedResponse, match="not a list of objects"):
        listed(client_to(), "v2")


@pytest.mark.parametrize("place", [{"href": "/x?cursor=c2"}, ["c2"], 1.5, True])
def test_an_unexpected_next_page_is_not_the_end(requests_mock, place):
    requests_mock.get(BASE + "/x", json={"data": rows(1), "next_cursor": place})

    with pytest.raises(UnexpectedResponse, match="names the next page in an unknown way"):
        listed(client_to(), "v2")


def test_a_cursor_beside_something_else_is_taken(requests_mock):
    first = {"data": rows(1), "next": {"href": "/x?page=2"}, "meta": {"next_cursor": "c2"}}
    requests_mock.get(BASE + "/x", [{"json": first}, {"json": {"data": rows(2), "next_cursor": None}}])

    assert listed(client_to(), "v2") == [1, 2]
    assert requests_mock.last_request.qs["cursor"] == ["c2"]


def test_a_page_that_is_not_a_number_is_returned_unchanged(requests_mock):
    link = {"Link": f'<{BASE}/x?page=p2-q>; rel="next"'}
    requests_mock.get(BASE + "/x", [{"json": {"data": rows(1)}, "headers": link}, {"json": {"data": rows(2)}}])

    assert listed(client_to(), "v2") == [1, 2]
    assert requests_mock.last_request.qs["page"] == ["p2-q"]


@pytest.mark.parametrize("cursor", ["c" * 5000, "\ud800"])
def test_a_cursor_that_no_address_can_contain_is_an_error(requests_mock, cursor):
    requests_mock.get(BASE + "/x", json={"data": rows(1), "next_cursor": cursor})

    with pytest.raises(UnexpectedResponse, match="too long or has invalid characters"):
        listed(client_to(), "v2")


def test_pages_are_read_when_they_are_needed(requests_mock):
    requests_mock.get(BASE + "/x", json={"data": rows(1, 2), "next_cursor": "c2"})

    assert next(client_to().pages("/x", per_page=2, style="v2"))["id"] == 1
    assert requests_mock.call_count == 1


@EVERY_CALL
def test_a_handshake_that_fails_has_sent_nothing(idempotency):
    """Plain http behind an https address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def respond_in_http() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(64)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        responding = threading.Thread(target=respond_in_http)
        responding.start()
        client = RestClient(f"https://127.0.0.1:{server.getsockname()[1]}", retry=RetryPolicy.none())

        with pytest.raises(ConnectionFailed, match="is it plain http"):
            client.call("POST", "/x", idempotency=idempotency)
        responding.join()
