"""What a connection's host and port mean, in whatever spelling a form, a URI or a file gives them."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook


@pytest.fixture(params=["procore", "workflowsoft"])
def hook_at(request, set_connection):
    """Return a function that makes the hook of a connection with this host and port."""

    def at(host: str, port: int | None, **extra: object):
        ready = {"access_token": "ready", "company_id": "7"} if request.param == "procore" else {}
        fields = {"host": host, "port": port, "password": "ready", "extra": {**ready, **extra}}
        set_connection("mine", {"conn_type": request.param, **fields})
        return (ProcoreHook if request.param == "procore" else WorkflowsoftHook)("mine")

    return at


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("wf.example.com", 443, "https://wf.example.com:443"),
        ("wf.example.com/", 443, "https://wf.example.com:443"),
        ("https://wf.example.com", 443, "https://wf.example.com:443"),
        ("https://wf.example.com/", 443, "https://wf.example.com:443"),
        ("https://wf.example.com//", 443, "https://wf.example.com:443"),
        ("https://wf.example.com/base", 443, "https://wf.example.com:443/base"),
        ("https://wf.example.com/base/", 8443, "https://wf.example.com:8443/base"),
        ("wf.example.com/base", 8443, "https://wf.example.com:8443/base"),
        ("https://wf.example.com:8443/base/", 443, "https://wf.example.com:8443/base"),
        ("wf.example.com:8443", 443, "https://wf.example.com:8443"),
        ("wf.example.com:", 443, "https://wf.example.com:443"),
        ("wf.example.com/a:1", 443, "https://wf.example.com:443/a:1"),
        (" wf.example.com\n", 443, "https://wf.example.com:443"),
        ("https://wf.example.com/", 0, "https://wf.example.com"),
        ("https://wf.example.com/base/", None, "https://wf.example.com/base"),
        ("https://[::1]/", 8443, "https://[::1]:8443"),
        ("::1", 8443, "https://[::1]:8443"),
        ("http://127.0.0.1/", 8080, "http://127.0.0.1:8080"),
    ],
)
def test_a_host_and_a_port_are_one_address(hook_at, host, port, url):
    assert hook_at(host, port).get_conn().base_url == url


@pytest.mark.parametrize(
    "host",
    [
        "https://ex ample.com",
        "ex ample.com",
        "https://example.com/a b",
        "https://exam\tple.com",
        "https://.example.com",
        "https://exa<mple.com",
        "https://example.com:port",
        "https://example.com:99999",
        "https://",
        "https:///path",
        "ftp://example.com",
        "https://example.com/?q=1",
        "https://[::1",
    ],
)
@pytest.mark.parametrize("port", [None, 443])
def test_a_host_that_is_none_is_named_before_anything_is_sent(hook_at, requests_mock, host, port):
    with pytest.raises(ConfigurationError, match="'mine'.*host"):
        hook_at(host, port).check()
    assert requests_mock.call_count == 0
