"""The fixes that the doctor suggests for an error of a check."""

from __future__ import annotations

import socket
import ssl

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

NO_FIX = "Contact the vendor's support with the message above."
SETTINGS_FIX = (
    "If it exists, run this command with the settings of that Airflow deployment: AIRFLOW_HOME, the database, the "
    "secrets backend."
)
PROXY_FIX = "Correct the extra 'proxies' or, if it is not set, the variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY."
NETWORK_FIXES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    ((requests.exceptions.ProxyError, urllib3.exceptions.ProxyError), PROXY_FIX),
    (ssl.SSLCertVerificationError, "Set extra 'verify' to the path of a CA bundle with the certificate's issuer."),
    (ssl.SSLError, "Check that host and port belong to an https server."),
    (socket.gaierror, "Correct the host: DNS does not know its name."),
    (ConnectionRefusedError, "Correct the host and its port: no server listens there."),
    (OSError, "Allow this machine to reach the host through the firewall, or set the extra 'proxies'."),
)


def fix_of(error: WorkflowsError, step_fix: str) -> str:
    """
    Return the fix for an error of a check.

    :param error: The error.
    :param step_fix: The fix if the server rejects the call; "" for none.
    """
    if isinstance(error, RateLimited):
        return "Wait until then, and check what else uses this account."
    if isinstance(error, ConfigurationError):
        return "Correct that field of the connection."
    if isinstance(error, ConnectionFailed):
        causes = list(causes_of(error))
        return next((fix for kind, fix in NETWORK_FIXES if any(isinstance(c, kind) for c in causes)), error.advice)
    if isinstance(error, UnexpectedResponse):
        return "Correct the host: it must be that of the API, not of the web application."
    if isinstance(error, (NotFound, PermissionDenied)) and step_fix:
        return step_fix
    return getattr(error, "advice", "") or NO_FIX
