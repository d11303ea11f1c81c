"""Signing in to both products."""

from __future__ import annotations

import pytest

from tests.unit.emulator.conftest import BASIC, PROJECT

GRANT = {"grant_type": "client_credentials", "client_id": "emulator-client", "client_secret": "emulator-secret"}
TOOLS = "/rest/v2.0/companies/4264807/workflows/tools"


@pytest.mark.parametrize(
    "sent",
    [
        {"json": GRANT},
        {"data": GRANT},
        {"files": {name: (None, value) for name, value in GRANT.items()}},
        {"data": {"grant_type": "client_credentials"}, "auth": ("emulator-client", "emulator-secret")},
    ],
    ids=["json", "form", "multipart", "basic"],
)
def test_every_known_token_request_format_is_accepted(anonymous, sent):
    token = anonymous.send("POST", "/oauth/token", **sent).json()

    assert (token["token_type"], token["expires_in"]) == ("bearer", 5400)
    signed_in = {"Authorization": f"Bearer {token['access_token']}"}
    shown = anonymous.send("GET", "/oauth/token/info", headers=signed_in).json()
    assert (shown["resource_owner_id"], shown["application"]) == (90001, {"uid": "emulator-client"})


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [
        ({"json": {**GRANT, "client_secret": "wrong"}}, 401, "invalid_client"),
        ({"json": {**GRANT, "grant_type": "password"}}, 400, "unsupported_grant_type"),
        ({"data": "{", "headers": {"Content-Type": "application/json"}}, 400, "invalid_request"),
        ({"data": GRANT, "headers": {"Authorization": "Basic \u00ff"}}, 400, "invalid_request"),
    ],
)
def test_a_wrong_grant_is_rejected(anonymous, sent, status, error):
    response = anonymous.send("POST", "/oauth/token", **sent)

    assert (response.status_code, response.json()["error"]) == (status, error)


def test_a_body_that_comes_in_pieces_is_put_together(anonymous):
    pieces = (f"{name}={value}&".encode() for name, value in GRANT.items())

    response = anonymous.send(
        "POST", "/oauth/token", data=pieces, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )

    assert response.status_code == 200


def test_a_call_without_a_token_is_rejected_in_the_live_format(anonymous):
    assert anonymous.get(TOOLS, status=401) == {"error": "Invalid Token"}


def test_an_expired_token_is_rejected_in_the_live_format(emulator, procore):
    emulator.control("POST", "clock", advance=5401)

    assert list(procore.get(TOOLS, status=401)) == ["errors"]


def test_the_lifetime_of_tokens_is_a_flag(emulator, anonymous):
    emulator.control("PATCH", "flags", token_lifetime=60)

    assert anonymous.post("/oauth/token", GRANT)["expires_in"] == 60


def test_revoking_ends_one_token_and_the_control_route_all(emulator, procore, workflowsoft):
    token = procore.session.headers["Authorization"].removeprefix("Bearer ")
    procore.post("/oauth/revoke", {"token": "never issued"})
    procore.get(TOOLS)
    procore.post("/oauth/revoke", {"token": token})
    procore.get(TOOLS, status=401)

    workflowsoft.get("/api/v2/workflows")
    emulator.control("POST", "tokens/revoke")
    workflowsoft.get("/api/v2/workflows", status=401)


def test_the_signed_in_user_has_a_name_only_within_a_company(procore):
    assert procore.get("/rest/v1.0/me") == {"id": 90001, "login": "integration@example.com"}
    assert procore.get("/rest/v1.0/me", company_id=4264807)["name"] == "Airflow Integration"
    assert procore.get("/rest/v1.0/companies") == [{"id": 4264807, "name": "Example Builders", "is_active": True}]


@pytest.mark.parametrize("path", [TOOLS, f"{PROJECT}/workflows/instances/700001", "/rest/v1.0/me"])
@pytest.mark.parametrize("status", [400, 403])
def test_missing_company_header_is_rejected_with_either_status(emulator, procore, path, status):
    emulator.control("PATCH", "flags", missing_company_header=str(status))
    del procore.session.headers["Procore-Company-Id"]

    assert "Missing Procore-Company-Id" in procore.get(path, status=status)["message"]


def test_another_company_is_rejected_in_header_and_path(procore):
    procore.get("/rest/v2.0/companies/1/workflows/tools", status=404)
    procore.get("/rest/v2.0/companies/4264807/projects/1/workflows/instances/700001", status=404)
    procore.session.headers["Procore-Company-Id"] = "1"
    procore.get(TOOLS, status=403)


# --- Workflowsoft ---


@pytest.mark.parametrize("shape", ["json_string", "text", "object"])
def test_a_workflowsoft_token_comes_in_every_format(emulator, anonymous, shape):
    emulator.control("PATCH", "flags", ws_token_shape=shape)

    response = anonymous.send("GET", "/api/v2/app/apitoken", headers={"Authorization": f"Basic {BASIC}"})

    token = {
        "json_string": lambda: response.json(),
        "text": lambda: response.text,
        "object": lambda: response.json()["access_token"],
    }[shape]()
    response = anonymous.send("GET", "/api/v2/workflows", headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("shape", "status", "header"),
    [
        ("login_page", 200, ("Content-Type", "text/html; charset=utf-8")),
        ("redirect", 302, ("Location", "/account/login")),
    ],
)
def test_the_token_route_may_return_the_login_page(emulator, anonymous, shape, status, header):
    emulator.control("PATCH", "flags", ws_token_shape=shape)

    response = anonymous.send("GET", "/api/v2/app/apitoken", headers={"Authorization": f"Basic {BASIC}"})

    assert response.status_code == status
    assert header in response.headers.items()


WAYS = {
    "basic": {"Authorization": f"Basic {BASIC}"},
    "bearer": {"Authorization": "Bearer emulator-password"},
    "cookie": {"Cookie": "session=emulator-password"},
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("accepted", [*WAYS, "any"])
@pytest.mark.parametrize("way", WAYS)
def test_only_the_flagged_way_of_signing_in_is_accepted(emulator, anonymous, accepted, way):
    emulator.control("PATCH", "flags", ws_api_token_auth=accepted)

    response = anonymous.send("GET", "/api/v2/app/apitoken", headers=WAYS[way])

    assert response.status_code == (200 if accepted in (way, "any") else 401)


@pytest.mark.parametrize(
    ("flag", "shown", "seconds"),
    [
        ("as_requested", {"expires_in": 60}, 60),
        ("shorter", {"expires_in": 30}, 30),
        ("not_stated", {}, 60),
    ],
)
def test_lifetime_of_a_workflowsoft_token_is_as_the_flag_says(emulator, anonymous, flag, shown, seconds):
    emulator.control("PATCH", "flags", ws_token_shape="object", ws_token_lifetime=flag)

    body = anonymous.send(
        "GET", "/api/v2/app/apitoken", params={"lifeTimeInSec": "60"}, headers={"Authorization": f"Basic {BASIC}"}
    ).json()

    signed_in = {"Authorization": f"Bearer {body.pop('access_token')}"}
    assert body == shown
    emulator.control("POST", "clock", advance=seconds - 5)
    assert anonymous.send("GET", "/api/v2/workflows", headers=signed_in).status_code == 200
    emulator.control("POST", "clock", advance=6)
    assert anonymous.send("GET", "/api/v2/workflows", headers=signed_in).status_code == 401


def test_a_workflowsoft_token_has_the_requested_lifetime(emulator, anonymous):
    token = anonymous.send(
        "GET", "/api/v2/app/apitoken", params={"lifeTimeInSec": "60"}, headers={"Authorization": f"Basic {BASIC}"}
    ).json()
    signed_in = {"Authorization": f"Bearer {token}"}

    assert anonymous.send("GET", "/api/v2/workflows", headers=signed_in).status_code == 200
    emulator.control("POST", "clock", advance=61)
    assert anonymous.send("GET", "/api/v2/workflows", headers=signed_in).status_code == 401
