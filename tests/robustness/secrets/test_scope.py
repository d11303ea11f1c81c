"""An id or a text never changes where a call goes, or what else it says."""

from __future__ import annotations

import inspect
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter

from airflow_provider_workflows.client.auth import TokenAuth
from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.client.retry import Idempotency
from airflow_provider_workflows.client.urls import build_path
from airflow_provider_workflows.emulator.app import EmulatorApp
from airflow_provider_workflows.exceptions import ConfigurationError, WorkflowsError
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

HOST = "https://api.example.com"
HOOKS = (ProcoreHook, ProcoreLegacyHook, WorkflowsoftHook)
# What makes no call of its own with a text of the caller's.
WITHOUT_CALLS = {
    "advice",
    "base_url",
    "find_connection",
    "get_api_token",
    "check_may_consume",
    "close",
    "current_conn",
    "default_headers",
    "get_conn",
    "item_url",
    "level_for",
}
WITHOUT_CALLS |= {"prepare", "project_for", "request_look_up", "start_dry_run", "test_connection", "token_source"}
WITHOUT_CALLS |= {"without_retries"}
NASTY = (
    "..",
    ".",
    "",
    " ",
    "../",
    "../../x",
    "/etc",
    "//host",
    "..\\..",
    "\\",
    "%2e%2e",
    "%2e%2e%2f",
    "%00",
    "?a=b",
    "1?a=b&c=d",
    "1&a=b",
    "1;a=b",
    "#",
    "1#x",
    "@host",
    "a@host:1/",
    "https://host/",
    "1\nX-Header: y",
    "1\r\nX-Header: y",
    "\x00",
    "\u2028",
    "\u2025/",
    "\uff0e\uff0e\uff0f",
    "ü",
    "{}",
    "{0}",
    "\ud800",
    "7" * 5000,
)
# One body that every method can make something of.
BODY = {
    "id": "1",
    "login": "somebody",
    "data": {"id": "1", "upload_id": "u", "segments": [], "status": "available"},
}


@dataclass(frozen=True)
class Sent:
    """What distinguishes a request; of the body only its form, for a text in a JSON value can do no harm."""

    method: str
    target: str
    query: tuple[tuple[str, str], ...]
    headers: tuple[tuple[str, str], ...]
    body: Any


class Wire:
    """Takes the requests that leave, in the place of the network."""

    def __init__(self) -> None:
        self.requests: list[requests.PreparedRequest] = []

    def send(self, adapter: HTTPAdapter, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        self.requests.append(request)
        response = requests.Response()
        response.status_code = 200
        response.request = request
        response.raw = io.BytesIO(json.dumps(BODY).encode())
        return response

    def taken(self) -> list[Sent]:
        taken, self.requests = self.requests, []
        return [sent(request) for request in taken]


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    wire = Wire()
    connections = {
        "procore": {
            "conn_type": "procore",
            "host": HOST,
            "extra": {"access_token": "token", "company_id": "42", "project_id": "7"},
        },
        "workflowsoft": {
            "conn_type": "workflowsoft",
            "host": HOST,
            "password": "token",
            "extra": {"allow_consume": True},
        },
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(HTTPAdapter, "send", lambda *arguments, **settings: wire.send(*arguments, **settings))
        for name, connection in connections.items():
            patched.setenv(f"AIRFLOW_CONN_{name.upper()}_DEFAULT", json.dumps(connection))
        yield wire


def sent(request: requests.PreparedRequest) -> Sent:
    parts = urlsplit(str(request.url))
    assert f"{parts.scheme}://{parts.netloc}" == HOST
    assert not parts.fragment
    headers = {name: value for name, value in request.headers.items() if name != "Content-Length"}
    assert not set("".join(f"{name}{value}" for name, value in headers.items())) & set("\r\n\x00")
    query = tuple(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    body = None if not request.body else form_of(json.loads(request.body))
    return Sent(str(request.method), parts.path, query, tuple(sorted(headers.items())), body)


def form_of(value: Any) -> Any:
    """Return JSON with nothing but the kind of its values; a text of digits may go out as a number."""
    if isinstance(value, dict):
        return tuple((name, form_of(item)) for name, item in value.items())
    if isinstance(value, list):
        return tuple(map(form_of, value))
    return "value" if isinstance(value, (str, int)) else None


# --- the methods and their texts, found by looking ---


def mark_of(parameter: str) -> str:
    """Return the usual text of a parameter; with an at sign, for some methods check for an address."""
    return f"a@{parameter}"


def is_own(function: Callable[..., Any]) -> bool:
    return str(function.__module__).startswith("airflow_provider_workflows.")


def methods() -> list[tuple[type, str]]:
    return [
        (hook, name)
        for hook in HOOKS
        for name, function in inspect.getmembers(hook, inspect.isfunction)
        if not name.startswith("_") and name not in WITHOUT_CALLS and is_own(function)
    ]


def arguments(hook: type, name: str) -> dict[str, Any]:
    """Return an argument for each parameter of a method; a new kind of parameter must be added here."""
    made = {
        "str": lambda parameter: mark_of(parameter),
        "str | int | None": lambda parameter: mark_of(parameter),
        "str | None": lambda parameter: mark_of(parameter),
        "Sequence[str]": lambda parameter: [mark_of(parameter)],
        "Sequence[str] | None": lambda parameter: [mark_of(parameter)],
        "Collection[str]": lambda parameter: [mark_of(parameter)],
        "Mapping[str, Sequence[str]] | None": lambda parameter: {"upload_ids": [mark_of(parameter)]},
        "Mapping[str, Any]": lambda parameter: {"key": mark_of(parameter)},
        "Mapping[str, Any] | None": lambda parameter: {"key": mark_of(parameter)},
        "Sequence[Mapping[str, Any]]": lambda parameter: [],
        "Sequence[Mapping[str, Any]] | None": lambda parameter: [{"id": mark_of(parameter)}],
        "Collection[tuple[str, bytes, str]]": lambda parameter: (),
        "Iterable[bytes]": lambda parameter: [],
        "Iterable[bytes] | Callable[[], Iterable[bytes]]": lambda parameter: [],
        "Callable[[str], object] | None": lambda parameter: None,
        "Any": lambda parameter: [{"name": mark_of(parameter)}],
        "bool": lambda parameter: True,
        "bool | None": lambda parameter: True,
        "int": lambda parameter: 1,
    }
    parameters = list(inspect.signature(getattr(hook, name)).parameters.values())[1:]
    return {parameter.name: made[str(parameter.annotation)](parameter.name) for parameter in parameters}


def texts_of(hook: type, name: str) -> list[str]:
    """Return the parameters of a method that take a text."""
    return [
        parameter
        for parameter, value in arguments(hook, name).items()
        if parameter != "parameter" and mark_of(parameter) in repr(value)  # a term for error texts
    ]


def call(wire: Wire, hook: type, name: str, arguments: dict[str, Any]) -> tuple[list[Sent], Exception | None]:
    """Call a method, read what it returns to the end, and return what has left and what it raised."""
    TokenAuth._shared.clear()
    ProcoreHook._tools.clear()
    wire.requests.clear()
    failure = None
    try:
        found = getattr(hook(), name)(**arguments)
        if isinstance(found, Iterator):
            next(found, None)
    except (WorkflowsError, ValueError) as error:
        failure = error
    return wire.taken(), failure


def filled(value: Any, parameter: str, text: str) -> Any:
    """Put a text in the place of its mark."""
    mark = mark_of(parameter)
    if isinstance(value, str):
        return text if value == mark else value
    if isinstance(value, dict):
        return {key: filled(item, parameter, text) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [filled(item, parameter, text) for item in value]
    return value


def expected(usual: Sent, parameter: str, text: str) -> Sent:
    """Return the request that must leave when a parameter has another text than its mark."""
    mark = mark_of(parameter)
    segments = [
        quote(text, safe="") if segment == quote(mark, safe="") else segment for segment in usual.target.split("/")
    ]
    return Sent(
        usual.method,
        "/".join(segments),
        tuple((name, text if value == mark else value) for name, value in usual.query),
        tuple((name, text if value == mark else value) for name, value in usual.headers),
        usual.body,
    )


def check(wire: Wire, hook: type, name: str, parameter: str, text: str) -> None:
    done, failure = call(wire, hook, name, filled(arguments(hook, name), parameter, text))
    if failure is not None and not done:
        assert isinstance(failure, ValueError), repr(failure)
        return
    # Ids are freed of the spaces around them in some places.
    allowed = [
        [expected(request, parameter, form) for request in usual(wire, hook, name)] for form in (text, text.strip())
    ]
    if text == "":  # as if it were absent, for headers: the connection's own value, or none
        done, *allowed = [[replace(request, headers=()) for request in row] for row in (done, *allowed)]
    assert done in [requests_of_form[: len(done)] for requests_of_form in allowed]


_usual: dict[tuple[type, str], list[Sent]] = {}


def usual(wire: Wire, hook: type, name: str) -> list[Sent]:
    """Return what leaves when every text is its mark."""
    if (hook, name) not in _usual:
        _usual[hook, name], _ = call(wire, hook, name, arguments(hook, name))
    return _usual[hook, name]


# --- the three functions that every call goes through ---


def with_nasty_texts(test: Callable[..., None]) -> Callable[..., None]:
    """Let a property test try each of the nasty texts, besides those that are generated."""
    for text in NASTY:
        test = example(text=text)(test)
    return given(text=st.text(st.characters()))(test)


def call_of(wire: Wire, **parts: Any) -> requests.PreparedRequest | None:
    """Send one call with these parts and return what left; None if it was rejected before that."""
    wire.requests.clear()
    where = parts.pop("path", "/rest/x")
    try:
        RestClient(HOST).call("POST", where, idempotency=Idempotency.SAFE, **parts)
    except ConfigurationError:
        assert wire.requests == []
        return None
    (request,) = wire.requests
    return request


def can_be_sent(text: str) -> bool:
    """Return whether a text has an encoding; half of a surrogate pair has none."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


@with_nasty_texts
def test_any_id_stays_one_segment_of_the_path(wire, text):
    try:
        filled = build_path("/rest/{}/items/{}", text, "7")
    except ConfigurationError:
        assert text.strip(" .") == "" or not can_be_sent(text)
        return

    request = call_of(wire, path=filled)

    parts = urlsplit(str(request.url))
    assert f"{parts.scheme}://{parts.netloc}" == HOST
    assert (parts.query, parts.fragment) == ("", "")
    assert [unquote(segment) for segment in parts.path.split("/")] == ["", "rest", text, "items", "7"]
    assert text not in {"", ".", ".."}


@with_nasty_texts
def test_any_text_stays_one_value_of_the_query(wire, text):
    request = call_of(wire, params={"a": text, "b[]": [text, "2"], text: "c", "none": None})

    if request is None:
        assert not can_be_sent(text)
        return
    parts = urlsplit(str(request.url))
    assert (f"{parts.scheme}://{parts.netloc}", parts.path, parts.fragment) == (HOST, "/rest/x", "")
    read = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
    expected = {"a": [text], "b[]": [text, "2"]} | ({} if text == "none" else {text: ["c"]})
    if text in {"a", "b[]"}:
        expected[text] = ["c"]
    assert read == [(name, value) for name, values in expected.items() for value in values]


@with_nasty_texts
def test_any_text_stays_one_value_of_header_or_body(wire, text):
    plain = {"Accept", "Accept-Encoding", "Connection", "Content-Length", "User-Agent"}
    with_header = call_of(wire, headers={"X-Text": text})
    with_json = call_of(wire, json={"a": text, "b": [text]})
    with_form = call_of(wire, form={"a": text, "b": "2"})

    if with_header is None:
        assert not re.fullmatch("[!-~]?|[!-~][ -~]*", text)
    else:
        assert with_header.headers["X-Text"] == text
        assert set(with_header.headers) == plain | {"X-Text"}
    assert json.loads(with_json.body) == {"a": text, "b": [text]}
    assert set(with_json.headers) == plain | {"Content-Type"}
    if with_form is None:
        assert not can_be_sent(text)
    else:
        read = parse_qsl(with_form.body, keep_blank_values=True, strict_parsing=True)
        assert read == [("a", text), ("b", "2")]


# --- each method ---

# Each would break out of a path, a query or a header that is put together in another way.
ONE_FOR_ALL = ("../1?a=b&c=d;e=f#g/%2e%2e@h", "1\r\nX-Header: y")


@pytest.fixture(scope="module")
def routes() -> list[Any]:
    """Every route of the products, as the emulator has them."""
    return [route for route in EmulatorApp("default").app.routes if not route.path.startswith("/_emulator")]


@pytest.mark.sample(7)
@pytest.mark.parametrize(("hook", "name"), methods(), ids=lambda value: getattr(value, "__name__", value))
def test_method_sends_only_documented_calls_with_any_text(wire, routes, hook, name):
    calls = usual(wire, hook, name)

    assert calls
    for request in calls:
        assert any(route.path_regex.match(request.target) and request.method in route.methods for route in routes), (
            request
        )
    for parameter, text in itertools.product(texts_of(hook, name), ONE_FOR_ALL):
        check(wire, hook, name, parameter, text)


@pytest.mark.parametrize("hook", [ProcoreHook, ProcoreLegacyHook])
def test_company_that_is_not_a_number_is_rejected_unsent(wire, hook):
    wire.requests.clear()
    for text in (*(text for text in NASTY if not text.isdigit()), "42/..", "٤٢", "42\n"):
        with pytest.raises(ConfigurationError, match=r"company_id|Procore-Company-Id"):
            hook(company_id=text).me()
    assert wire.taken() == []
