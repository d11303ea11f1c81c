"""The meaning of Workflowsoft's responses: diagrams, steps, users, integration instances, and reported failures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from reprlib import repr as short
from typing import Any, NamedTuple

from airflow_provider_workflows.error_texts import error_texts
from airflow_provider_workflows.exceptions import ConfigurationError, UnexpectedResponse
from airflow_provider_workflows.rules.payload import is_id

ROW_LIMIT = 100  # rows of a list, as in the vendor's example; lists have no paging
EMPTY_GUID = "00000000-0000-0000-0000-000000000000"
UNLISTED = ", and possibly more that were not listed; give the id"  # a server's own limit is not documented
USER_NAMES = (("full_name", "FullName"), ("email", "Email"))
# Flags of a response that say whether the call has succeeded, in spite of its status; True for flags of a success.
FLAGS = {
    **dict.fromkeys(("success", "issuccess", "succeeded", "issucceeded", "ok"), True),
    **dict.fromkeys(("failed", "isfailed", "isfailure", "haserrors", "iserror"), False),
}
FLAG_VALUES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
ERROR_MEMBERS = ("error", "errors", "errormessage", "exceptionmessage", "exception")
STATUS_MEMBERS = ("status", "statuscode")
WRAPPERS = ("data", "result", "value")  # members that may contain the response
CREATED_IDS = ("id", "instanceid", "processid", "processinstanceid", "taskid")
# The server's messages are not documented, so only unambiguous ones count.
_SUBJECT = r"(the |this )?(integration )?(task|instance|step)( #?\d[\w-]*)?"
_OVER = r"(been )?(completed|closed|finished|done)"
_NAMED = r"((data|description|error|errors|instance|result|step|task|title|value): )*"  # see `error_texts`
# A text, which `re` compiles once when it is first used: that costs more than the rest of the module's import.
ALREADY_COMPLETED = (
    rf"{_NAMED}({_SUBJECT} (is|was|has) (already )?{_OVER}( already)?|({_SUBJECT} )?(is |was |has )?already {_OVER})"
)


def member(row: Mapping[str, Any], name: str) -> Any:
    """Return an object's member, independent of the case of its name, or None."""
    return next((value for key, value in row.items() if str(key).lower() == name.lower()), None)


def has_id(row: Any, name: str) -> bool:
    """Return whether a row is an object with an id under a name."""
    return isinstance(row, Mapping) and is_id(member(row, name))


def id_in(row: Any, name: str) -> str | None:
    """Return the id that an object has under a name; None if it has none, or only a default value of .NET."""
    return str(member(row, name)) if has_id(row, name) and not _is_empty(member(row, name)) else None


def rows_with_id(body: Any, name: str, expected: str) -> list[Mapping[str, Any]]:
    """
    Return the rows of a list that have an id; an empty response is an empty list.

    :param name: Name of the id.
    :param expected: What the response should be, for the error text.
    :raises UnexpectedResponse: the response is not a list, or has rows, but none with an id.
    """
    body = [] if body is None else body
    rows = [row for row in body if has_id(row, name)] if isinstance(body, list) else []
    if not rows and body != []:
        raise UnexpectedResponse(f"The response is not {expected}")
    return rows


def titled_rows(body: Any, kind: str) -> list[dict[str, str]]:
    """
    Read a list of process diagrams or integration steps as ``[{id, title}]``, without rows that have no id.

    :param kind: Noun for a row, for the error text.
    :raises UnexpectedResponse: the response is not a list of objects with an id.
    """
    rows = rows_with_id(body, "Id", f"a list of objects with an Id for each {kind}")
    return [{"id": str(member(row, "Id")), "title": str(member(row, "Title") or "")} for row in rows]


class Failure(NamedTuple):
    """
    Hold what a response with a successful status says about a failure.

    :param message: The server's message.
    :param is_certain: Whether nothing was done: nothing else in the response says that something was.
    :param names_id: Whether the response has an id, perhaps of something that was created.
    """

    message: str
    is_certain: bool
    names_id: bool


def failure_in(body: Any) -> Failure | None:
    """
    Return the failure that the body of a response reports, or None.

    The responses to write actions are not documented; a member such as ``Success: false`` or ``Error: "..."`` counts.
    Errors beside a success, or beside an id, may be warnings about something that was done.
    """
    if body is False:
        return Failure("the response is false", True, False)
    if not isinstance(body, Mapping):
        return None
    wrapped = [value for name, value in body.items() if _plain(name) in WRAPPERS]
    parts = [part for part in (body, *wrapped) if isinstance(part, Mapping)]
    members = [(_plain(name), value) for part in parts for name, value in part.items()]
    said = {FLAGS[name] == FLAG_VALUES[str(value).lower()] for name, value in members if _is_flag(name, value)}
    names_id = any(name in CREATED_IDS and is_id(value) and not _is_empty(value) for name, value in members)
    # The status of something that exists may have any number.
    has_error_status = not names_id and any(
        name in STATUS_MEMBERS and type(value) is int and 400 <= value < 600 for name, value in members
    )
    failed = has_error_status or False in said or any(value is False for value in wrapped)
    if not failed and not any(name in ERROR_MEMBERS and _says_something(value) for name, value in members):
        return None
    texts = error_texts({name: value for name, value in body.items() if _plain(name) not in FLAGS})
    return Failure(
        "; ".join(dict.fromkeys(texts)) or "without a reason",
        is_certain=True not in said and (failed or not names_id),
        names_id=names_id,
    )


class UnreadableInstances(UnexpectedResponse):
    """
    Raised when a poll's response is malformed, at least in part.

    :param instances: The instances that could be read, as :func:`integration_instances` returns them.
    :param call: The call, as for an :class:`ApiError`.
    """

    def __init__(self, what: str, instances: list[dict[str, str | None]], **call: Any):
        super().__init__(what, **call)
        self.instances = instances


def integration_instances(body: Any) -> list[dict[str, str | None]]:
    """
    Read the response of a poll for new integration instances.

    The vendor documents a response with one object, but not with none or several. So an empty response, or an object
    with empty ids and nothing else, means no instance; an object means one, and a list several. Any other response is
    an error, never "no instance".

    :param body: The parsed response; None for an empty one.
    :return: ``[{integration_instance_id, process_instance_id}]``
    :raises UnreadableInstances: the response has another format; the message does not repeat its values.
    """
    if body is None or body == [] or _says_nothing(body):
        return []
    rows = body if isinstance(body, list) else [body]
    malformed = [row for row in rows if not _is_instance(row)]
    instances: list[dict[str, str | None]] = [
        {
            "integration_instance_id": id_in(row, "IntegrationInstanceId"),
            "process_instance_id": id_in(row, "ProcessInstanceId"),
        }
        for row in rows
        if _is_instance(row)
    ]
    if malformed:
        which = f"{len(malformed)} of {len(rows)} rows of the" if instances else "The"
        what = f"{which} poll's response should be an integration instance, but is {_describe_type(malformed[0])}"
        raise UnreadableInstances(what, instances)
    return instances


def user_rows(body: Any) -> list[dict[str, str]]:
    """
    Read a list of users as ``[{id, full_name, email}]``, without rows that have no id.

    :raises UnexpectedResponse: the response is not a list of objects with an id.
    """
    rows = rows_with_id(body, "Id", "a list of objects with an Id for each user")
    names = [{name: str(member(row, key) or "") for name, key in USER_NAMES} for row in rows]
    return [{"id": str(member(row, "Id")), **named} for row, named in zip(rows, names, strict=True)]


def choose_user(parameter: str, email: str, rows: Iterable[Mapping[str, str]]) -> str:
    """
    Return the id of the one user with an e-mail address, in any case.

    :param parameter: Name of the parameter with the address, for the error text.
    :param email: The e-mail address.
    :param rows: Rows of :func:`user_rows`.
    :raises ConfigurationError: no user or several users have the address; the message lists the search result.
    """
    rows = list(rows)
    matching = [row for row in rows if row["email"].strip().casefold() == email.strip().casefold()]
    if len(matching) == 1:
        return matching[0]["id"]
    listed = ", ".join(f"{row['full_name']} <{row['email']}> (id {row['id']})" for row in matching or rows) or "none"
    if not matching:
        raise ConfigurationError(
            f"{parameter}: no user has the e-mail address {email!r}. The search found: {listed}{UNLISTED}."
        )
    raise ConfigurationError(
        f"{parameter}: {len(matching)} users have the e-mail address {email!r}: {listed}. Give the id."
    )


def choose(
    parameter: str, kind: str, requested: str, rows: Iterable[Mapping[str, str]], *, may_lack: bool = False
) -> Mapping[str, str]:
    """
    Return the one row with a title or id, ignoring blanks around the title.

    :param parameter: Name of the parameter with the title or id, for the error text.
    :param kind: Noun for a row, for the error text.
    :param requested: The title or id.
    :param rows: Rows of :func:`titled_rows`.
    :param may_lack: There may be more rows than were listed; then digits that match no row are taken as an id.
    :raises ConfigurationError: no row or several rows match; the message lists the candidates with their ids.
    """
    rows = list(rows)
    matching = [row for row in rows if requested in (row["title"], row["id"])] or [
        row for row in rows if requested.strip() in (row["title"].strip(), row["id"])
    ]
    if len(matching) == 1:
        return matching[0]
    listed = ", ".join(f"{row['title']!r} (id {row['id']})" for row in matching or rows) or "none"
    if not matching and may_lack and requested.isdecimal():
        return {"id": requested, "title": ""}
    if not matching:
        if may_lack:
            listed += UNLISTED
        raise ConfigurationError(f"{parameter}: there is no {kind} {requested!r}. Candidates: {listed}.")
    raise ConfigurationError(f"{parameter}: {len(matching)} {kind}s are named {requested!r}: {listed}. Give the id.")


def instance_id_of(instance: Any) -> str:
    """
    Return an integration instance's id, given as such or in a row of ``WorkflowsoftIntegrationSensor``.

    :raises ConfigurationError: the value is neither; for a list the message names all ids, because the poll may have
        consumed them.
    """
    if isinstance(instance, (list, tuple)):
        ids = ", ".join(instance_id_of(row) for row in instance) or "none"
        raise ConfigurationError(
            f"integration_instance_id must be the id of one integration instance; got a list of {ids}. Map the task "
            "over it: .partial(...).expand(integration_instance_id=sensor.output)."
        )
    if isinstance(instance, Mapping):
        instance = instance.get("integration_instance_id")
    text = "" if instance is None else str(instance).strip()
    if text in ("", "None") or text[0] in "{[" or isinstance(instance, bool):
        raise ConfigurationError(
            "integration_instance_id must be the id of one integration instance, or one row of "
            f"WorkflowsoftIntegrationSensor's result; got {type(instance).__name__} {short(instance)}."
        )
    return text


def says_already_completed(message: str) -> bool:
    """Return whether a sentence of an error unambiguously means that the integration instance is already completed."""
    return any(
        re.fullmatch(ALREADY_COMPLETED, sentence.strip(), re.IGNORECASE) for sentence in re.split(r"[.;!\n]", message)
    )


def _is_instance(row: Any) -> bool:
    return id_in(row, "IntegrationInstanceId") is not None


def _plain(name: Any) -> str:
    return str(name).lower().replace("_", "")


def _is_flag(name: str, value: Any) -> bool:
    return name in FLAGS and str(value).lower() in FLAG_VALUES


def _says_something(error: Any) -> bool:
    """Return whether an error has a value that is not empty; a .NET server may return an object of empty values."""
    if isinstance(error, Mapping):
        return any(map(_says_something, error.values()))
    if isinstance(error, list):
        return any(map(_says_something, error))
    return error is not False and not _is_empty(error)


def _is_empty(value: Any) -> bool:
    """Return whether a value is a default value of .NET, as JSON or as text."""
    return value is None or value in ("", "0", EMPTY_GUID) or (type(value) is int and value == 0)


def _says_nothing(body: Any) -> bool:
    if not isinstance(body, Mapping) or not all(map(_is_empty, body.values())):
        return False
    return not body or any(str(name).lower() == "integrationinstanceid" for name in body)


def _describe_type(malformed: Any) -> str:
    if isinstance(malformed, Mapping):
        return f"an object with {', '.join(sorted(f'{name} ({type(malformed[name]).__name__})' for name in malformed))}"
    return f"a {type(malformed).__name__}"
