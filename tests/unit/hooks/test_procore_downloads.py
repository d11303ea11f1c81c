"""Files that a server redirects to: the token stays with its own host, and no error shows a signed address."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.client.auth import TokenAuth
from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.exceptions import ApiError, AuthenticationError, PermissionDenied, UnexpectedResponse
from airflow_provider_workflows.hooks.procore_downloads import download
from tests.unit.client.test_auth import BASE, Numbered

PATH = "/rest/v2.0/errors"
STORED = "https://storage.example.com/bucket/account-7/auth-errors.csv"
SECRET = "very-secret-signature"
SIGNED = f"{STORED}?X-Amz-Signature={SECRET}&auth=sso"


@pytest.fixture
def client() -> RestClient:
    return RestClient(BASE, auth=TokenAuth(Numbered(), BASE), headers={"Procore-Company-Id": "7"})


def tokens(requests_mock) -> list[str | None]:
    return [request.headers.get("Authorization") for request in requests_mock.request_history]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", ["text/html", "text/plain"])
def test_file_in_the_storage_is_read_without_the_token(client, requests_mock, status, kind):
    requests_mock.get(BASE + PATH, status_code=status, headers={"Location": SIGNED, "Content-Type": kind})
    requests_mock.get(STORED, content=b"a,b")

    assert download(client, PATH, {"Accept": "text/csv"}).body == b"a,b"
    assert tokens(requests_mock) == ["Bearer token-1", None]
    assert requests_mock.last_request.url == SIGNED
    assert "Procore-Company-Id" not in requests_mock.last_request.headers


@pytest.mark.parametrize("target", ["/rest/v2.0/files/7?part=1", f"{BASE}/rest/v2.0/files/7?part=1"])
def test_file_on_the_same_server_is_read_with_the_token(client, requests_mock, target):
    requests_mock.get(BASE + PATH, status_code=302, headers={"Location": target})
    requests_mock.get(f"{BASE}/rest/v2.0/files/7", content=b"a,b")

    assert download(client, PATH).body == b"a,b"
    assert tokens(requests_mock) == ["Bearer token-1"] * 2
    assert requests_mock.last_request.url.endswith("?part=1")


@pytest.mark.parametrize(
    "target",
    [
        "https://login.procore.com/?return_to=%2Fx.csv",
        "https://login-sandbox.procore.com",
        "/account/login?ReturnUrl=%2Fx",
        "https://sso.example.com/saml",
        "https://id.example.com/oauth2/authorize?x=1",
        "/users/sign_in",
    ],
)
def test_redirect_to_sign_in_renews_the_token_once(client, requests_mock, target):
    sent_away = {"status_code": 302, "headers": {"Location": target}}
    requests_mock.get(BASE + PATH, [sent_away, {"content": b"a,b"}])
    assert download(client, PATH).body == b"a,b"
    assert tokens(requests_mock) == ["Bearer token-1", "Bearer token-2"]

    requests_mock.get(BASE + PATH, [sent_away])
    with pytest.raises(AuthenticationError):
        download(client, PATH)


def test_error_of_the_storage_does_not_show_the_address(client, requests_mock):
    requests_mock.get(BASE + PATH, status_code=302, headers={"Location": SIGNED})
    requests_mock.get(STORED, status_code=403, text=f"Expired: {SIGNED}")

    with pytest.raises(PermissionDenied) as failure:
        download(client, PATH)
    assert SECRET not in str(failure.value)
    assert failure.value.__context__ is None


@pytest.mark.parametrize("target", ["https://[", "http://storage.example.com/x", "ftp://x/y"])
def test_redirect_to_no_safe_address_is_an_error(client, requests_mock, target):
    requests_mock.get(BASE + PATH, status_code=302, headers={"Location": target})

    with pytest.raises(UnexpectedResponse):
        download(client, PATH)
    assert requests_mock.call_count == 1


@pytest.mark.parametrize("target", [STORED, f"{BASE}/rest/v2.0/files/7"])
def test_second_redirect_is_not_followed(client, requests_mock, target):
    requests_mock.get(BASE + PATH, status_code=302, headers={"Location": target})
    requests_mock.get(target, status_code=302, headers={"Location": "https://third.example.com/x"})

    with pytest.raises(ApiError):
        download(client, PATH)
    assert requests_mock.call_count == 2
