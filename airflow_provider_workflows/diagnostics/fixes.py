"""What to do about an error that a check ran into."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, TypeVar

import requests.exceptions
import urllib3.exceptions

from airflow_provider_workflows.client.transport import causes_of
from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    ConnectionFailed,
    NotFound,
    PermissionDenied,
    RateLimited,
    UnexpectedResponse,
    WorkflowsError,
)

if TYPE_CHECKING:
    pass

Result = TypeVar("Result")

NO_FIX = "Ask the product's support, and name what is said above."
SETTINGS_FIX = (
    "If it is there, run this with the settings of that Airflow: AIRFLOW_HOME, the database, the secrets backend."
)
PROXY_FIX = "Correct the extra 'proxies', or the variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY where there is none."
NETWORK_FIXES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    ((requests.exceptions.ProxyError, urllib3.exceptions.ProxyError), PROXY_FIX),
    (ssl.SSLCertVerificationError, "Set extra 'verify' to the path of the CA bundle that signed the certificate."),
    (ssl.SSLError, "Check that host and port are those of an https server."),
    (socket.gaierror, "Correct the host: its name is not known to this machine's DNS."),
    (ConnectionRefusedError, "Correct the host and its port: nothing listens there."),
    (OSError, "Let this machine through the firewall to that host, or set the extra 'proxies'."),
)


def fix_of(error: WorkflowsError, of_step: str) -> str:
    if isinstance(error, RateLimited):
        return "Wait until then; see who else uses this account."
    if isinstance(error, ConfigurationError):
        return "Correct that field of the connection."
    if isinstance(error, ConnectionFailed):
        causes = list(causes_of(error))
        return next((fix for kind, fix in NETWORK_FIXES if any(isinstance(c, kind) for c in causes)), error.advice)
    if isinstance(error, UnexpectedResponse):
        return "Correct the host: it must be the address of the API, not that of the web application."
    if isinstance(error, (NotFound, PermissionDenied)) and of_step:
        return of_step
    return getattr(error, "advice", "") or NO_FIX
