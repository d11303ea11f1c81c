"""The connections of the DAG ``failures``: each wrong in its own way, or to an untrusted server."""

from __future__ import annotations

import secrets
from typing import Any

from airflow_provider_workflows.emulator import Emulator
from tests.robustness.secrets.servers import Hostile


def new_secret(signs: str = "/+ü \"'&%=") -> str:
    """Return a secret with signs that are written differently in a URL, in JSON and in HTML, chance between them."""
    return secrets.token_hex(4) + "".join(f"{sign}{secrets.token_hex(4)}" for sign in signs)


def failing_connections(emulator: Emulator, hostile: Hostile, secret: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the connections of the DAG ``failures``, and store their secrets."""
    good, good_ws = emulator.connection("procore"), emulator.connection("workflowsoft")

    def mine(name: str) -> str:
        return secret.setdefault(name, new_secret())

    def to(kind: str, name: str, **changed: Any) -> dict[str, Any]:
        url = f"{hostile.url}/{kind}"
        return {**good, "host": url, "password": mine(name), "extra": {**good["extra"], "login_url": url, **changed}}

    # Headers are ASCII only.
    for name in ("rejecting_bearer", "rejecting_cookie"):
        secret[name] = new_secret("/+\"'&%=")

    def to_ws(kind: str, name: str, **changed: Any) -> dict[str, Any]:
        return {**good_ws, "host": f"{hostile.url}/{kind}", "password": mine(name), **changed}

    def extra(**changed: Any) -> dict[str, Any]:
        return {**good, "password": mine("misconfigured"), "extra": {**good["extra"], **changed}}

    url = f"http://{mine('in_a_url').replace('/', '')}@127.0.0.1:9"
    return {
        "wrong_secret": {**good, "password": mine("wrong_secret")},
        "rejecting_sign_in": to("rejecting", "rejecting_sign_in"),
        "malformed_token": to("malformed", "malformed_token"),
        "unauthorized": to("unauthorized", "unauthorized"),
        "invalid": to("invalid", "invalid"),
        "failing": to("failing", "failing"),
        "moved": to("moved", "moved"),
        "linking": to("linking", "linking"),
        "lost": to("lost", "lost"),
        "later": to("later", "later"),
        "ready_token_rejected": to("unauthorized", "-", access_token=secret.setdefault("ready", secrets.token_hex(20))),
        "ready_token_in_a_list": extra(access_token=[mine("in_a_list")]),
        "ready_token_as_company": extra(company_id=mine("as_company")),
        "ready_token_as_environment": extra(environment=mine("as_environment")),
        "secret_in_the_host": {**good, "password": mine("misconfigured"), "host": url},
        "secret_in_the_login_url": extra(login_url=url),
        "secret_in_a_proxy": extra(proxies={"http": url}),
        "extra_is_not_json": {**good, "extra": '{"access_token": "' + mine("not_json")},
        "wrong_password": {**good_ws, "password": mine("wrong_password")},
        "rejecting_basic": to_ws("rejecting", "rejecting_basic"),
        "rejecting_bearer": to_ws("rejecting", "rejecting_bearer", extra={"login_auth": "bearer"}),
        "rejecting_cookie": to_ws("rejecting", "rejecting_cookie", extra={"login_auth": "cookie"}),
        "malformed_api_token": to_ws("malformed", "malformed_api_token"),
        "ready_api_token_rejected": {
            **to_ws("unauthorized", "-"),
            "login": None,
            "password": secret.setdefault("ready_ws", secrets.token_hex(20)),
        },
        "later_ws": to_ws("later", "later_ws"),
        "planted": {"conn_type": "generic", "password": secret.setdefault("planted", new_secret())},
    }
