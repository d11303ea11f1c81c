"""Downloads of files from Procore, which returns the file itself or redirects to its storage."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.client.response import ApiResponse
from airflow_provider_workflows.client.retry import Idempotency
from airflow_provider_workflows.exceptions import UnexpectedResponse
from airflow_provider_workflows.hooks.procore_uploads import send_to_storage


def download(client: RestClient, path: str, headers: Mapping[str, str] | None = None) -> ApiResponse:
    """
    Download a file, following one redirect; a call to another host gets no token.

    :param client: Signed in to Procore.
    :param path: Path of the file below the client's base URL.
    :param headers: Headers of the call to Procore.
    :raises ApiError: see :meth:`RestClient.call`; also if the target of the redirect does not return the file.
    """
    response = client.call("GET", path, idempotency=Idempotency.SAFE, headers=headers, may_redirect=True)
    if response.status < 300:
        return response
    try:
        target = urljoin(client.base_url + path, response.headers["Location"])
    except ValueError:  # without its message, which repeats a URL that may be signed
        raise UnexpectedResponse(
            "The server returned a redirect to an invalid URL", method="GET", path=path, status_code=response.status
        ) from None
    if not target.startswith(client.base_url + "/rest/"):
        return send_to_storage(client, "GET", target)
    parts = urlsplit(target.removeprefix(client.base_url))
    return client.call("GET", parts.path, query=parts.query, idempotency=Idempotency.SAFE, headers=headers)
