"""The checks of a connection to Workflowsoft: API access, integration steps, users, polling, rate limit."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import Connection

from airflow_provider_workflows.diagnostics.checks import (
    MAX_CALL_SECONDS,
    MAX_CHECKED,
    Caution,
    ConnectionChecks,
    Step,
    within,
)
from airflow_provider_workflows.diagnostics.texts import counted, first_of, named
from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    RateLimited,
    WorkflowsError,
)
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook


class WorkflowsoftChecks(ConnectionChecks):
    """Check a connection to Workflowsoft."""

    cheapest_call = ("/api/v2/workflows", {"mode": "view", "limit": 1})

    hook: WorkflowsoftHook

    def __init__(self, conn_id: str, connection: Connection):
        super().__init__(connection, WorkflowsoftHook(conn_id))

    def steps(self) -> tuple[Step, ...]:
        return (
            *self.first_steps(),
            Step("api", "token", self.api, "Have an administrator of Workflowsoft give the user access to the API."),
            Step("steps", "api", self.integration_steps, "Give the user permission to view the process diagrams."),
            Step(
                "users",
                "api",
                self.users,
                "Allow the user to search users, or give operators ids instead of e-mail addresses.",
            ),
            Step("consume", "fields", self.consume),
            Step("rate limit", "api", self.rate_limit),
            Step("clock", "api", self.clock),
        )

    def describe_fields(self) -> str:
        hook = self.hook
        kind = "an administrator's login" if self.connection.login else "an API token"
        behalf = hook.extras.text("on_behalf_of") or "system"
        for read in (lambda: hook.requests_per_hour, lambda: hook.lists_until_completed, lambda: hook.may_consume):
            read()
        return f"{kind}, on behalf of {behalf}"

    def token(self) -> str:
        token = super().token()
        try:
            # A token of unknown expiry may have expired, so use it once.
            within(MAX_CALL_SECONDS, self.call_cheapest)
        except (AuthenticationError, RateLimited):
            raise
        except WorkflowsError:
            pass  # not a problem with the token; later checks report it
        return token

    def api(self) -> str:
        return f"API v2. {self.hook.check().partition(' It ')[0]}"

    def integration_steps(self) -> str:
        diagrams = self.hook.list_process_diagrams()
        checked = diagrams[:MAX_CHECKED]
        steps = [
            f"{step['title']!r} in {diagram['title']!r}"
            for diagram in checked
            for step in self.hook.list_integration_steps(diagram["id"])
        ]
        if not steps:
            raise Caution(
                f"None of {counted(len(checked), 'checked process diagram')} has an integration step.",
                "Add an integration step to the process diagram that Airflow is to be part of, and publish it.",
            )
        return f"{len(steps)} in {first_of(checked, diagrams, 'process diagram')}: {named(steps)}"

    def users(self) -> str:
        self.hook.search_users("@")
        return "searchable"

    def consume(self) -> str:
        reading = "listed until completed" if self.hook.lists_until_completed else "consumed on read"
        mode = f"new integration instances are {reading}; this check did not poll"
        if not self.hook.may_consume:
            raise Caution(
                f"Sensors may not poll; {mode}.",
                "To wait for integration steps, set extra 'allow_consume' to true, in one Airflow deployment only.",
            )
        if self.hook.dry_run and not self.hook.lists_until_completed:
            raise Caution(
                f"Sensors may not poll, because the connection is a dry run; {mode}.",
                "Set extra 'dry_run' to false when sensors are to poll.",
            )
        return f"sensors may poll; {mode}"

    def rate_limit(self) -> str:
        own = self.hook.requests_per_hour
        return self.limit() or "not stated by the server" + (f"; polls stay below {own} per hour" if own else "")
