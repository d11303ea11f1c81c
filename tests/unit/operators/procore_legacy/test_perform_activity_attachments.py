"""Files that go with an activity: checked before anything is sent, and sent once."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import ObjectStoragePath

from airflow_provider_workflows.exceptions import ConfigurationError, InvalidRequest
from airflow_provider_workflows.operators.procore_legacy import activity_content
from tests.unit.operators.procore_legacy.test_perform_activity import POST, perform, performed

pytestmark = pytest.mark.usefixtures("airflow_connections")


@pytest.fixture
def quote(tmp_path):
    path = tmp_path / "quote.pdf"
    path.write_bytes(b"%PDF-1.7")
    return path


def detail(emulator) -> dict:
    (effect,) = emulator.effects()
    return effect["detail"]


def posts(emulator) -> list[dict]:
    return [r for r in emulator.requests() if r["method"] == "POST" and "histories" in r["path"]]


def test_files_from_anywhere_go_with_the_activity(emulator, store, quote, tmp_path):
    (tmp_path / "plan.png").write_bytes(b"PNG")
    plan = ObjectStoragePath(f"file://{tmp_path}/plan.png")

    result = perform(comments="Für Rita", attachments=[str(quote), plan]).execute({"task_state_store": store})

    assert result["comments"] == "Für Rita"
    assert detail(emulator)["attachments"] == [{"name": "quote.pdf", "size": 8}, {"name": "plan.png", "size": 3}]


def test_one_path_needs_no_list_and_is_a_template(emulator, quote):
    operator = perform(attachments="{{ folder }}/quote.pdf", prostore_file_ids=["{{ stored }}"])

    operator.render_template_fields({"folder": str(quote.parent), "stored": 77})
    operator.execute({})

    assert detail(emulator)["attachments"] == [{"name": "quote.pdf", "size": 8}]
    assert detail(emulator)["prostore_file_ids"] == [77]


def test_stored_files_are_attached_by_their_ids(emulator, store):
    perform(prostore_file_ids=[77, "78"]).execute({"task_state_store": store})

    assert detail(emulator)["prostore_file_ids"] == [77, 78]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "there is no file"),
        ({"quote.pdf": b""}, "is empty"),
        ({"quote.pdf": b"123456789"}, "has 9 bytes; the maximum is 8"),
        ({"quote.pdf": b"12345", "plan.png": b"1234"}, "the files have 9 bytes together; the maximum is 8"),
    ],
)
def test_files_that_cannot_go_are_named_before_anything_is_sent(emulator, store, monkeypatch, tmp_path, files, problem):
    monkeypatch.setattr(activity_content, "MAX_ATTACHMENT_BYTES", 8)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    with pytest.raises(ConfigurationError, match=f"attachments: .*{problem}"):
        perform(attachments=[tmp_path / name for name in files or {"none": b""}]).execute({"task_state_store": store})
    assert emulator.requests() == []


def test_empty_rendering_is_an_error_and_not_no_file(emulator, store):
    with pytest.raises(ConfigurationError, match="attachments: a path is missing"):
        perform(attachments="").execute({"task_state_store": store})
    assert emulator.requests() == []


def test_unreadable_file_leaves_the_activity_to_a_retry(emulator, store, monkeypatch, quote):
    def gone(file, size):
        raise OSError("the disk is away")

    with monkeypatch.context() as broken:
        broken.setattr(activity_content.AttachedFile, "parts", gone)
        with pytest.raises(ConfigurationError, match="cannot be read: the disk is away"):
            perform(attachments=quote).execute({"task_state_store": store})
    assert posts(emulator) == []

    perform(attachments=quote).execute({"task_state_store": store})
    assert len(performed(emulator)) == 1


def test_a_retry_finds_it_done_though_the_file_is_gone(emulator, store, quote):
    first = perform(attachments=quote).execute({"task_state_store": store})
    quote.unlink()

    assert perform(attachments=quote).execute({"task_state_store": store}) == {**first, "already_performed": True}
    assert len(posts(emulator)) == 1


def test_a_lost_response_is_reconciled_by_reading(emulator, store, quote):
    emulator.control("POST", "faults", **POST, reset="after")

    result = perform(attachments=quote).execute({"task_state_store": store})

    assert result["activity_id"] == "29945"
    assert detail(emulator)["attachments"] == [{"name": "quote.pdf", "size": 8}]


def test_a_request_that_did_not_arrive_is_never_sent_again(emulator, store, quote):
    emulator.control("POST", "faults", **POST, reset="before")

    for _ in range(2):  # the try itself, and a manual retry
        with pytest.raises(AirflowFailException, match=r"OutcomeUnknown.*shows no activity 29945 since"):
            perform(attachments=quote).execute({"task_state_store": store})
    assert performed(emulator) == []
    assert len(posts(emulator)) == 1


def test_a_rejection_may_be_tried_again_with_the_same_files(emulator, store, quote):
    emulator.control("POST", "faults", **POST, status=400, json={"errors": "too large"})

    with pytest.raises(InvalidRequest):
        perform(attachments=quote).execute({"task_state_store": store})
    perform(attachments=quote).execute({"task_state_store": store})

    assert detail(emulator)["attachments"] == [{"name": "quote.pdf", "size": 8}]


@pytest.mark.parametrize("field", ["nested", "plain"])
def test_activity_is_performed_whichever_field_takes_the_files(emulator, store, quote, field):
    emulator.control("PATCH", "flags", legacy_attachments=field)

    assert perform(attachments=quote).execute({"task_state_store": store})["already_performed"] is False
    assert ("attachments" in detail(emulator)) is (field == "nested")


def test_files_that_procore_does_not_show_are_reported(emulator, store, quote, capsys):
    emulator.control("PATCH", "flags", legacy_attachments="plain")

    perform(attachments=quote).execute({"task_state_store": store})

    assert "Procore shows 0 of the 1 attached files" in capsys.readouterr().out
