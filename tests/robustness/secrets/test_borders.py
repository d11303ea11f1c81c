"""What stays inside: ids in their segment on the wire, files in their folder, the emulator on this machine."""

from __future__ import annotations

import ast
import email
import inspect
from itertools import chain
from pathlib import Path

import pytest
from airflow.sdk import ObjectStoragePath
from fastapi.routing import APIRoute
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.routing import Route

from airflow_provider_workflows import emulator as emulator_package
from airflow_provider_workflows.emulator import Emulator
from airflow_provider_workflows.emulator.__main__ import main
from airflow_provider_workflows.emulator.app import EmulatorApp
from airflow_provider_workflows.exceptions import ConfigurationError, WorkflowsError
from airflow_provider_workflows.files.object_storage import attached_files, storage_path
from airflow_provider_workflows.files.table_writer import Tables
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook, _form_parts
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from tests.robustness.secrets.servers import OtherHost

# Each would reach another route, or say more, if a server read it in another way than intended.
IDS = (
    "../../x",
    "..%2fx",
    "%2e%2e",
    "1?a=b&c=d",
    "1;a=b#c",
    "@host",
    "//host",
    "\\",
    "1\r\nX-Header: y",
    "\x00",
    "\u2025/",
)
ROUTES = {
    "show": lambda value: ProcoreHook().get_instance(value),
    "project": lambda value: ProcoreHook().get_instance("700001", project_id=value),
    "terminate": lambda value: ProcoreHook().terminate_instance(value),
    "legacy": lambda value: ProcoreLegacyHook().get_instance(value),
    "fields": lambda value: WorkflowsoftHook().get_fields(value),
    "complete": lambda value: WorkflowsoftHook().complete(value),
}

# --- on the wire ---


@pytest.mark.sample(3)
@pytest.mark.parametrize("send", ROUTES.values(), ids=ROUTES)
def test_no_id_reaches_another_route_or_changes_anything(airflow_connections, send):
    for value in IDS:
        with pytest.raises((WorkflowsError, ValueError)):
            send(value)

    # Besides signing in, only the intended calls, of ids that are not there.
    requests = [
        request
        for request in airflow_connections.requests()
        if not request["path"].endswith(("/oauth/token", "/apitoken"))
    ]
    assert len(requests) <= len(IDS)
    assert all(request["status"] in (400, 403, 404, 422) for request in requests)
    assert airflow_connections.effects() == []


@pytest.mark.parametrize("value", ["700001/history", "700001%2Fhistory", "x/../700001", "..%2f700001"])
def test_emulator_accepts_an_encoded_slash_in_an_id(airflow_connections, value):
    with pytest.raises(WorkflowsError, match="404"):
        ProcoreHook().get_instance(value)


def test_request_line_is_the_documented_one(set_connection):
    with OtherHost() as server:
        extra = {"access_token": "token", "company_id": "42", "project_id": "7"}
        set_connection("procore_default", {"conn_type": "procore", "host": server.url, "extra": extra})
        for value in ("../../me", "%2e%2e/x", "1?a=b#c", "@host", "a\r\nX: y"):
            with pytest.raises(WorkflowsError):
                ProcoreHook().get_instance(value)

    start = "/rest/v2.0/companies/42/projects/7/workflows/instances/"
    assert [request["path"] for request in server.received] == [
        start + "..%2F..%2Fme",
        start + "%252e%252e%2Fx",
        start + "1%3Fa%3Db%23c",
        start + "%40host",
        start + "a%0D%0AX%3A%20y",
    ]


# --- the parts of a form ---


def parts_of(names: list[str], comments: str) -> list[dict[str, str]]:
    """Return the headers of each part of the form that is sent with files of these names."""
    import requests

    activity = {"workflow_activity_id": 1, "comments": comments}
    files = _form_parts(activity, [(name, b"content", "text/plain") for name in names])
    sent = requests.Request("POST", "https://api.example.com", files=files).prepare()
    whole = b"Content-Type: " + sent.headers["Content-Type"].encode() + b"\r\n\r\n" + sent.body
    return [dict(part.items()) for part in email.message_from_bytes(whole).get_payload()]


@given(name=st.text(min_size=1), comments=st.text())
def test_file_name_and_comment_add_no_header_or_part(name, comments):
    parts = parts_of([name], comments)

    assert [set(part) for part in parts] == [
        {"Content-Disposition"},
        {"Content-Disposition"},
        {"Content-Disposition", "Content-Type"},
    ]
    assert parts[2]["Content-Type"] == "text/plain"


@pytest.mark.parametrize("name", ['a"; name="b', "a\r\nX: y", 'a"\r\n\r\n--boundary', "a\nb"])
def test_file_name_stays_in_its_quotes(name):
    *_, file = parts_of([name], "fine")

    assert file["Content-Disposition"].count('"') == 4
    assert set(file) == {"Content-Disposition", "Content-Type"}


# --- files ---


@pytest.fixture
def folder(tmp_path):
    """A folder of files to attach, beside something that is not to be attached."""
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "a.pdf").write_text("plan")
    (tmp_path / "secret").write_text("secret")
    return tmp_path / "plans"


@pytest.mark.parametrize("start", ["", "file://"])
@pytest.mark.parametrize("name", ["../secret", "x/../../secret", "a.pdf/../../secret", ".."])
def test_file_path_cannot_climb_out_of_its_folder(folder, start, name):
    for requested_path in (f"{start}{folder}/{name}", ObjectStoragePath(f"file://{folder}") / name):
        with pytest.raises(ConfigurationError, match=r"files.*climb"):
            attached_files("files", requested_path)
        with pytest.raises(ConfigurationError, match=r"path.*climb"):
            storage_path("path", requested_path)


@pytest.mark.parametrize(
    "name",
    ["/../secret"[1:] + "\x00", "%2e%2e/secret", "..\\secret", "x::file://{secret}", "{secret}", "~/secret", "?x"],
)
def test_no_malformed_name_leads_to_a_file_outside(folder, name):
    name = name.replace("{secret}", str(folder.parent / "secret"))

    with pytest.raises(ConfigurationError, match="files"):
        attached_files("files", f"file://{folder}/{name}")


PIECES = ("..", "", "x", ".", "%2e%2e", "..\\", "~", "@", "?", "#", "::", "\x00", " ", "x ")


@example(name="x")
@given(name=st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("/".join))
def test_no_generated_name_leads_to_a_file_outside(tmp_path_factory, name):
    outside = tmp_path_factory.getbasetemp()
    inside = outside / "inside"
    inside.mkdir(exist_ok=True)
    for place in (outside, inside):
        (place / "x").write_text("in" if place is inside else "out")

    try:
        (found,) = attached_files("files", f"file://{inside}/{name}")
    except ConfigurationError:
        assert name != "x"
        return
    assert b"".join(found.parts(10)) == b"in"


def test_dots_at_the_ends_of_a_file_name_are_allowed(folder):
    (folder / "..a..pdf").write_text("plan")

    assert [file.name for file in attached_files("files", f"file://{folder}/..a..pdf")] == ["..a..pdf"]


def export_to(folder: Path) -> dict[str, str]:
    with Tables({"rows": {"name": "text"}}, "jsonl") as tables:
        tables.add({"rows": [{"name": "a"}]})
        return tables.save(ObjectStoragePath(f"file://{folder}"))


def test_export_replaces_links_and_writes_through_none(tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.write_text("kept")
    target = tmp_path / "export"
    target.mkdir()
    monkeypatch.setattr("os.getpid", lambda: 7)
    for name in ("rows.jsonl", ".rows.jsonl.7.part"):
        (target / name).symlink_to(outside)

    export_to(target)

    assert outside.read_text() == "kept"
    assert [path.name for path in target.iterdir()] == ["rows.jsonl"]
    assert not (target / "rows.jsonl").is_symlink()
    assert (target / "rows.jsonl").read_text() == '{"name": "a"}\n'


# --- the emulator ---

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def test_emulator_listens_on_this_machine_by_default(capsys):
    with Emulator() as emulator:
        assert emulator.url.startswith("http://127.0.0.1:")
    assert set(inspect.signature(Emulator).parameters) == {"seed"}
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com"):
        with pytest.raises(SystemExit):
            main(["--host", host])
        assert "--allow-remote" in capsys.readouterr().err


def test_emulator_has_no_route_that_reads_a_file():
    routes = EmulatorApp("default").app.routes
    # All are functions of this package, besides FastAPI's own description of them.
    others = [route for route in routes if not isinstance(route, APIRoute)]
    assert [(type(route), route.path) for route in others] == [(Route, "/openapi.json")]

    names = set()
    for module in Path(str(emulator_package.__file__)).parent.rglob("*.py"):
        tree = ast.parse(module.read_text())
        parts = [tree]
        if module.name == "web_ui.py":  # its import reads the files of the page, regardless of the request
            parts = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
        for node in chain.from_iterable(map(ast.walk, parts)):
            names |= {getattr(node, field, None) for field in ("id", "attr", "module")}
            names |= {alias.name for alias in getattr(node, "names", ()) if isinstance(alias, ast.alias)}
    reads = {
        "FileResponse",
        "Path",
        "StaticFiles",
        "open_text",
        "pathlib",
        "read_bytes",
        "read_text",
        "shutil",
        "tempfile",
    }
    assert names & reads == set()
