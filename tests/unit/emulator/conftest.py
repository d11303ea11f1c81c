"""Clients of the emulator that check every response against the emulator's own description."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_workflows.emulator import Emulator
from tests.unit.emulator.schema import check_response

COMPANY = "/rest/v2.0/companies/4264807"
PROJECT = f"{COMPANY}/projects/1001"
BASIC = base64.b64encode(b"admin@example.com:emulator-password").decode()


class Client:
    """Sends requests; a response that is not as `/openapi.json` says fails the test."""

    def __init__(self, url: str, openapi: dict[str, Any], headers: dict[str, str], query: dict[str, str]):
        self.url = url
        self.openapi = openapi
        self.query = query
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers.update(headers)

    def send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        arguments["params"] = {**self.query, **arguments.get("params", {})}
        url = path if path.startswith("http") else self.url + path
        response = self.session.request(method, url, allow_redirects=False, **{"timeout": 10, **arguments})
        check_response(
            self.openapi, method, urlsplit(url).path, response.status_code, response.headers, response.content
        )
        assert response.headers["X-Request-Id"]
        return response

    def get(self, path: str, status: int = 200, **params: Any) -> Any:
        response = self.send("GET", path, params=params)
        assert response.status_code == status, response.text
        return response.json()

    def post(self, path: str, body: Any = None, status: int = 200, **arguments: Any) -> Any:
        return self.change("POST", path, body, status, **arguments)

    def patch(self, path: str, body: Any = None, status: int = 200) -> Any:
        return self.change("PATCH", path, body, status)

    def change(self, method: str, path: str, body: Any = None, status: int = 200, **arguments: Any) -> Any:
        response = self.send(method, path, json=body, **arguments)
        assert response.status_code == status, response.text
        return response.json() if response.content else None


@pytest.fixture(scope="session")
def openapi(running_emulator: Emulator) -> dict[str, Any]:
    return requests.get(f"{running_emulator.url}/openapi.json", timeout=10).json()


@pytest.fixture
def anonymous(emulator: Emulator, openapi: dict[str, Any]) -> Client:
    """A client that is not signed in."""
    return Client(emulator.url, openapi, {}, {})


@pytest.fixture
def long_lived_tokens(emulator: Emulator) -> None:
    """For tests that move the clock by days; to be asked for before a client."""
    emulator.control("PATCH", "flags", token_lifetime=10**8)


@pytest.fixture
def procore(anonymous: Client, emulator: Emulator, openapi: dict[str, Any]) -> Client:
    """A client of Procore, signed in, for the company."""
    grant = {"grant_type": "client_credentials", "client_id": "emulator-client", "client_secret": "emulator-secret"}
    token = anonymous.post("/oauth/token", grant)["access_token"]
    headers = {"Authorization": f"Bearer {token}", "Procore-Company-Id": "4264807"}
    return Client(emulator.url, openapi, headers, {})


@pytest.fixture
def legacy(procore: Client) -> Client:
    """The same for the legacy API, which wants the company in the query too."""
    return Client(procore.url, procore.openapi, dict(procore.session.headers), {"company_id": "4264807"})


@pytest.fixture
def workflowsoft(anonymous: Client, emulator: Emulator, openapi: dict[str, Any]) -> Client:
    """A client of Workflowsoft, signed in."""
    response = anonymous.send("GET", "/api/v2/app/apitoken", headers={"Authorization": f"Basic {BASIC}"})
    headers = {"Authorization": f"Bearer {response.json()}", "X-OnBehalfOf-Id": "system"}
    return Client(emulator.url, openapi, headers, {})
