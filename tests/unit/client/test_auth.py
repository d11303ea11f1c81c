"""The bearer token: one for a whole process, renewed in time, sent to its own server only."""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest
import requests

from airflow_provider_workflows.client.auth import Token, TokenAuth, same_server
from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.client.retry import Idempotency, RetryPolicy
from airflow_provider_workflows.client.token_sources import ApiTokenSource, ClientCredentials, StaticToken
from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConnectionFailed,
    OutcomeUnknown,
    UnexpectedResponse,
)

BASE = "https://api.example.com"
LOGIN = "https://login.example.com"
MINT = BASE + "/api/v2/app/apitoken"


class Numbered:
    """Gives token-1, token-2, ...; each lives for an hour."""

    def __init__(self, identity: str = "numbered"):
        self.identity = identity
        self.count = 0

    def fetch(self, now: float) -> Token:
        self.count += 1
        time.sleep(0.01)  # long enough for other threads to arrive in the middle
        return Token(f"token-{self.count}", now, now + 3600)


def header(auth: TokenAuth, url: str = BASE + "/x") -> str:
    return auth(requests.Request("GET", url).prepare()).headers["Authorization"]


def jwt(**claims: object) -> str:
    return f"head.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.sign"


def test_a_token_is_fetched_once_and_renewed_ahead_of_its_end():
    now = [1000.0]
    source = Numbered()
    auth = TokenAuth(source, BASE, clock=lambda: now[0])

    assert header(auth) == header(auth) == "Bearer token-1"
    now[0] += 3600 - 61
    assert header(auth) == "Bearer token-1"
    now[0] += 2
    assert header(auth) == "Bearer token-2"


@pytest.mark.parametrize(("lifetime", "lead"), [(5400, 60), (100, 10)])
def test_the_lead_is_a_minute_or_a_tenth_of_a_short_life(lifetime, lead):
    token = Token("t", 0.0, float(lifetime))

    assert token.is_fresh(lifetime - lead - 0.1)
    assert not token.is_fresh(lifetime - lead)


def test_a_token_without_a_known_end_stays_until_it_is_rejected():
    assert Token("t", 0.0, None).is_fresh(1e12)


def test_many_threads_fetch_one_token():
    source = Numbered()
    auth = TokenAuth(source, BASE)

    with ThreadPoolExecutor(50) as threads:
        headers = set(threads.map(lambda _: header(auth), range(200)))

    assert (headers, source.count) == ({"Bearer token-1"}, 1)


def test_many_threads_that_are_rejected_renew_once():
    source = Numbered()
    auth = TokenAuth(source, BASE)
    header(auth)
    gate = threading.Barrier(50)

    def renew(_: int) -> None:
        gate.wait()
        auth.renew("token-1")

    with ThreadPoolExecutor(50) as threads:
        list(threads.map(renew, range(50)))

    assert source.count == 2


def test_a_process_has_one_token_for_a_source_and_server():
    first = TokenAuth.shared(Numbered("one"), BASE)
    seen: list[str] = []
    header(first)

    assert TokenAuth.shared(Numbered("one"), BASE, on_token=seen.append) is first
    assert seen == ["token-1"]
    assert TokenAuth.shared(Numbered("two"), BASE) is not first
    assert TokenAuth.shared(Numbered("one"), LOGIN) is not first


def test_taking_part_in_a_shared_token_waits_for_no_fetch():
    """A triggerer's event loop takes part while a thread of another wait may be fetching."""
    requested, respond = threading.Event(), threading.Event()

    class Slow(Numbered):
        def fetch(self, now: float) -> Token:
            requested.set()
            assert respond.wait(10)
            return super().fetch(now)

    first = TokenAuth.shared(Slow("slow"), BASE)
    with ThreadPoolExecutor(1) as threads:
        fetching = threads.submit(header, first)
        assert requested.wait(10)
        assert TokenAuth.shared(Slow("slow"), BASE) is first
        assert not fetching.done()
        respond.set()
        assert fetching.result() == "Bearer token-1"


def test_a_shared_token_is_forgotten_with_its_last_user():
    auth = TokenAuth.shared(Numbered("short-lived"), BASE)
    header(auth)
    del auth
    gc.collect()

    assert header(TokenAuth.shared(Numbered("short-lived"), BASE)) == "Bearer token-1"


def test_every_token_is_masked_before_it_is_used():
    seen: list[str] = []
    auth = TokenAuth(Numbered(), BASE, on_token=seen.append)

    header(auth)
    auth.renew("token-1")

    assert seen == ["token-1", "token-2"]


@pytest.mark.parametrize("url", ["https://evil.example.com/x", "http://api.example.com/x", BASE + ":444/x"])
def test_the_token_never_goes_to_another_server(url):
    auth = TokenAuth(Numbered(), BASE)

    with pytest.raises(UnexpectedResponse, match="another server"):
        header(auth, url)


def test_servers_are_compared_with_their_default_ports():
    assert same_server(BASE + ":443/a", BASE)
    assert not same_server(BASE + ":bad", BASE)


def test_a_token_is_not_in_its_own_description():
    assert "abc" not in repr(Token("abc", 0.0, None))


# --- a 401 ---


@pytest.mark.parametrize("idempotency", list(Idempotency))
def test_a_rejected_call_goes_again_with_a_new_token(requests_mock, idempotency):
    requests_mock.post(BASE + "/x", [{"status_code": 401}, {"json": {}}])
    client = RestClient(BASE, auth=TokenAuth(Numbered(), BASE))

    client.call("POST", "/x", idempotency=idempotency)

    assert [r.headers["Authorization"] for r in requests_mock.request_history] == ["Bearer token-1", "Bearer token-2"]


def test_a_second_rejection_is_believed(requests_mock):
    requests_mock.get(BASE + "/x", status_code=401, json={"errors": "no"})
    client = RestClient(BASE, auth=TokenAuth(Numbered(), BASE))

    with pytest.raises(AuthenticationError, match="no"):
        client.get("/x")
    assert requests_mock.call_count == 2


def test_a_rejected_static_token_cannot_be_renewed(requests_mock):
    requests_mock.get(BASE + "/x", status_code=401)
    client = RestClient(BASE, auth=TokenAuth(StaticToken("t"), BASE))

    with pytest.raises(AuthenticationError, match="which cannot be renewed"):
        client.get("/x")
    assert requests_mock.call_count == 1


SIGN_IN_PAGES = {
    "a redirect": {"status_code": 302, "headers": {"Location": "/account/login?ReturnUrl=%2Fx"}},
    "a form": {"text": "<html><form><input type='password' name=p></form></html>"},
}


@pytest.mark.parametrize("page", SIGN_IN_PAGES)
@pytest.mark.parametrize("idempotency", list(Idempotency))
def test_a_sign_in_page_is_a_rejection_of_the_token(requests_mock, idempotency, page):
    requests_mock.post(BASE + "/x", [SIGN_IN_PAGES[page], {"json": {}}])
    client = RestClient(BASE, auth=TokenAuth(Numbered(), BASE))

    assert client.call("POST", "/x", idempotency=idempotency).json() == {}
    assert [r.headers["Authorization"] for r in requests_mock.request_history] == ["Bearer token-1", "Bearer token-2"]


def test_a_sign_in_page_without_a_form_counts_for_reads_only(requests_mock):
    page = {"text": "<!DOCTYPE html><html><title>Sign in</title></html>"}
    requests_mock.get(BASE + "/x", [page, {"json": {}}])

    RestClient(BASE, auth=TokenAuth(Numbered(), BASE)).get("/x")

    assert requests_mock.last_request.headers["Authorization"] == "Bearer token-2"


@pytest.mark.parametrize("page", SIGN_IN_PAGES)
@pytest.mark.parametrize("idempotency", list(Idempotency))
def test_a_second_sign_in_page_is_believed(requests_mock, idempotency, page):
    requests_mock.post(BASE + "/x", [SIGN_IN_PAGES[page]])
    client = RestClient(BASE, auth=TokenAuth(Numbered(), BASE))

    with pytest.raises(AuthenticationError):
        client.call("POST", "/x", idempotency=idempotency)
    assert requests_mock.call_count == 2


@pytest.mark.parametrize(
    "response",
    [
        {"text": "<html><title>Process 7</title>You may sign in as another user.</html>"},
        {"text": "<html><title>Sign in</title></html>"},
        {"status_code": 302, "headers": {"Location": "/processes/7"}},
        {"text": '{"message": "sign in"}'},
    ],
)
def test_after_a_write_only_a_sign_in_page_is_a_rejection(requests_mock, response):
    """It could be about what was made, and sending again would make another."""
    requests_mock.post(BASE + "/x", [response])
    client = RestClient(BASE, auth=TokenAuth(Numbered(), BASE))

    with contextlib.suppress(OutcomeUnknown):
        client.call("POST", "/x", idempotency=Idempotency.UNSAFE)
    assert requests_mock.call_count == 1


@pytest.mark.parametrize("response", [{"status_code": 401}, *SIGN_IN_PAGES.values()])
def test_a_static_token_that_is_rejected_says_what_to_do(requests_mock, response):
    requests_mock.get(BASE + "/x", [response])
    client = RestClient(BASE, auth=TokenAuth(StaticToken("t", "Get a new API token."), BASE))

    with pytest.raises(AuthenticationError) as failure:
        client.get("/x")
    assert str(failure.value).endswith(f"Get a new API token. {AuthenticationError.advice}")


@pytest.mark.parametrize("skew", [-7200, 0, 7200])
@pytest.mark.parametrize("knows", ["Date", "iat", "lifetime"])
def test_a_wrong_clock_requests_no_more_tokens(requests_mock, skew, knows):
    """A new JWT that seems to have ended, or to live for hours."""
    served_at = int(time.time())  # the client's clock is ahead of it
    issued = {"iat": served_at - skew} if knows == "iat" else {}
    headers = {"Date": formatdate(served_at - skew, usegmt=True)} if knows == "Date" else {}
    requests_mock.get(MINT, text=f'"{jwt(exp=served_at - skew + 600, **issued)}"', headers=headers)
    now = [float(served_at)]
    auth = TokenAuth(ApiTokenSource(BASE, "admin", "pw", lifetime=600), BASE, clock=lambda: now[0])

    for _ in range(3):
        header(auth)
    assert requests_mock.call_count == 1
    now[0] += 500
    header(auth)
    assert requests_mock.call_count == 1
    if knows != "lifetime" or skew >= 0:
        now[0] += 60
        header(auth)
        assert requests_mock.call_count == 2


def test_a_clock_that_is_set_ends_no_token(monkeypatch):
    source = Numbered()
    auth = TokenAuth(source, BASE)

    header(auth)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    header(auth)

    assert source.count == 1


# --- where tokens come from ---


def test_the_expiry_of_a_static_token_is_read_from_a_jwt():
    assert StaticToken(jwt(exp=5000)).fetch(0.0).expires_at == 5000
    assert [StaticToken(t).fetch(0.0).expires_at for t in ("plain", "a.b.c", jwt(sub="x"))] == [None] * 3


def test_client_credentials_are_granted(requests_mock):
    granted = {"access_token": "t", "token_type": "bearer", "expires_in": 5400, "created_at": 1}
    requests_mock.post(LOGIN + "/oauth/token", json=granted)

    token = ClientCredentials(LOGIN, "id", "secret").fetch(100.0)

    assert (token.value, token.expires_at) == ("t", 5500.0)
    assert requests_mock.last_request.text == "grant_type=client_credentials&client_id=id&client_secret=secret"


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_rejected_credentials_say_what_to_check_and_no_secret(requests_mock, status):
    body = {"error": "invalid_client", "error_description": "unknown client, secret s3cret"}
    requests_mock.post(LOGIN + "/oauth/token", status_code=status, json=body)

    with pytest.raises(AuthenticationError) as failure:
        ClientCredentials(LOGIN, "id", "s3cret").fetch(0.0)

    assert "client id and secret" in str(failure.value)
    assert "unknown client, secret ***" in str(failure.value)
    assert "Check login, password and environment" in str(failure.value)
    assert "s3cret" not in repr(failure.value)


def test_an_unreachable_login_server_is_not_a_rejection(requests_mock):
    requests_mock.post(LOGIN + "/oauth/token", exc=requests.exceptions.ConnectTimeout)

    with pytest.raises(ConnectionFailed):
        ClientCredentials(LOGIN, "id", "secret", retry=RetryPolicy.none()).fetch(0.0)


@pytest.mark.parametrize(
    ("body", "lifetime"),
    [
        ('"t-1"', 3600),
        ("t-1", 3600),
        ('{"access_token": "t-1"}', 3600),
        ('{"accessToken": "t-1", "expiresIn": 60}', 60),
        ('{"access_token": "t-1", "expires_in": "60"}', 60),
        ('{"Token": "t-1"}', 3600),
        ('{"apiToken": "t-1"}', 3600),
        ('{"Value": "t-1"}', 3600),
    ],
)
def test_a_requested_token_is_read_in_every_format(requests_mock, body, lifetime):
    requests_mock.get(MINT, text=body)

    token = ApiTokenSource(BASE, "admin", "pw").fetch(100.0)

    assert (token.value, token.expires_at) == ("t-1", 100.0 + lifetime)
    assert requests_mock.last_request.qs == {"lifetimeinsec": ["3600"]}


def test_end_of_a_jwt_counts_more_than_the_requested_lifetime(requests_mock):
    requests_mock.get(MINT, text=jwt(iat=1000, exp=1060))

    assert ApiTokenSource(BASE, "admin", "pw", lifetime=3600).fetch(100.0).expires_at == 160.0


@pytest.mark.parametrize(
    "response",
    [
        {"text": "<html><title>Sign in</title></html>"},
        {"text": "please", "headers": {"Content-Type": "text/html"}},
        {"status_code": 302, "headers": {"Location": "/account/login"}},
    ],
)
def test_a_login_page_instead_of_a_token_is_named(requests_mock, response):
    requests_mock.get(MINT, **response)

    with pytest.raises(AuthenticationError, match="login page"):
        ApiTokenSource(BASE, "admin", "pw").fetch(0.0)


@pytest.mark.parametrize("body", ["", "{}", "[]", "7", '{"token": 7}', '"two words"'])
def test_a_response_without_a_token_is_an_error(requests_mock, body):
    requests_mock.get(MINT, text=body)

    with pytest.raises(AuthenticationError, match="contains no token"):
        ApiTokenSource(BASE, "admin", "pw").fetch(0.0)


@pytest.mark.parametrize(
    ("login_auth", "name", "value"),
    [
        ("basic", "Authorization", "Basic " + base64.b64encode(b"admin:pw").decode()),
        ("bearer", "Authorization", "Bearer pw"),
        ("cookie", "Cookie", "pw"),
    ],
)
def test_the_administrator_signs_in_as_configured(requests_mock, login_auth, name, value):
    requests_mock.get(MINT, text='"t"')

    ApiTokenSource(BASE, "admin", "pw", scheme=login_auth).fetch(0.0)

    assert requests_mock.last_request.headers[name] == value


def test_each_cookies_value_is_a_secret_of_its_own(requests_mock):
    requests_mock.get(MINT, status_code=401, json={"Message": "Session S3cr3tValue of node7 has expired; id ab"})
    source = ApiTokenSource(BASE, "admin", '.AUTH=S3cr3tValue; lb="node7";id=ab', scheme="cookie")

    with pytest.raises(AuthenticationError, match=r"Session \*\*\* of \*\*\* has expired; id ab"):
        source.fetch(0.0)


def test_a_password_may_contain_any_character(requests_mock):
    requests_mock.get(MINT, text='"t"')

    ApiTokenSource(BASE, "admin", "p\u20ac").fetch(0.0)

    sent = requests_mock.last_request.headers["Authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")) == "admin:p\u20ac".encode()


def test_a_static_token_may_end_with_a_line_break():
    assert header(TokenAuth(StaticToken("t\n"), BASE)) == "Bearer t"


def test_token_too_long_for_a_header_is_rejected():
    masked: list[str] = []

    with pytest.raises(AuthenticationError, match="longer than 16384"):
        TokenAuth(StaticToken("x" * 10**6), BASE, on_token=masked.append).token()
    assert masked == []


def test_token_that_no_header_can_contain_is_rejected_unseen():
    with pytest.raises(AuthenticationError, match="line break") as failure:
        header(TokenAuth(StaticToken("s3c\nret"), BASE))
    assert "s3c" not in str(failure.value)


@pytest.mark.parametrize("expires_in", [None, 0, "soon"])
def test_an_end_that_cannot_be_read_is_not_known(requests_mock, expires_in):
    requests_mock.post(LOGIN + "/oauth/token", json={"access_token": "t", "expires_in": expires_in})

    assert ClientCredentials(LOGIN, "id", "secret").fetch(0.0).expires_at is None


def test_a_token_is_requested_without_the_users_netrc(requests_mock, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine login.example.com login x password y\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    requests_mock.post(LOGIN + "/oauth/token", json={"access_token": "t", "expires_in": 1})

    ClientCredentials(LOGIN, "id", "secret").fetch(0.0)

    assert "Authorization" not in requests_mock.last_request.headers


def test_identities_show_sources_apart_and_contain_no_secret():
    sources = [
        ClientCredentials(LOGIN, "id", "secret"),
        ClientCredentials(LOGIN, "id", "other"),
        ApiTokenSource(BASE, "id", "secret"),
        ApiTokenSource(BASE, "id", "other"),
        ApiTokenSource(BASE, "id", "secret", scheme="bearer"),
        StaticToken("secret"),
    ]

    assert len({source.identity for source in sources}) == len(sources)
    assert not any("secret" in source.identity for source in sources)
