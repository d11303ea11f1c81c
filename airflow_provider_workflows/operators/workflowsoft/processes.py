"""Operators that start processes, create tasks, and list diagrams, steps and users of Workflowsoft."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.exceptions import (
    NOTHING_DONE,
    ConfigurationError,
    OutcomeUnknown,
    ServerError,
    UnexpectedResponse,
)
from airflow_provider_workflows.links.workflowsoft import WorkflowsoftItemLink
from airflow_provider_workflows.operators.base import Pin, WritingOperator, unretried
from airflow_provider_workflows.operators.unknown_outcome import describe
from airflow_provider_workflows.operators.workflowsoft.base import NotRetriedWithoutStore, WorkflowsoftOperator
from airflow_provider_workflows.rules import workflowsoft as rules
from airflow_provider_workflows.rules.parameters import (
    check_choice,
    check_optional,
    check_required,
    str_id,
    templated_names,
    whole_number,
)
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context

CREATED = "created"  # key in the task state store
LAST_CREATED = "last_created"  # likewise; it survives clearing the task
LISTS = ("diagrams", "steps", "users")


class WorkflowsoftCreateOperator(NotRetriedWithoutStore, WorkflowsoftOperator, WritingOperator):
    """
    Create something in Workflowsoft once over all tries of the task.

    The API has no idempotency key, and no list that would show what was created. The operator therefore persists in
    Airflow's task state store (3.3+) that it is about to send the request, and then its result. A retry that finds
    the result returns it, and a retry that finds only the start fails and says what to look for. A cleared task
    creates it again, and its log names what was created before. Before Airflow 3.3 the task is not retried, and a
    cleared task does not know what was created before.

    :param on_behalf_of: E-mail address or id of the user who creates it (templated).
    """

    template_fields: Sequence[str] = (*WorkflowsoftOperator.template_fields, "on_behalf_of", "dry_run")
    operator_extra_links = (WorkflowsoftItemLink(),)

    def __init__(self, *, on_behalf_of: str | int, **kwargs: Any):
        super().__init__(**unretried(kwargs))
        self.on_behalf_of = on_behalf_of

    @abstractmethod
    def check(self) -> None:
        """Check the rendered parameters."""

    @abstractmethod
    def plan(self, context: Context, user: str) -> tuple[str, Callable[[], dict[str, Any]]]:
        """Look up ids; return what to look for in Workflowsoft, and the function that creates it."""

    @abstractmethod
    def describe(self, result: Mapping[str, Any]) -> str:
        """Return a sentence that says what was created."""

    def act(self, context: Context) -> dict[str, Any]:
        check_required(on_behalf_of=self.on_behalf_of)
        self.check()
        if self.may_be_retried(context):
            raise ConfigurationError(
                "retries must be 0 before Airflow 3.3, which does not store what an earlier try created."
            )
        journal = Pin(task_state_store(context), CREATED, None)
        earlier = journal.value or {}
        ever = Pin(version_compat.lasting_state_store(context), LAST_CREATED, None)
        if not earlier and ever.value:
            self.log.warning("%s", _earlier_run(ever.value))
        if "result" in earlier:
            self.log.info("An earlier try created it: %s. Nothing is sent.", earlier["result"])
            return self._linked(earlier["result"])
        if "started" in earlier:
            raise _unknown(f"An earlier try started at {earlier['started']} and did not finish", earlier["what"])
        user = self.hook.find_user_id(str(self.on_behalf_of).strip(), parameter="on_behalf_of")
        what, create = self.plan(context, user)
        self.hook.get_api_token()  # if signing in fails, there is nothing to look for
        before = ever.value or {}
        started = {"started": datetime.now(timezone.utc).isoformat(), "what": what}
        journal.persist(started)
        ever.persist(started)
        try:
            result = create()
        except NOTHING_DONE:
            ever.persist(before)
            journal.persist({})  # nothing was created, so a retry may try again
            raise
        except (OutcomeUnknown, UnexpectedResponse) as lost:
            raise _unknown(describe(lost), what) from lost
        except ServerError as failed:
            # A 500 may be a business error, or a crash after the creation. It must not be repeated.
            raise AirflowFailException(
                f"ServerError: {describe(failed)} It is not sent again. Look for {what}, and clear the task if it "
                "does not exist."
            ) from failed
        self.log.info("%s", self.describe(result))
        done = {"result": result, "description": self.describe(result)}
        journal.persist(done)
        ever.persist(done)
        return self._linked(result)

    def _linked(self, result: dict[str, Any]) -> dict[str, Any]:
        self.item_url = self.hook.item_url(**result)
        return result


class WorkflowsoftStartProcessOperator(WorkflowsoftCreateOperator):
    """
    Start a process on behalf of a user, once.

    The API does not show when the process has ended. The request is never repeated after it was sent.

    Returns ``{process_instance_id, title, diagram_id, diagram, on_behalf_of}``.

    :param diagram: Title or id of the process diagram (templated).
    :param on_behalf_of: E-mail address or id of the user who starts it (templated).
    :param fields: ``{name: value}`` of the first values, sent unchanged. The vendor does not document the names of
        fields of a process that does not exist yet (templated).
    :param correlation_field: Name of a field for ``dag_id/run_id/task_id/map_index``, which shows people and later
        integration steps which task started the process (templated).
    :param dry_run: Only read, and return what would be sent, as ``{dry_run: True, would_send: [{method, path,
        body}], ...}`` (templated).
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft`` (templated).
    :raises ConfigurationError: no or several diagrams or users match (they are listed); a value is not valid in JSON.
    :raises OutcomeUnknown: the response was lost, now or in an earlier try; never retried. The error says what to
        look for.
    """

    template_fields: Sequence[str] = (
        *WorkflowsoftCreateOperator.template_fields,
        "diagram",
        "fields",
        "correlation_field",
    )
    template_fields_renderers = {"fields": "json"}

    def __init__(
        self,
        *,
        diagram: str | int,
        fields: Mapping[str, Any] | None = None,
        correlation_field: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.diagram = diagram
        self.fields = fields
        self.correlation_field = correlation_field
        self._templated_fields = templated_names(fields)

    def check(self) -> None:
        # Imported here, because DAG files are parsed far more often than a task runs.
        from airflow_provider_workflows.rules import workflowsoft_fields as field_rules

        check_required(diagram=self.diagram)
        check_optional(self, "correlation_field")
        fields = field_rules.raw_fields({} if self.fields is None else self.fields)
        field_rules.check_rendered(fields, self._templated_fields)
        if self.correlation_field in fields:
            raise ConfigurationError(
                f"correlation_field {self.correlation_field!r} is also in fields. Remove it there."
            )

    def plan(self, context: Context, user: str) -> tuple[str, Callable[[], dict[str, Any]]]:
        from airflow_provider_workflows.rules import workflowsoft_fields as field_rules  # likewise

        diagram = self.hook.find_process_diagram(str(self.diagram).strip())
        fields = field_rules.raw_fields({} if self.fields is None else self.fields)
        what = f"a process of diagram {diagram['title']!r} (id {diagram['id']}) started by user {user}"
        if self.correlation_field is not None:
            ti = context["ti"]
            fields[self.correlation_field] = f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{ti.map_index}"
            what += f" with {self.correlation_field} = {fields[self.correlation_field]}"

        self.known = {"diagram_id": diagram["id"], "diagram": diagram["title"], "on_behalf_of": user}

        def start() -> dict[str, Any]:
            process = self.hook.start_process(diagram["id"], on_behalf_of=user, fields=fields)
            return {"process_instance_id": process["id"], "title": process["title"], **self.known}

        return what, start

    def describe(self, result: Mapping[str, Any]) -> str:
        return (
            f"Started process {result['process_instance_id']} {result['title']!r} of diagram {result['diagram']!r} "
            f"({result['diagram_id']}) as user {result['on_behalf_of']}."
        )


class WorkflowsoftCreateTaskOperator(WorkflowsoftCreateOperator):
    """
    Create a task for a user on behalf of a user, once.

    The request is never repeated after it was sent.

    Returns ``{task_id, title, on_behalf_of, assigned_to}``.

    :param title: Title of the task (templated).
    :param on_behalf_of: E-mail address or id of the user who creates it (templated).
    :param assigned_to: E-mail address or id of the assignee; default: ``on_behalf_of`` (templated).
    :param description: Description of the task (templated).
    :param files: Experimental: a value that is sent unchanged as ``Files``. The vendor documents that a task can have
        files, but not their format (templated).
    :param dry_run: Only read, and return what would be sent, as ``{dry_run: True, would_send: [{method, path,
        body}], ...}`` (templated).
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft`` (templated).
    :raises ConfigurationError: no or several users match (they are listed); ``files`` is not valid in JSON.
    :raises OutcomeUnknown: the response was lost, now or in an earlier try; never retried. The error says what to
        look for.
    """

    template_fields: Sequence[str] = (
        *WorkflowsoftCreateOperator.template_fields,
        "title",
        "assigned_to",
        "description",
        "files",
    )

    def __init__(
        self,
        *,
        title: str,
        assigned_to: str | int | None = None,
        description: str | None = None,
        files: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.title = title
        self.assigned_to = assigned_to
        self.description = description
        self.files = files

    def check(self) -> None:
        from airflow_provider_workflows.rules import workflowsoft_fields as field_rules  # likewise

        check_required(title=self.title)
        check_optional(self, "assigned_to", "description", "files")
        field_rules.raw_value("files", self.files)

    def plan(self, context: Context, user: str) -> tuple[str, Callable[[], dict[str, Any]]]:
        from airflow_provider_workflows.rules import workflowsoft_fields as field_rules  # likewise

        assignee = str_id(self.assigned_to)
        assignee = user if assignee is None else self.hook.find_user_id(assignee, parameter="assigned_to")

        self.known = {"title": self.title, "on_behalf_of": user, "assigned_to": assignee}

        def create() -> dict[str, Any]:
            task = self.hook.create_task(
                self.title,
                on_behalf_of=user,
                assigned_to=assignee,
                description=self.description,
                files=field_rules.raw_value("files", self.files),
            )
            return {"task_id": task["id"], **self.known, "title": task["title"]}

        return f"a task {self.title!r} for user {assignee}, created by user {user}", create

    def describe(self, result: Mapping[str, Any]) -> str:
        return (
            f"Created task {result['task_id']} {result['title']!r} for user {result['assigned_to']} as user "
            f"{result['on_behalf_of']}."
        )


class WorkflowsoftListOperator(WorkflowsoftOperator):
    """
    List process diagrams, integration steps or users, for instance to map a task over them.

    Returns ``[{id, title}]`` of diagrams, ``[{id, title, diagram_id, diagram}]`` of the integration steps of a
    diagram, or ``[{id, full_name, email}]`` of users. The API has no pages: if it returns as many rows as were
    requested (100 diagrams), the log warns that there may be more.

    :param kind: ``diagrams``, ``steps`` or ``users`` (templated).
    :param diagram: With ``steps``: title or id of the process diagram (templated).
    :param search: With ``diagrams`` and ``users``: the text to search for; required for users (templated).
    :param limit: With ``users``: how many to return at most; default 100. The vendor's default is 15 (templated).
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft`` (templated).
    :raises ConfigurationError: ``kind`` is unknown; a parameter is missing or belongs to another kind.
    """

    template_fields: Sequence[str] = (*WorkflowsoftOperator.template_fields, "kind", "diagram", "search", "limit")
    returns_mapping = False

    def __init__(
        self,
        *,
        kind: str,
        diagram: str | int | None = None,
        search: str | None = None,
        limit: int | str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.kind = kind
        self.diagram = diagram
        self.search = search
        self.limit = limit

    def act(self, context: Context) -> list[dict[str, str]]:
        check_choice("kind", self.kind, LISTS)
        check_optional(self, "diagram", "search", "limit")
        if self.kind != "users":
            _reject("limit", self.limit, self.kind)
        if self.kind == "steps":
            _reject("search", self.search, self.kind)
            check_required(diagram=self.diagram)
            return self._steps(str(self.diagram).strip())
        _reject("diagram", self.diagram, self.kind)
        if self.kind == "diagrams":
            return self.hook.list_process_diagrams(self.search)
        check_required(search=self.search)
        limit = rules.ROW_LIMIT if self.limit is None else whole_number("limit", self.limit)
        return self.hook.search_users(str(self.search), limit=limit)

    def _steps(self, desired: str) -> list[dict[str, str]]:
        diagram = self.hook.find_process_diagram(desired)
        steps = self.hook.list_integration_steps(diagram["id"])
        return [{**step, "diagram_id": diagram["id"], "diagram": diagram["title"]} for step in steps]


def _earlier_run(record: Mapping[str, Any]) -> str:
    again = "It is created again, because the task was cleared."
    if "description" in record:
        return f"Before this task was cleared: {record['description']} {again}"
    return (
        f"Before this task was cleared, it started at {record['started']} to create {record['what']}. It is unknown "
        f"whether it did. {again}"
    )


def _unknown(why: str, what: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"It is unknown whether it was created. {why.rstrip('. ')}. Look for {what}")


def _reject(name: str, value: Any, kind: str) -> None:
    if value is not None:
        raise ConfigurationError(f"{name} cannot be used with kind={kind!r}.")
