"""Hook for Procore's Workflows v2 API, and the connection that both Procore hooks share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.client.auth import ClientCredentials, ReadyToken
from airflow_provider_workflows.client.rest import path
from airflow_provider_workflows.client.retry import Replay
from airflow_provider_workflows.exceptions import ConfigurationError, ContractError
from airflow_provider_workflows.hooks.base import (
    Extras,
    WorkflowsHook,
    checked_url,
    connection_form_widgets,
    host_of,
    ui_field_behaviour,
)

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_workflows.client.auth import TokenSource

# environment -> (login URL, API base URL)
ENVIRONMENTS = {
    "production": ("https://login.procore.com", "https://api.procore.com"),
    "sandbox": ("https://login-sandbox.procore.com", "https://sandbox.procore.com"),
    "monthly_sandbox": ("https://login-sandbox-monthly.procore.com", "https://api-monthly.procore.com"),
    "federal": ("https://login.procoregov.com", "https://api.procoregov.com"),
    "custom": (None, None),
}
V2_PAGE_SIZE = 100  # the largest page the v2 API gives


class ProcoreConnectionHook(WorkflowsHook):
    """
    Signs in to Procore; the two workflow APIs share the connection, the user and the company.

    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company to work in; beats the connection's.
    :param project_id: Project to work in; beats the connection's.
    """

    conn_name_attr = "procore_conn_id"
    default_conn_name = "procore_default"
    conn_type = "procore"
    hook_name = "Procore"

    def __init__(
        self,
        procore_conn_id: str = default_conn_name,
        *,
        company_id: str | int | None = None,
        project_id: str | int | None = None,
    ):
        super().__init__(procore_conn_id)
        self._company_id = company_id
        self._project_id = project_id

    @property
    def company_id(self) -> str:
        return self._company(self.extras)

    @property
    def project_id(self) -> str | None:
        """The hook's or the connection's project, or None to work at company level."""
        return self.extras.text("project_id") if self._project_id is None else str(self._project_id)

    def me(self) -> dict[str, Any]:
        """Return the signed-in user: ``{id, login, ...}``."""
        return self._object(self.client.get("/rest/v1.0/me").json(), "GET", "/rest/v1.0/me")

    @cached_property
    def user_id(self) -> str:
        """Login information id of the signed-in user."""
        return str(self.me()["id"])

    def check(self) -> str:
        user = self.me()
        who = f"{user.get('login')} (user {user['id']})"
        return f"Signed in to {self.client.base_url} as {who}, company {self.company_id}."

    def item_url(self, **ids: str | None) -> str:
        """Return the item's address in Procore's UI, or "" where the connection's ``item_url`` does not tell it."""
        given = {name: value for name, value in ids.items() if value is not None}
        ours = {"company_id": self.company_id} | ({"project_id": self.project_id} if self.project_id else {})
        return super().item_url(**{**ours, **given})

    def base_url(self, connection: Connection, extras: Extras) -> str:
        host = host_of(connection) or ENVIRONMENTS[self._environment(extras)][1]
        if host is None:
            raise ConfigurationError(
                f"Connection {self.conn_id!r}: environment 'custom' needs the API base URL in the field host."
            )
        return host

    def token_source(
        self, connection: Connection, extras: Extras, base_url: str, transport: Mapping[str, Any]
    ) -> TokenSource:
        if (ready := extras.text("access_token")) is not None:
            return ReadyToken(ready)
        if not connection.login or not connection.password:
            raise ConfigurationError(
                f"Connection {self.conn_id!r} needs the client id in login and the client secret in password "
                "(or a ready token in the extra 'access_token')."
            )
        return ClientCredentials(
            self._login_url(extras),
            connection.login,
            connection.password,
            **transport,
        )

    def default_headers(self, extras: Extras) -> dict[str, str]:
        return {"Procore-Company-Id": self._company(extras)}

    def _company(self, extras: Extras) -> str:
        company_id = extras.text("company_id") if self._company_id is None else str(self._company_id)
        if company_id is None:
            raise ConfigurationError(
                f"No company_id: give it to the operator or hook, or in the extra of connection {self.conn_id!r}."
            )
        if not company_id.isdecimal():
            raise ConfigurationError("company_id must be a number, as in the address of the company in Procore.")
        return company_id

    def _environment(self, extras: Extras) -> str:
        return extras.choice("environment", tuple(ENVIRONMENTS))

    def _login_url(self, extras: Extras) -> str:
        environment = self._environment(extras)
        given = extras.text("login_url")
        if environment != "custom":
            if given is not None:
                raise ConfigurationError(
                    f"Connection {self.conn_id!r}: extra 'login_url' goes only with environment 'custom'."
                )
            return str(ENVIRONMENTS[environment][0])
        if given is None:
            raise ConfigurationError(f"Connection {self.conn_id!r}: environment 'custom' needs the extra 'login_url'.")
        return checked_url(given, f"Connection {self.conn_id!r}: extra 'login_url'", extras.flag("allow_http"))

    @staticmethod
    def _object(body: Any, method: str, where: str) -> dict[str, Any]:
        if not isinstance(body, dict) or body.get("id") is None:
            raise ContractError("The answer has no id", method=method, path=where)
        return body


class ProcoreHook(ProcoreConnectionHook):
    """
    Calls Procore's Workflows v2 API ("Self-Serve Workflows").

    Every method works at project level when it is given a ``project_id`` or the hook or connection has one,
    else at company level. Ids are strings; times are the API's own strings.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company to work in; beats the connection's.
    :param project_id: Project to work in; beats the connection's.
    """

    get_connection_form_widgets = classmethod(connection_form_widgets)
    get_ui_field_behaviour = classmethod(ui_field_behaviour)

    def list_tools(self) -> list[dict[str, Any]]:
        """List the tools that can have workflows: ``{name, type, provider, subtype}``."""
        tools: list[dict[str, Any]] = self._read(
            "GET", path("/rest/v2.0/companies/{}/workflows/tools", self.company_id), list
        )
        return tools

    def list_instances(
        self,
        tool_type: str,
        *,
        tool_subtype: str | None = None,
        item_id: str | None = None,
        assignee_id: str | None = None,
        active: bool | None = None,
        overdue: bool | None = None,
        project_id: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """
        List instances, page by page as they are read.

        :param tool_type: Tool the items belong to, such as ``purchase_order_contract``.
        :param tool_subtype: Subtype of the tool; needed for correspondence.
        :param item_id: Only the instances of this item.
        :param assignee_id: Only those whose current step waits on this user (login information id).
        :param active: Only active instances.
        :param overdue: Only those whose next step is overdue.
        :param project_id: Project to look in.
        :return: Rows ``{id, item_id, tool_type, created_at, started_at, ended_at, ...}``; no step, no state.
        """
        filters = {
            "filters[tool_type]": tool_type,
            "filters[tool_subtype]": tool_subtype,
            "filters[item_id]": item_id,
            "filters[assignee_id]": assignee_id,
            "filters[active]": active,
            "filters[overdue]": overdue,
        }
        return self.client.pages(
            self._path("instances", project_id=project_id), params=filters, per_page=V2_PAGE_SIZE, style="v2"
        )

    def get_instance(self, instance_id: str, *, project_id: str | None = None) -> dict[str, Any]:
        """Show one instance with its current step occurrence."""
        return self._data("GET", self._path("instances/{}", instance_id, project_id=project_id))

    def get_instance_history(self, instance_id: str, *, project_id: str | None = None) -> dict[str, Any]:
        """Show the state and the events of one instance."""
        return self._data("GET", self._path("instances/{}/history", instance_id, project_id=project_id))

    def start_instance(
        self,
        tool_type: str,
        item_id: str,
        *,
        tool_subtype: str | None = None,
        template_id: str | None = None,
        preset_id: str | None = None,
        project_id: str | None = None,
    ) -> dict[str, Any]:
        """
        Start the workflow of an item; never sent twice.

        :param preset_id: Preset to start from; beats ``template_id``; with neither, the default preset.
        :return: The new instance.
        """
        body = {
            "tool_type": tool_type,
            "item_id": item_id,
            "tool_subtype": tool_subtype,
            "template_id": template_id,
            "preset_id": preset_id,
        }
        return self._data(
            "POST",
            self._path("instances", project_id=project_id),
            replay=Replay.NEVER,
            json={name: value for name, value in body.items() if value is not None},
        )

    def respond(
        self,
        instance_id: str,
        *,
        step_occurrence_id: str,
        option_id: str,
        comment: str | None = None,
        attachments: Mapping[str, list[str]] | None = None,
        idempotency_token: str | None = None,
        project_id: str | None = None,
    ) -> None:
        """
        Answer the current step of an instance as the signed-in user.

        Procore takes an identical repetition as already done, and refuses a different one; but only while the
        step is current, so a lost answer is not repeated here: the caller reads first.

        :param step_occurrence_id: The step occurrence that is answered.
        :param option_id: Id of the chosen response option.
        :param comment: A note about the response.
        :param attachments: Ids by kind, such as ``{"upload_ids": ["..."]}``.
        :param idempotency_token: The same for the same action.
        :raises OutcomeUnknown: the answer was lost.
        """
        response: dict[str, Any] = {
            "current_step_occurrence_id": step_occurrence_id,
            "selected_response_option_id": option_id,
            "attachments": dict(attachments or {}),  # Procore requires the object even when it is empty
        }
        if comment is not None:
            response["comment"] = comment
        self.client.call(
            "POST",
            self._path("instances/{}/responses", instance_id, project_id=project_id),
            replay=Replay.NEVER,
            json={"response": response},
            headers={"Idempotency-Token": idempotency_token} if idempotency_token else None,
        )

    def _path(self, template: str, *ids: str, project_id: str | None) -> str:
        project = self.project_id if project_id is None else str(project_id)
        if project is None:
            return path("/rest/v2.0/companies/{}/workflows/" + template, self.company_id, *ids)
        return path("/rest/v2.0/companies/{}/projects/{}/workflows/" + template, self.company_id, project, *ids)

    def _data(self, method: str, where: str, *, replay: Replay = Replay.SAFE, json: Any = None) -> dict[str, Any]:
        found: dict[str, Any] = self._read(method, where, dict, replay=replay, json=json)
        return found

    def _read(self, method: str, where: str, kind: type, *, replay: Replay = Replay.SAFE, json: Any = None) -> Any:
        body = self.client.call(method, where, replay=replay, json=json).json()
        if not isinstance(body, dict) or not isinstance(body.get("data"), kind):
            raise ContractError("The answer has no 'data' of the expected form", method=method, path=where)
        return body["data"]
