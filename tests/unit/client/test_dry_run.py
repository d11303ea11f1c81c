"""A client in a dry run: what it sends, what it describes instead, and that neither shows a secret."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from airflow_provider_workflows.client.auth import TokenAuth
from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.client.retry import Idempotency
from airflow_provider_workflows.client.token_sources import StaticToken
from airflow_provider_workflows.exceptions import ConfigurationError, DryRun

BASE = "https://api.example.com"
EVERY_CALL = pytest.mark.parametrize("idempotency", list(Idempotency))


@pytest.fixture
def client(requests_mock):
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        requests_mock.register_uri(method, f"{BASE}/thing", json={})
    auth = TokenAuth(StaticToken("the-token-itself"), BASE)
    return RestClient(BASE, auth=auth, secrets=("the-secret",), dry_run=True)


@EVERY_CALL
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "post", "PURGE"])
def test_a_dry_run_sends_no_call_that_changes_something(client, requests_mock, method, idempotency):
    with pytest.raises(DryRun) as rejected:
        client.call(method, "/thing", idempotency=idempotency, json={"a": 1})

    assert rejected.value.call == {"method": method.upper(), "path": "/thing", "body": {"a": 1}}
    assert requests_mock.call_count == client.sent == 0


def test_a_dry_run_sends_reads_of_any_method(client, requests_mock):
    client.get("/thing")
    client.call("HEAD", "/thing", idempotency=Idempotency.SAFE)
    client.call("POST", "/thing", idempotency=Idempotency.SAFE, json={}, only_reads=True)

    assert [request.method for request in requests_mock.request_history] == ["GET", "HEAD", "POST"]


def test_a_dry_run_sends_no_get_that_consumes(client, requests_mock):
    with pytest.raises(DryRun):
        client.call("GET", "/thing", idempotency=Idempotency.UNSAFE)
    assert requests_mock.call_count == 0


def test_a_client_for_another_server_is_a_dry_run_too(client, requests_mock):
    with pytest.raises(DryRun):
        client.without_sign_in("https://storage.example.com").call("PUT", "/x", idempotency=Idempotency.SAFE, data=b"x")
    assert requests_mock.call_count == 0


def test_description_has_query_and_headers_and_no_secret(client):
    client.get("/thing")  # with the token

    with pytest.raises(DryRun) as rejected:
        client.call(
            "POST",
            "/thing",
            idempotency=Idempotency.UNSAFE,
            params={"id": 7, "flag": True, "none": None, "list": [1, "the-secret"]},
            json={"the-secret": ["x the-token-itself x", {"amount": Decimal("1640.10"), "n": 1, "is": None}]},
            headers={"X-OnBehalfOf-Id": "42", "X": "the-secret"},
        )

    assert rejected.value.call == {
        "method": "POST",
        "path": "/thing",
        "body": {"***": ["x *** x", {"amount": "1640.10", "n": 1, "is": None}]},
        "query": {"id": "7", "flag": "true", "list": ["1", "***"]},
        "headers": {"X-OnBehalfOf-Id": "42", "X": "***"},
    }
    assert json.loads(json.dumps(rejected.value.call)) == rejected.value.call
    message = str(rejected.value)
    assert "POST /thing" in message
    assert "1640.10" in message
    assert "the-" not in message


def test_description_of_a_form_has_files_by_name_and_size_only(client):
    parts = [
        ("history[id]", (None, "7")),
        ("history[files][]", ("a.pdf", b"12345", "application/pdf")),
        ("history[files][]", ("b.pdf", b"1", "application/pdf")),
    ]

    with pytest.raises(DryRun) as rejected:
        client.call("POST", "/thing", idempotency=Idempotency.UNSAFE, files=parts)

    assert rejected.value.call["body"] == {
        "history[id]": "7",
        "history[files][]": ["<file a.pdf: 5 bytes, application/pdf>", "<file b.pdf: 1 bytes, application/pdf>"],
    }


def test_description_of_a_signed_upload_hides_its_signature(client):
    with pytest.raises(DryRun) as rejected:
        client.call(
            "POST",
            "/thing",
            idempotency=Idempotency.SAFE,
            query="X-Amz-Signature=abcdef",
            form={"policy": "abcdef"},
            files={"file": ("a.pdf", b"12345", "application/pdf")},
        )

    assert "abcdef" not in str(rejected.value)
    assert rejected.value.call["body"] == {"policy": "***", "file": "<file a.pdf: 5 bytes, application/pdf>"}


def test_a_body_that_cannot_be_sent_is_an_error_in_a_dry_run_too(client):
    with pytest.raises(ConfigurationError, match="JSON"):
        client.call("POST", "/thing", idempotency=Idempotency.UNSAFE, json={"a": float("nan")})
