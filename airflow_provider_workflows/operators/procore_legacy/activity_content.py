"""What an activity of a Procore Legacy workflow is performed with: the comment and the attached files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.files.object_storage import AttachedFile, attached_files
from airflow_provider_workflows.rules.parameters import as_list, str_id

MAX_ATTACHMENT_BYTES = 32 * 2**20  # all files together, because the multipart form is built in memory


def comment_text(comments: Any) -> str | None:
    """
    Return the comment as text, or None.

    :raises ConfigurationError: it is no text, was rendered from None, or cannot be sent.
    """
    if comments is None:
        return None
    if isinstance(comments, bool) or not isinstance(comments, (str, int)):
        raise ConfigurationError(f"comments must be a text; got a value of type {type(comments).__name__}.")
    text = str(comments)
    if text.strip() == "None":
        raise ConfigurationError("comments was rendered to 'None'. Leave it out, or give a text.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigurationError("comments contains half of a character, which cannot be sent.") from None
    return text


def stored_file_ids(prostore_file_ids: Any) -> list[str]:
    """
    Return the ids of the files to attach that Procore stores already.

    :raises ConfigurationError: one of them is no number.
    """
    ids = [] if prostore_file_ids is None else [str(str_id(each)) for each in as_list(prostore_file_ids)]
    if not all(each.isdecimal() for each in ids):
        raise ConfigurationError(f"prostore_file_ids must be ids, numbers; got {prostore_file_ids!r}.")
    return ids


def attachments_of(attachments: Any) -> list[AttachedFile]:
    """
    Return the files to attach.

    :raises ConfigurationError: one does not exist, or they are too large together.
    """
    files = attached_files("attachments", attachments, largest=MAX_ATTACHMENT_BYTES)
    size = sum(file.size for file in files)
    if size > MAX_ATTACHMENT_BYTES:
        raise ConfigurationError(
            f"attachments: the files have {size} bytes together; the maximum is {MAX_ATTACHMENT_BYTES}. Store them "
            "in Procore first, and give their prostore_file_ids."
        )
    return files


def content_of(file: AttachedFile) -> tuple[str, bytes, str]:
    """
    Return the name, the content and the content type of a file to attach.

    :raises ConfigurationError: it cannot be read.
    """
    try:
        return file.name, b"".join(file.parts(2**20)), file.content_type
    except OSError as error:
        raise ConfigurationError(f"attachments: {str(file.path)!r} cannot be read: {error}") from error


def count_of_files(row: Mapping[str, Any]) -> int:
    """Return how many attached files a history row shows."""
    return len(row.get("attachments") or row.get("file_attachments") or [])
