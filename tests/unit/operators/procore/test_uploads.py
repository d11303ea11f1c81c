"""Files that go with a response: checked first, stored without a token, attached once."""

from __future__ import annotations

import contextlib
import hashlib
import traceback

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import ObjectStoragePath

from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.client.retry import RetryPolicy
from airflow_provider_workflows.emulator.behaviour_flags import BEHAVIOUR_FLAGS
from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    ConnectionFailed,
    InvalidRequest,
    PermissionDenied,
    ServerError,
    UnexpectedResponse,
    UploadFailed,
)
from airflow_provider_workflows.hooks import procore_uploads as uploads
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.procore_uploads import Uploads
from airflow_provider_workflows.operators.procore import respond as operators
from airflow_provider_workflows.rules.procore import ATTACHMENT_KINDS
from tests.support.killed import Killed
from tests.unit.operators.procore.test_respond import INSTANCE, TOOL, respond, responses, step_of

pytestmark = pytest.mark.usefixtures("airflow_connections", "no_delays")

MIB = 2**20
API = "https://api.example.com"
PROJECT_UPLOADS = "/rest/v2.1/companies/7/projects/8/uploads"
SECRET = "s3cr3t-signature"
STORAGE = f"https://bucket.example.com/key-of-the-file?X-Signature={SECRET}"

SEGMENT = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.pdf"
    path.write_bytes(b"%PDF-1.7")
    return path


def stored(emulator) -> list[dict]:
    return emulator.control("GET", "uploads")


def attached(emulator) -> list[str]:
    """Return the names of the files in the response of the connection's user."""
    history = ProcoreHook().get_instance_history(INSTANCE)
    (shown,) = [r for event in history["history"] for r in event["details"].get("responses", []) if r["id"] == "90001"]
    return [attachment["name"] for attachment in shown["attachments"]]


def sent(emulator, pattern: str, method: str | None = None) -> list[dict]:
    return [r for r in emulator.requests() if pattern in r["path"] and method in (None, r["method"])]


def tokens(emulator) -> list[str]:
    return [r["idempotency_token"] for r in sent(emulator, "/responses")]


# --- a response with files ---


@pytest.mark.parametrize("version", ["v2.1", "v1.1"])
def test_files_are_stored_and_attached_with_both_kinds_of_uploads(emulator, store, plan, tmp_path, version):
    emulator.control("PATCH", "flags", uploads=version)
    (tmp_path / "photo.jpg").write_bytes(b"JPEG")
    photo = ObjectStoragePath(f"file://{tmp_path}/photo.jpg")

    result = respond(files=[str(plan), photo]).execute({"task_state_store": store})

    assert result["option"] == "Approve"
    assert attached(emulator) == ["plan.pdf", "photo.jpg"]
    assert [(u["name"], u["size"], u["content_type"], u["status"]) for u in stored(emulator)] == [
        ("plan.pdf", 8, "application/pdf", "available"),
        ("photo.jpg", 4, "image/jpeg", "available"),
    ]
    (request,) = sent(emulator, "/responses")
    assert request["body"]["response"]["attachments"] == {"upload_ids": [u["id"] for u in stored(emulator)]}


def test_files_of_a_company_tool_are_stored_for_the_company(emulator, store, plan):
    emulator.control("POST", "procore/instances", tool_type="prequalification", item_id="81", project_id=None)

    respond(item_id="81", tool_type="prequalification", files=plan).execute({"task_state_store": store})

    assert [r["path"] for r in sent(emulator, "/uploads", "POST")] == ["/rest/v2.1/companies/4264807/uploads"]


def test_the_older_uploads_are_used_at_the_company_level_too(emulator, plan):
    emulator.control("PATCH", "flags", uploads="v1.1")

    upload_id = ProcoreHook().upload("x.txt", "text/plain", [SEGMENT], iter([b"x"]), project_id="company")

    assert [u["id"] for u in stored(emulator)] == [upload_id]
    assert sent(emulator, "/rest/v1.1/companies/4264807/uploads", "POST")


def test_a_large_file_goes_in_parts(emulator, store, tmp_path, monkeypatch):
    monkeypatch.setattr(operators, "UPLOAD_PART", 6 * MIB)
    content = b"a" * 6 * MIB + b"b" * MIB
    (tmp_path / "model.ifc").write_bytes(content)

    respond(files=str(tmp_path / "model.ifc")).execute({"task_state_store": store})

    (upload,) = stored(emulator)
    assert (upload["size"], upload["sha256"]) == (7 * MIB, hashlib.sha256(content).hexdigest())
    (order,) = sent(emulator, "/uploads", "POST")
    assert [segment["size"] for segment in order["body"]["segments"]] == [6 * MIB, MIB]
    assert len(sent(emulator, "/_storage/", "PUT")) == 2


def test_existing_ids_go_with_the_files_of_the_same_kind(emulator, store, plan):
    there = ProcoreHook().upload("there.txt", "text/plain", [SEGMENT], iter([b"x"]))

    respond(files=plan, attachments={"upload_ids": there, "file_version_ids": [7, " 8 "]}).execute(
        {"task_state_store": store}
    )

    (request,) = sent(emulator, "/responses")
    new = stored(emulator)[1]["id"]
    assert request["body"]["response"]["attachments"] == {"upload_ids": [there, new], "file_version_ids": ["7", "8"]}
    assert attached(emulator) == ["there.txt", "plan.pdf", "7", "8"]


def test_paths_and_attachments_are_templates(emulator, store, plan):
    operator = respond(files="{{ folder }}/plan.pdf", attachments={"form_ids": ["{{ form }}"]})
    operator.render_template_fields({"folder": str(plan.parent), "form": "9"})

    operator.execute({"task_state_store": store})

    assert attached(emulator) == ["9", "plan.pdf"]


@pytest.mark.parametrize("kind", ATTACHMENT_KINDS[:-1])
def test_every_kind_of_attachment_goes_along(emulator, store, kind):
    respond(attachments={kind: [5]}).execute({"task_state_store": store})

    assert sent(emulator, "/responses")[0]["body"]["response"]["attachments"] == {kind: ["5"]}


@pytest.mark.parametrize(
    ("attachments", "named"),
    [
        *((value, "attachments must be a mapping") for value in ("", 0, False, [])),
        ({"photo_ids": ["1"]}, "the keys of attachments .* must be one of prostore_file_ids"),
        ({"form_ids": []}, "attachments: form_ids"),
        ({"form_ids": None}, "attachments: form_ids"),
        ({"form_ids": ["1", " "]}, "attachments: form_ids"),
        ({"form_ids": [None]}, "attachments: form_ids"),
        *(({"form_ids": ids}, "attachments: form_ids") for ids in ([5001.0], 5001.0, ["5001.0"], [True], [{"id": 1}])),
        ("{'form_ids': ['1']}", "attachments must be a mapping of kinds to ids"),
        (["1"], "attachments must be a mapping of kinds to ids"),
    ],
)
def test_wrong_attachments_are_named_before_anything_is_sent(emulator, store, attachments, named):
    with pytest.raises(ConfigurationError, match=named):
        respond(attachments=attachments).execute({"task_state_store": store})
    assert emulator.requests() == []


@pytest.mark.parametrize("wrong", ["missing", "empty", "folder", "blank", "none in a list", "twice the same name"])
def test_unattachable_files_are_named_before_sending(emulator, store, plan, tmp_path, wrong):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "plan.pdf").write_bytes(b"x")
    files = {
        "missing": tmp_path / "missing.pdf",
        "empty": tmp_path / "empty.txt",
        "folder": tmp_path,
        "blank": " ",
        "none in a list": [str(plan), None],
        "twice the same name": [plan, tmp_path / "other" / "plan.pdf"],
    }[wrong]

    with pytest.raises(ConfigurationError, match="^files: "):
        respond(files=[plan, files] if wrong == "missing" else files).execute({"task_state_store": store})
    assert [r for r in emulator.requests() if r["method"] != "GET" and r["path"] != "/oauth/token"] == []


def test_nothing_is_stored_when_the_response_cannot_be_sent(emulator, store, plan):
    with pytest.raises(ConfigurationError, match="'Aprove' matches no option"):
        respond(option="Aprove", files=plan).execute({"task_state_store": store})
    with pytest.raises(AirflowFailException, match="StepMoved"):
        respond(step_occurrence_id="gone", files=plan).execute({"task_state_store": store})

    assert stored(emulator) == []


# --- retries ---


def test_after_success_a_retry_needs_the_file_no_more(emulator, store, plan):
    first = respond(files=plan).execute({"task_state_store": store})
    plan.unlink()

    again = respond(files=plan).execute({"task_state_store": store})

    assert {**again, "option_id": None} == {**first, "option_id": None, "already_recorded": True}
    assert responses(emulator) == [("90001", "Approve")]
    assert len(stored(emulator)) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_response_is_reconciled_with_the_files_stored_once(emulator, store, plan, moment):
    emulator.control("POST", "faults", method="POST", path="/responses$", reset=moment)

    respond(files=plan).execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]
    assert attached(emulator) == ["plan.pdf"]
    assert len(stored(emulator)) == 1
    assert len(set(tokens(emulator))) == 1


def test_token_is_equal_over_retries_and_differs_for_other_files(emulator, store, plan):
    emulator.control("POST", "faults", method="POST", path="/responses$", status=400, times=3, json={"error": "no"})
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            respond(files=plan).execute({"task_state_store": store})
    plan.write_bytes(b"%PDF-1.8")
    with pytest.raises(InvalidRequest):
        respond(files=plan).execute({"task_state_store": store})
    respond().execute({"task_state_store": store})

    first, second, changed, without = tokens(emulator)
    assert first == second
    assert len({first, changed, without}) == 3


@pytest.mark.sample(3)
@pytest.mark.parametrize("compares", BEHAVIOUR_FLAGS["idempotency_other_body"].values)
@pytest.mark.parametrize("idempotency", BEHAVIOUR_FLAGS["idempotency"].values)
@pytest.mark.parametrize("has_store", [True, False], ids=["with a store", "without a store"])
def test_retry_is_accepted_whether_the_server_compares(emulator, store, plan, has_store, idempotency, compares):
    emulator.control("PATCH", "flags", idempotency_other_body=compares, idempotency=idempotency)
    step = step_of(emulator)["step_occurrence_id"]
    context = {"task_state_store": store} if has_store else {}

    def try_it():
        return respond(step_occurrence_id=step, files=plan, retries=0).execute(context)

    # Procore receives the first request, and says that it does not take it.
    emulator.control("POST", "faults", method="POST", path="/responses$", status=400, after=True, json={"error": "no"})
    emulator.control("PATCH", "flags", respond_status="200_error")
    with pytest.raises(InvalidRequest):
        try_it()
    emulator.control("PATCH", "flags", respond_status="204")
    try_it()

    assert responses(emulator) == [("90001", "Approve")]
    assert attached(emulator) == ["plan.pdf"]
    assert len(stored(emulator)) == (1 if has_store else 2)
    assert len(set(tokens(emulator))) == (1 if has_store else 2)


def test_each_token_is_used_for_one_body(emulator, store):
    for attachments in ({"form_ids": ["1", "2"]}, {"form_ids": ["2", "1"]}, {"form_ids": ["1", "2"]}):
        emulator.control("POST", "faults", method="POST", path="/responses$", status=400, json={"error": "no"})
        with pytest.raises(InvalidRequest):
            respond(attachments=attachments).execute({"task_state_store": store})

    first, other, again = tokens(emulator)
    assert first == again != other


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"JPEG")
    return path


def names(emulator) -> list[str]:
    return [upload["name"] for upload in stored(emulator)]


def reject_next_response(emulator) -> None:
    emulator.control("POST", "faults", method="POST", path="/responses$", status=400, json={"error": "no"})


@pytest.mark.parametrize("version", ["v2.1", "v1.1"])
def test_a_try_uploads_what_earlier_tries_have_not(emulator, store, plan, photo, version, dies):
    emulator.control("PATCH", "flags", uploads=version)
    dies(ProcoreHook, "upload", "before", about="photo.jpg")

    for _ in range(2):
        with contextlib.suppress(Killed):
            respond(files=[plan, photo]).execute({"task_state_store": store})

    assert names(emulator) == attached(emulator) == ["plan.pdf", "photo.jpg"]


def test_only_a_file_that_has_changed_is_uploaded_again(emulator, store, plan, photo):
    reject_next_response(emulator)
    with pytest.raises(InvalidRequest):
        respond(files=[plan, photo]).execute({"task_state_store": store})
    photo.write_bytes(b"another")

    respond(files=[plan, photo]).execute({"task_state_store": store})

    assert names(emulator) == ["plan.pdf", "photo.jpg", "photo.jpg"]
    assert sent(emulator, "/responses")[-1]["body"]["response"]["attachments"]["upload_ids"] == [
        stored(emulator)[0]["id"],
        stored(emulator)[2]["id"],
    ]


@pytest.mark.parametrize(("hours", "uploads_in_all"), [(22, 1), (25, 2)])
def test_upload_that_procore_has_deleted_is_replaced(emulator, store, plan, hours, uploads_in_all):
    reject_next_response(emulator)
    with pytest.raises(InvalidRequest):
        respond(files=plan).execute({"task_state_store": store})
    emulator.control("POST", "clock", advance=hours * 3600)

    respond(files=plan).execute({"task_state_store": store})

    assert len(stored(emulator)) == uploads_in_all
    assert attached(emulator) == ["plan.pdf"]


def test_slow_processing_is_waited_for_and_not_uploaded_again(emulator, store, plan, monkeypatch):
    emulator.control("PATCH", "flags", operation_delay=3600)
    monkeypatch.setattr(uploads, "MAX_WAIT_SECONDS", 0.05)
    with pytest.raises(ServerError):
        respond(files=plan).execute({"task_state_store": store})
    emulator.control("POST", "clock", advance=3600)

    respond(files=plan).execute({"task_state_store": store})

    assert names(emulator) == attached(emulator) == ["plan.pdf"]


def test_a_retry_uploads_again_what_procore_could_not_process(emulator, store, plan):
    failed = {"data": {"status": "failed"}}
    emulator.control("POST", "faults", method="GET", path="/uploads/", status=200, times=2, json=failed)
    with pytest.raises(UploadFailed):
        respond(files=plan).execute({"task_state_store": store})

    respond(files=plan).execute({"task_state_store": store})

    assert len(stored(emulator)) == 2
    assert attached(emulator) == ["plan.pdf"]


@pytest.mark.parametrize("changed", ["user_id", "project_id", "company_id"])
def test_upload_of_another_user_or_place_is_not_attached(emulator, store, plan, changed):
    reject_next_response(emulator)
    with pytest.raises(InvalidRequest):
        respond(files=plan).execute({"task_state_store": store})
    store["uploads"]["uploads"][0][changed] = "1"

    respond(files=plan).execute({"task_state_store": store})

    assert len(stored(emulator)) == 2


@pytest.mark.sample(3)
@pytest.mark.parametrize("fault", [{"reset": "before"}, {"reset": "after"}, {"status": 503}])
@pytest.mark.parametrize("path", ["/uploads$", "/_storage/", "/uploads/[^/]+$"])
def test_a_fault_while_a_file_is_stored_is_passed_over(emulator, store, plan, path, fault):
    emulator.control("POST", "faults", path=path, **fault)

    respond(files=plan).execute({"task_state_store": store})

    assert attached(emulator) == ["plan.pdf"]
    assert responses(emulator) == [("90001", "Approve")]


@pytest.mark.sample(3)
@pytest.mark.parametrize(("status", "error"), [(403, PermissionDenied), (422, InvalidRequest), (500, ServerError)])
@pytest.mark.parametrize("path", ["/uploads$", "/_storage/", "/uploads/[^/]+$"])
def test_rejected_file_leaves_the_step_without_a_response(emulator, store, plan, path, status, error):
    emulator.control("POST", "faults", path=path, status=status, times=9, json={"error": "no"})

    with pytest.raises(ServerError if (path, status) == ("/_storage/", 403) else error):
        respond(files=plan).execute({"task_state_store": store})
    assert responses(emulator) == []

    emulator.control("DELETE", "faults")
    respond(files=plan).execute({"task_state_store": store})
    assert attached(emulator) == ["plan.pdf"]


def test_a_file_is_attached_when_procore_is_done_with_it(emulator, store, plan, monkeypatch):
    emulator.control("PATCH", "flags", operation_delay=30)
    sleeps = []

    def sleep(seconds):
        sleeps.append(seconds)
        emulator.control("POST", "clock", advance=20)

    monkeypatch.setattr("time.sleep", sleep)
    respond(files=plan).execute({"task_state_store": store})

    assert len(sleeps) == 2
    assert attached(emulator) == ["plan.pdf"]


def test_a_file_that_never_becomes_available_is_not_attached(emulator, store, plan, monkeypatch):
    emulator.control("PATCH", "flags", operation_delay=3600)
    monkeypatch.setattr(uploads, "MAX_WAIT_SECONDS", 0.05)
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    with pytest.raises(ServerError, match="status is still 'processing' after"):
        respond(files=plan).execute({"task_state_store": store})
    assert responses(emulator) == []


# --- the storage ---


@pytest.mark.parametrize("version", ["v2.1", "v1.1"])
def test_the_storage_gets_no_token_and_no_header_of_procore(emulator, store, plan, version):
    emulator.control("PATCH", "flags", uploads=version)

    respond(files=plan).execute({"task_state_store": store})

    (storing,) = sent(emulator, "/_storage/")
    assert (storing["has_auth"], storing["company_header"]) == (False, None)
    assert all(r["has_auth"] for r in sent(emulator, "/rest/"))


@pytest.mark.parametrize("version", ["v2.1", "v1.1"])
@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 403}, {"status": 503}, {"reset": "before"}])
def test_the_address_of_the_storage_is_in_no_error(emulator, store, plan, version, fault):
    emulator.control("PATCH", "flags", uploads=version)
    emulator.control(
        "POST", "faults", path="/_storage/", times=9, json={"error": "no"} if "status" in fault else None, **fault
    )

    with pytest.raises((ServerError, PermissionDenied, ConnectionFailed)) as failure:
        respond(files=plan).execute({"task_state_store": store})

    secrets = {r["path"].rpartition("/")[2] for r in sent(emulator, "/_storage/")}
    reported = str(failure.value) + "".join(traceback.format_exception(failure.value))
    assert secrets
    assert [secret for secret in secrets if secret in reported] == []
    assert "The storage did not accept the file" in reported


@pytest.fixture
def client():
    """A client of an API that is https."""
    client = RestClient(API, retry=RetryPolicy.none())
    yield client
    client.close()


def accept(requests_mock, target: object) -> None:
    response = {"data": {"upload_id": "U", "segments": [target]}}
    requests_mock.post(f"{API}{PROJECT_UPLOADS}", status_code=201, json=response)


def put(client) -> str:
    return Uploads(client, "7", "8").store("x.txt", "text/plain", [SEGMENT], iter([b"x"]))


def test_a_file_is_stored_as_the_contract_says(requests_mock, client):
    accept(requests_mock, {"url": STORAGE, "headers": {"x-amz-acl": "private", "Content-Length": 1}})
    storage = requests_mock.put(STORAGE, headers={"ETag": '"e1"'})
    finished = requests_mock.patch(f"{API}{PROJECT_UPLOADS}/U", json={"data": {}})
    requests_mock.get(f"{API}{PROJECT_UPLOADS}/U", json={"data": {"status": "available"}})

    assert put(client) == "U"
    assert storage.last_request.body == b"x"
    assert storage.last_request.headers["x-amz-acl"] == "private"
    assert storage.last_request.url == STORAGE
    assert finished.last_request.json() == {"part_etags": ['"e1"']}
    assert requests_mock.request_history[0].json() == {
        "file_name": "x.txt",
        "file_size": 1,
        "content_type": "text/plain",
        "segments": [SEGMENT],
    }


def test_what_the_storage_says_is_reported_without_the_signature(requests_mock, client):
    accept(requests_mock, {"url": STORAGE, "headers": {}})
    body = f"<Error><Code>SignatureDoesNotMatch</Code><S>{SECRET}</S><Key>/key-of-the-file</Key></Error>"
    requests_mock.put(STORAGE, status_code=403, text=body)
    requests_mock.get(f"{API}{PROJECT_UPLOADS}/U", json={"data": {"status": "ready"}})

    with pytest.raises(ServerError, match="SignatureDoesNotMatch") as failure:
        put(client)

    reported = "".join(traceback.format_exception(failure.value))
    assert "bucket.example.com" in reported
    assert SECRET not in reported
    assert "key-of-the-file" not in reported


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"url": f"http://bucket.example.com/k?X={SECRET}"}, "not https"),
        ({"url": f"file:///etc/passwd?X={SECRET}"}, "not valid"),
        ({"url": f"ftp://bucket.example.com/{SECRET}"}, "not https"),
        ({"url": f"https://[{SECRET}"}, "not valid"),
        ({"url": f"https://?{SECRET}"}, "not valid"),
        ({"url": None}, "not valid"),
        ({}, "not valid"),
        ("https://bucket.example.com", "not an object"),
    ],
)
def test_an_address_that_is_not_https_is_rejected_and_gets_nothing(requests_mock, client, target, message):
    accept(requests_mock, target)

    with pytest.raises(UnexpectedResponse, match=message) as failure:
        put(client)
    assert requests_mock.call_count == 1
    assert SECRET not in "".join(traceback.format_exception(failure.value))


@pytest.mark.parametrize(
    "response",
    [{}, {"data": None}, {"data": []}, {"data": {"upload_id": "U", "segments": []}}, [], {"data": {"segments": [{}]}}],
)
def test_order_with_an_unexpected_response_is_an_error(requests_mock, client, response):
    requests_mock.post(f"{API}{PROJECT_UPLOADS}", status_code=201, json=response)

    with pytest.raises(UnexpectedResponse):
        put(client)


@pytest.mark.parametrize("response", [{}, {"uuid": "U"}, {"uuid": "U", "fields": [], "url": STORAGE}, {"fields": {}}])
def test_older_order_with_an_unexpected_response_is_an_error(requests_mock, client, response):
    requests_mock.post(f"{API}{PROJECT_UPLOADS}", status_code=404)
    requests_mock.post(f"{API}/rest/v1.1/projects/8/uploads", status_code=201, json=response)

    with pytest.raises(UnexpectedResponse):
        put(client)


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_rejection_does_not_switch_to_the_older_uploads(requests_mock, client, status):
    requests_mock.post(f"{API}{PROJECT_UPLOADS}", status_code=status)

    with pytest.raises((InvalidRequest, PermissionDenied)):
        put(client)
    assert requests_mock.call_count == 1


def test_file_too_large_for_older_uploads_is_rejected_unsent(requests_mock, client):
    requests_mock.post(f"{API}{PROJECT_UPLOADS}", status_code=404)

    with pytest.raises(ConfigurationError, match=r"'x.txt' has 104857601 bytes"):
        Uploads(client, "7", "8").store("x.txt", "text/plain", [{"size": 100 * MIB + 1}], iter([b"x"]))
    assert requests_mock.call_count == 1


def test_the_item_can_be_set_for_a_response_with_files(emulator, store, plan):
    result = respond(item_id=5001, tool_type=TOOL, files=[plan]).execute({"task_state_store": store})

    assert result["instance_id"] == INSTANCE
    assert attached(emulator) == ["plan.pdf"]
