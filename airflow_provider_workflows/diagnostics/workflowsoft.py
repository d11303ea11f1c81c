"""The checks of a Workflowsoft connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import Connection

from airflow_provider_workflows.diagnostics.checks import (
    MAX_CALL_SECONDS,
    MAX_CHECKED,
    ConnectionChecks,
    Step,
    Unclear,
    within,
)
from airflow_provider_workflows.diagnostics.texts import counted, first_of, named
from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    RateLimited,
    WorkflowsError,
)
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

if TYPE_CHECKING:
    pass


class WorkflowsoftChecks(ConnectionChecks):
    """A connection to Workflowsoft."""

    cheapest_call = ("/api/v2/workflows", {"mode": "view", "limit": 1})

    hook: WorkflowsoftHook

    def __init__(self, conn_id: str, connection: Connection):
        super().__init__(connection, WorkflowsoftHook(conn_id))

    def steps(self) -> tuple[Step, ...]:
        return (
            *self.first_steps(),
            Step("api", "token", self.api, "Let an administrator of Workflowsoft permit the user to use the API."),
            Step("steps", "api", self.integration_steps, "Permit the user to view the process diagrams."),
            Step("users", "api", self.users, "Give operators ids instead of e-mail addresses, or permit the search."),
            Step("consume", "fields", self.consume),
            Step("rate limit", "api", self.rate_limit),
            Step("clock", "api", self.clock),
        )

    def described(self) -> str:
        hook = self.hook
        kind = "an administrator's login" if self.connection.login else "a ready API token"
        behalf = hook.extras.text("on_behalf_of") or "system"
        for read in (lambda: hook.requests_per_hour, lambda: hook.lists_until_completed, lambda: hook.may_consume):
            read()
        return f"{kind}, on behalf of {behalf}"

    def token(self) -> str:
        found = super().token()
        try:
            # A token of which nothing says when it ends may have ended long ago.
            within(MAX_CALL_SECONDS, self.ask)
        except (AuthenticationError, RateLimited):
            raise
        except WorkflowsError:
            pass  # is not about the token, and the steps that come after find it
        return found

    def api(self) -> str:
        return f"API v2. {self.hook.check().partition(' It ')[0]}"

    def integration_steps(self) -> str:
        diagrams = self.hook.list_process_diagrams()
        looked_at = diagrams[:MAX_CHECKED]
        steps = [
            f"{step['title']!r} in {diagram['title']!r}"
            for diagram in looked_at
            for step in self.hook.list_integration_steps(diagram["id"])
        ]
        if not steps:
            raise Unclear(
                f"None of {counted(len(looked_at), 'process diagram')} looked at has an integration step.",
                "Put an integration step into the diagram that Airflow is to take part in, and publish it.",
            )
        return f"{len(steps)} in {first_of(looked_at, diagrams, 'process diagram')}: {named(steps)}"

    def users(self) -> str:
        self.hook.search_users("@")
        return "may be searched"

    def consume(self) -> str:
        reading = "kept until completed" if self.hook.lists_until_completed else "consumed by reading"
        never = f"new integration instances count as {reading}; none was read here"
        if not self.hook.may_consume:
            raise Unclear(
                f"Sensors may not poll; {never}",
                "To wait for integration steps set extra 'allow_consume' to true, in one Airflow only.",
            )
        return f"sensors may poll; {never}"

    def rate_limit(self) -> str:
        own = self.hook.requests_per_hour
        return self.limit() or "not stated by the server" + (f"; polls keep within {own} an hour" if own else "")
