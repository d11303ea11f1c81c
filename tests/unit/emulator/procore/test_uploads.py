"""Uploading files to Procore, and attaching them."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import requests

from tests.unit.emulator.conftest import COMPANY, PROJECT, Client
from tests.unit.emulator.procore.test_instances import history_of, reasons, respond_with

UPLOADS = PROJECT.replace("v2.0", "v2.1") + "/uploads"
COMPANY_UPLOADS = COMPANY.replace("v2.0", "v2.1") + "/uploads"
OLDER = "/rest/v1.1/projects/1001/uploads"
MIB = 2**20


def segment(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def order(*parts: bytes) -> dict[str, Any]:
    size = sum(len(part) for part in parts)
    return {"file_name": "plan.pdf", "file_size": size, "segments": [segment(part) for part in parts]}


def uploaded(procore: Client, anonymous: Client, *parts: bytes, where: str = UPLOADS) -> str:
    """Upload a file whole and return its id."""
    created = procore.post(where, order(*parts), status=201)["data"]
    targets = created["segments"]
    etags = [
        anonymous.send("PUT", target["url"], data=part).headers["ETag"]
        for target, part in zip(targets, parts, strict=True)
    ]
    response = procore.patch(f"{where}/{created['upload_id']}", {"part_etags": etags})["data"]
    assert response["status"] == "processing"
    return created["upload_id"]


@pytest.mark.parametrize("where", [UPLOADS, COMPANY_UPLOADS])
def test_a_file_is_uploaded_and_attached(emulator, procore, anonymous, where):
    upload_id = uploaded(procore, anonymous, b"the plan", where=where)
    assert len(upload_id) == 26
    assert procore.get(f"{where}/{upload_id}")["data"]["status"] == "available"

    respond_with(procore, "Approve", attachments={"upload_ids": [upload_id]})

    [shown] = history_of(procore)["history"][1]["details"]["responses"][0]["attachments"]
    assert (shown["id"], shown["name"]) == (upload_id, "plan.pdf")
    [stored] = emulator.control("GET", "uploads")
    assert stored == {
        "id": upload_id,
        "name": "plan.pdf",
        "size": 8,
        "sha256": hashlib.sha256(b"the plan").hexdigest(),
        "status": "available",
        "content_type": None,
    }


def test_a_file_of_several_parts_is_put_together_in_order(emulator, procore, anonymous):
    first = b"1" * (5 * MIB + 1)
    uploaded(procore, anonymous, first, b"2")

    [stored] = emulator.control("GET", "uploads")
    assert stored["sha256"] == hashlib.sha256(first + b"2").hexdigest()
    puts = [r for r in emulator.requests() if r["path"].startswith("/_storage/")]
    assert [(r["method"], r["has_auth"], r["body"]) for r in puts] == [("PUT", False, None)] * 2


def test_only_an_upload_that_is_available_can_be_attached(emulator, procore, anonymous):
    emulator.control("PATCH", "flags", operation_delay=60)
    upload_id = uploaded(procore, anonymous, b"the plan")

    for upload in (upload_id, "unknown"):
        rejected = respond_with(procore, "Approve", status=422, attachments={"upload_ids": [upload]})
        assert reasons(rejected) == ["upload_not_available"]
    assert emulator.effects() == []
    emulator.control("POST", "clock", advance=60)
    respond_with(procore, "Approve", attachments={"upload_ids": [upload_id]})


@pytest.mark.parametrize(
    "wrong",
    [
        {"segments": []},
        {"file_size": 5},
        {"file_size": 100 * MIB + 1, "segments": [{"size": 100 * MIB + 1, "sha256": ""}]},
        {"file_size": 5 * MIB + 1, "segments": [{"size": 5 * MIB, "sha256": ""}, {"size": 1, "sha256": ""}]},
    ],
)
def test_parts_of_a_wrong_size_are_rejected(emulator, procore, wrong):
    assert reasons(procore.post(UPLOADS, {**order(b"1"), **wrong}, status=422)) == ["invalid_segments"]
    assert emulator.control("GET", "uploads") == []


def test_the_storage_takes_only_what_was_announced_and_no_token(procore, anonymous):
    created = procore.post(UPLOADS, order(b"the plan"), status=201)["data"]
    [target] = created["segments"]
    finish = f"{UPLOADS}/{created['upload_id']}"

    assert procore.send("PUT", target["url"], data=b"the plan").status_code == 400
    assert anonymous.send("PUT", target["url"], data=b"the plans").status_code == 400
    assert anonymous.send("PUT", target["url"], data=b"the pla2").status_code == 400
    assert anonymous.send("PUT", target["url"] + "x", data=b"the plan").status_code == 403
    assert reasons(procore.patch(finish, {"part_etags": ["d41d8cd98f00b204e9800998ecf8427e"]}, 422)) == ["wrong_etags"]
    etag = anonymous.send("PUT", target["url"], data=b"the plan").headers["ETag"].strip('"')
    assert reasons(procore.patch(finish, {"part_etags": [etag, etag]}, 422)) == ["wrong_etags"]
    procore.patch(finish, {"part_etags": [etag]})
    procore.get(f"{UPLOADS}/unknown", status=404)


def parts_sent(procore: Client, anonymous: Client, *parts: bytes) -> tuple[str, list[str]]:
    """Upload the parts of a file; return its path and the ETags as they came."""
    created = procore.post(UPLOADS, order(*parts), status=201)["data"]
    puts = zip(created["segments"], parts, strict=True)
    etags = [anonymous.send("PUT", target["url"], data=part).headers["ETag"] for target, part in puts]
    return f"{UPLOADS}/{created['upload_id']}", etags


@pytest.mark.parametrize(
    ("accepted", "quoted", "bare"), [("either", 200, 200), ("as_they_came", 200, 422), ("without_quotes", 422, 200)]
)
def test_etags_are_accepted_in_the_format_of_the_flag(emulator, procore, anonymous, accepted, quoted, bare):
    emulator.control("PATCH", "flags", upload_etags=accepted, upload_completed_again="200")
    path, etags = parts_sent(procore, anonymous, b"the plan")

    procore.patch(path, {"part_etags": etags}, quoted)
    procore.patch(path, {"part_etags": [etag.strip('"') for etag in etags]}, bare)


@pytest.mark.parametrize("again", ["409", "200"])
@pytest.mark.parametrize("completion", ["200", "204"])
def test_an_upload_is_completed_as_the_flags_say(emulator, procore, anonymous, completion, again):
    emulator.control("PATCH", "flags", upload_completion=completion, upload_completed_again=again)
    path, etags = parts_sent(procore, anonymous, b"the plan")

    procore.patch(path, {"part_etags": etags}, int(completion))
    second = int(completion) if again == "200" else 409
    procore.patch(path, {"part_etags": etags}, second)
    assert procore.get(path)["data"]["status"] == "available"


def test_an_upload_is_visible_after_the_seconds_of_the_flag(emulator, procore):
    emulator.control("PATCH", "flags", upload_visible_after=60)
    path = f"{UPLOADS}/{procore.post(UPLOADS, order(b'1'), status=201)['data']['upload_id']}"

    procore.get(path, status=404)
    emulator.control("POST", "clock", advance=60)
    assert procore.get(path)["data"]["status"] == "uploading"


@pytest.mark.parametrize("how", ["shown", "new_upload"])
def test_an_address_expires_after_an_hour_and_is_renewed_by_flag(emulator, procore, anonymous, how):
    emulator.control("PATCH", "flags", upload_new_address=how)
    first, second = b"1" * (5 * MIB + 1), b"2"
    created = procore.post(UPLOADS, order(first, second), status=201)["data"]
    old = [target["url"] for target in created["segments"]]
    assert anonymous.send("PUT", old[0], data=first).status_code == 200
    emulator.control("POST", "clock", advance=3600)

    assert anonymous.send("PUT", old[1], data=second).status_code == 403
    new = procore.get(f"{UPLOADS}/{created['upload_id']}")["data"]["segments"]
    if how == "new_upload":
        assert new == []
    else:
        [target] = new  # of the part that is missing
        assert target["url"] not in old
        assert anonymous.send("PUT", target["url"], data=second).status_code == 200


def test_an_upload_that_is_not_attached_is_gone_after_a_day(emulator, long_lived_tokens, procore, anonymous):
    path = f"{UPLOADS}/{uploaded(procore, anonymous, b'the plan')}"
    emulator.control("POST", "clock", advance=24 * 3600)

    procore.get(path, status=404)
    rejected = respond_with(procore, "Approve", status=422, attachments={"upload_ids": [path.rpartition("/")[2]]})
    assert reasons(rejected) == ["upload_not_available"]


def test_the_status_of_an_upload_comes_in_the_case_of_the_flag(emulator, procore, anonymous):
    emulator.control("PATCH", "flags", background_status_case="upper")
    path = f"{UPLOADS}/{procore.post(UPLOADS, order(b'1'), status=201)['data']['upload_id']}"

    assert procore.get(path)["data"]["status"] == "UPLOADING"


# --- the older uploads ---


@pytest.mark.parametrize("where", [OLDER, "/rest/v1.1/companies/4264807/uploads"])
def test_the_older_uploads_take_a_form(emulator, procore, anonymous, where):
    emulator.control("PATCH", "flags", uploads="v1.1")
    body = {"response_filename": "plan.pdf", "response_content_type": "application/pdf"}
    created = procore.post(where, body, status=201)
    file = {"file": ("plan.pdf", b"the plan")}

    assert anonymous.send("POST", created["url"], data={"key": "another"}, files=file).status_code == 400
    assert anonymous.send("POST", created["url"], data=created["fields"], files=file).status_code == 204

    respond_with(procore, "Approve", attachments={"upload_ids": [created["uuid"]]})
    [stored] = emulator.control("GET", "uploads")
    assert (stored["size"], stored["content_type"]) == (8, "application/pdf")


def test_the_older_uploads_take_segments(emulator, procore, anonymous):
    emulator.control("PATCH", "flags", uploads="v1.1")
    body = {"response_filename": "plan.pdf", "segments": [segment(b"the "), segment(b"plan")]}
    created = procore.post(OLDER, body, status=201)
    etags = [
        anonymous.send("PUT", target["url"], data=part).headers["ETag"]
        for target, part in zip(created["segments"], (b"the ", b"plan"), strict=True)
    ]
    procore.patch(f"{OLDER}/{created['uuid']}", {"segments": [{"etag": etag} for etag in etags]})

    [stored] = emulator.control("GET", "uploads")
    assert (stored["sha256"], stored["status"]) == (hashlib.sha256(b"the plan").hexdigest(), "available")


def test_one_version_of_the_uploads_is_there(emulator, procore):
    older = {"response_filename": "plan.pdf"}
    procore.post(OLDER, older, status=404)
    emulator.control("PATCH", "flags", uploads="v1.1")
    procore.post(UPLOADS, order(b"1"), status=404)
    procore.post(f"{OLDER.replace('1001', '1003')}", older, status=404)
    procore.post(OLDER, {}, status=400)
    response = requests.post(procore.url + OLDER, json=older, timeout=5)
    assert response.status_code == 401
