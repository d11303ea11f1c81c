"""A file is stored in Procore once, under both answers to the open questions about uploads."""

from __future__ import annotations

import hashlib

import pytest

from airflow_provider_workflows.emulator.behaviour_flags import BEHAVIOUR_FLAGS
from airflow_provider_workflows.exceptions import ConfigurationError, InvalidRequest, ServerError
from airflow_provider_workflows.hooks import procore_uploads as uploads
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.retries import PERMANENT

pytestmark = pytest.mark.usefixtures("airflow_connections", "no_delays")

PARTS = (b"1" * (5 * 2**20 + 1), b"2" * (5 * 2**20 + 1), b"3")
HOUR = 3600


@pytest.fixture
def slept(emulator, monkeypatch) -> list[float]:
    """How long the client has slept; the emulator's clock follows."""
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        emulator.control("POST", "clock", advance=seconds)

    monkeypatch.setattr("time.sleep", sleep)
    return sleeps


def segment(content: bytes) -> dict[str, object]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def upload(*parts: bytes, read: object = None, **more: object) -> str:
    contents = parts or (b"the plan",)
    return ProcoreHook().upload(
        "plan.pdf", "application/pdf", [segment(content) for content in contents], read or contents, **more
    )


def sent(emulator, method: str, path: str) -> list[dict]:
    return [r for r in emulator.requests() if r["method"] == method and path in r["path"]]


def puts(emulator) -> list[int]:
    return [request["status"] for request in sent(emulator, "PUT", "/_storage/")]


def stored(emulator, upload_id: str) -> tuple[str, str]:
    """Return the status of an upload and the hash of what was stored."""
    (found,) = [upload for upload in emulator.control("GET", "uploads") if upload["id"] == upload_id]
    return found["status"], found["sha256"]


def whole(*parts: bytes) -> tuple[str, str]:
    return "available", hashlib.sha256(b"".join(parts)).hexdigest()


# --- the address of the storage ---


@pytest.mark.parametrize(("how", "orders"), [("shown", 1), ("new_upload", 2)])
def test_a_new_address_replaces_one_that_has_expired(emulator, how, orders):
    emulator.control("PATCH", "flags", upload_new_address=how)

    def slowly():
        for part in PARTS:
            yield part
            if part == PARTS[0] and puts(emulator) == [200]:
                emulator.control("POST", "clock", advance=HOUR)

    upload_id = upload(*PARTS, read=slowly)

    assert stored(emulator, upload_id) == whole(*PARTS)
    assert len(sent(emulator, "POST", "/uploads")) == orders
    assert puts(emulator) == ([200, 403, 200, 200] if how == "shown" else [200, 403, 200, 200, 200])


def test_every_part_may_ask_for_a_new_address(emulator):
    def slowly():
        for part in PARTS:
            emulator.control("POST", "clock", advance=HOUR)
            yield part

    upload_id = upload(*PARTS, read=slowly)

    assert stored(emulator, upload_id) == whole(*PARTS)
    assert puts(emulator) == [403, 200] * 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_an_expired_address_is_replaced_for_any_status(emulator, status):
    emulator.control("POST", "faults", method="PUT", path="/_storage/", status=status, body="<Code>Expired</Code>")

    assert stored(emulator, upload()) == whole(b"the plan")


def test_the_older_uploads_ask_for_a_new_address_too(emulator):
    emulator.control("PATCH", "flags", uploads="v1.1")
    emulator.control("POST", "faults", method="POST", path="/_storage/", status=403, body="<Code>Expired</Code>")

    assert stored(emulator, upload()) == whole(b"the plan")
    assert len(sent(emulator, "POST", "/rest/v1.1/")) == 2


@pytest.mark.parametrize("version", ["v2.1", "v1.1"])
@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_rejected_new_address_is_an_error_that_is_retried(emulator, version, status):
    emulator.control("PATCH", "flags", uploads=version, upload_new_address="new_upload")
    emulator.control("POST", "faults", path="/_storage/", status=status, times=99, body="<Code>AccessDenied</Code>")

    with pytest.raises(ServerError, match="AccessDenied") as failure:
        upload()

    assert not isinstance(failure.value, PERMANENT)
    assert "connection's user" not in str(failure.value)
    assert len([r for r in emulator.requests() if "/_storage/" in r["path"]]) == 2


def test_parts_that_cannot_be_reread_end_with_the_first_rejection(emulator):
    emulator.control("PATCH", "flags", upload_new_address="new_upload")
    emulator.control("POST", "faults", path="/_storage/", status=403, skip=1)

    with pytest.raises(ServerError):
        upload(*PARTS, read=iter(PARTS))


@pytest.mark.parametrize("now", [PARTS[:2], (*PARTS, b"4")])
def test_a_file_that_changes_while_it_is_uploaded_is_named(emulator, now):
    with pytest.raises(ConfigurationError, match=r"'plan.pdf' changed"):
        upload(*PARTS, read=now)
    assert sent(emulator, "PATCH", "/uploads/") == []


# --- completing it ---


@pytest.mark.sample(3)
@pytest.mark.parametrize("etags", BEHAVIOUR_FLAGS["upload_etags"].values)
@pytest.mark.parametrize("completion", BEHAVIOUR_FLAGS["upload_completion"].values)
def test_an_upload_is_completed_in_every_format(emulator, completion, etags):
    emulator.control("PATCH", "flags", upload_completion=completion, upload_etags=etags)

    assert stored(emulator, upload(*PARTS)) == whole(*PARTS)


def test_etags_are_sent_as_they_came(emulator):
    upload()

    (request,) = sent(emulator, "PATCH", "/uploads/")
    assert request["body"]["part_etags"] == [f'"{hashlib.md5(b"the plan").hexdigest()}"']


@pytest.mark.parametrize("again", BEHAVIOUR_FLAGS["upload_completed_again"].values)
def test_lost_completion_is_read(emulator, again):
    emulator.control("PATCH", "flags", upload_completed_again=again)
    emulator.control("POST", "faults", method="PATCH", path="/uploads/", reset="after")

    assert stored(emulator, upload()) == whole(b"the plan")
    assert len(sent(emulator, "POST", "/uploads")) == 1


def test_a_completion_that_is_rejected_for_good_is_an_error(emulator, slept):
    emulator.control("POST", "faults", method="PATCH", path="/uploads/", status=422, times=9, json={"error": "no"})

    with pytest.raises(InvalidRequest, match="no"):
        upload()
    assert slept == []


# --- until it is available ---


def test_an_upload_that_is_visible_only_later_is_waited_for(emulator, slept):
    emulator.control("PATCH", "flags", upload_visible_after=20, operation_delay=20)

    assert stored(emulator, upload()) == whole(b"the plan")
    assert sum(slept) >= 20


@pytest.mark.parametrize("case", BEHAVIOUR_FLAGS["background_status_case"].values)
def test_the_status_of_an_upload_counts_in_any_case(emulator, slept, case):
    emulator.control("PATCH", "flags", background_status_case=case, operation_delay=5)

    upload()

    assert 0 < len(slept) < 6


@pytest.mark.parametrize("status", ["failed", "FAILED", "expired"])
def test_an_upload_that_failed_ends_at_once(emulator, slept, status):
    emulator.control("POST", "faults", method="GET", path="/uploads/", status=200, json={"data": {"status": status}})

    with pytest.raises(ServerError, match=status.lower()):
        upload()
    assert slept == []


def test_an_infected_file_is_not_uploaded_again(emulator, slept):
    infected = {"data": {"status": "infected"}}
    emulator.control("POST", "faults", method="GET", path="/uploads/", status=200, json=infected)

    with pytest.raises(InvalidRequest, match="infected"):
        upload()
    assert slept == []


@pytest.mark.parametrize(
    "response", [{"status": 404, "json": {"error": "no"}}, {"status": 204}, {"status": 200, "json": []}]
)
def test_an_upload_that_never_shows_a_status_is_an_error(emulator, monkeypatch, response):
    monkeypatch.setattr(uploads, "MAX_WAIT_SECONDS", 0.05)
    emulator.control("POST", "faults", method="GET", path="/uploads/", times=10_000, **response)

    with pytest.raises(ServerError) as failure:
        upload()
    assert not isinstance(failure.value, PERMANENT)
