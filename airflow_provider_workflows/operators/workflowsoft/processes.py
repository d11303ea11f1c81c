"""Operators that start processes, create tasks, and list what Workflowsoft has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
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
from airflow_provider_workflows.operators.base import Pin, describe, unretried
from airflow_provider_workflows.operators.workflowsoft.base import ActsOnce, WorkflowsoftOperator
from airflow_provider_workflows.operators.workflowsoft.integration_step import now
from airflow_provider_workflows.rules import workflowsoft as rules
from airflow_provider_workflows.rules import workflowsoft_fields as field_rules
from airflow_provider_workflows.rules.parameters import check_choice, check_given, check_required, str_id
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context

CREATED = "created"  # key in the task state store
LAST_CREATED = "last_created"  # likewise; of this task, also before it was cleared
LISTS = ("diagrams", "steps", "users")


class WorkflowsoftCreateOperator(ActsOnce, WorkflowsoftOperator):
    """
    Creates something in Workflowsoft, once over all tries of the task.

    The API has no key that would tell a repetition, and no list to look for what was created. So it is written
    down in Airflow's task state store (3.3+) before the call and after it; a retry that finds it done returns the
    same result, and one that finds it begun fails and says what to look for. A task that was cleared creates it again,
    and its log names what it created before. Before Airflow 3.3 the task is not retried, and a cleared task knows
    nothing of that.

    :param on_behalf_of: The user who creates it: an e-mail address, or an id (templated).
    """

    template_fields: Sequence[str] = (*WorkflowsoftOperator.template_fields, "on_behalf_of")
    operator_extra_links = (WorkflowsoftItemLink(),)

    def __init__(self, *, on_behalf_of: str | int, **kwargs: Any):
        super().__init__(**unretried(kwargs))
        self.on_behalf_of = on_behalf_of

    @abstractmethod
    def check(self) -> None:
        """Check the rendered parameters."""

    @abstractmethod
    def plan(self, context: Context, user: str) -> tuple[str, Callable[[], dict[str, Any]]]:
        """Look up what is needed; return what a person can look for in Workflowsoft, and the call that creates it."""

    @abstractmethod
    def describe(self, result: Mapping[str, Any]) -> str:
        """Say in a sentence what was created."""

    def act(self, context: Context) -> dict[str, Any]:
        check_required(on_behalf_of=self.on_behalf_of)
        self.check()
        if self.may_be_retried(context):
            raise ConfigurationError(
                "retries must be 0 on an Airflow before 3.3, for it cannot remember what an earlier try has created."
            )
        journal = Pin(task_state_store(context), CREATED, None)
        earlier = journal.value or {}
        ever = Pin(version_compat.lasting_state_store(context), LAST_CREATED, None)
        if not earlier and ever.value:
            self.log.warning("%s", _earlier_run(ever.value))
        if "result" in earlier:
            self.log.info("An earlier try has created it: %s.", earlier["result"])
            return self._linked(earlier["result"])
        if "started" in earlier:
            raise _unknown(f"An earlier try began at {earlier['started']} and did not get to its end", earlier["what"])
        user = self.hook.find_user_id(str(self.on_behalf_of).strip(), parameter="on_behalf_of")
        what, create = self.plan(context, user)
        self.hook.get_api_token()  # a sign-in that fails leaves nothing to look for
        before = ever.value or {}
        started = {"started": now(), "what": what}
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
            # A business error may come as a 500, and so may a crash after the deed: not to be repeated.
            raise AirflowFailException(
                f"ServerError: {describe(failed)} It is not sent again: look for {what}, and clear the task if there "
                "is none."
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
    Starts a process on behalf of a user, once.

    Returns ``{process_instance_id, title, diagram_id, diagram, on_behalf_of}``; the API cannot tell when the
    process has ended. The call is never repeated once it was sent.

    :param diagram: Title or id of the process diagram (templated).
    :param on_behalf_of: The user who starts it: an e-mail address, or an id (templated).
    :param fields: Values to start with, by the names that Workflowsoft takes them by, sent as they are; the vendor
        documents no names for a process that does not exist yet (templated).
    :param correlation_field: Such a name, to be filled with ``dag_id/run_id/task_id/map_index``, so that a person or
        a later integration step can tell which task has started the process (templated).
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft`` (templated).
    :raises ConfigurationError: no such diagram or user, or several (they are listed); a value JSON does not hold.
    :raises OutcomeUnknown: the answer was lost, now or in an earlier try; says what to look for, never retried.
    """

    template_fields: Sequence[str] = (
        *WorkflowsoftCreateOperator.template_fields,
        "diagram",
        "fields",
        "correlation_field",
    )

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
        self._templated_fields = field_rules.templated_names(fields)

    def check(self) -> None:
        check_required(diagram=self.diagram)
        check_given(self, "correlation_field")
        fields = field_rules.raw_fields({} if self.fields is None else self.fields)
        field_rules.check_rendered(fields, self._templated_fields)
        if self.correlation_field in fields:
            raise ConfigurationError(f"correlation_field {self.correlation_field!r} is in fields as well.")

    def plan(self, context: Context, user: str) -> tuple[str, Callable[[], dict[str, Any]]]:
        diagram = self.hook.find_process_diagram(str(self.diagram).strip())
        fields = field_rules.raw_fields({} if self.fields is None else self.fields)
        what = f"a process of diagram {diagram['title']!r} (id {diagram['id']}) started by user {user}"
        if self.correlation_field is not None:
            ti = context["ti"]
            fields[self.correlation_field] = f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{ti.map_index}"
            what += f" with {self.correlation_field} = {fields[self.correlation_field]}"

        def start() -> dict[str, Any]:
            process = self.hook.start_process(diagram["id"], on_behalf_of=user, fields=fields)
            return {
                "process_instance_id": process["id"],
                "title": process["title"],
                "diagram_id": diagram["id"],
                "diagram": diagram["title"],
                "on_behalf_of": user,
            }

        return what, start

    def describe(self, result: Mapping[str, Any]) -> str:
        return (
            f"Started process {result['process_instance_id']} {result['title']!r} of diagram {result['diagram']!r} "
            f"({result['diagram_id']}) as user {result['on_behalf_of']}."
        )


class WorkflowsoftCreateTaskOperator(WorkflowsoftCreateOperator):
    """
    Creates a task for a person on behalf of a user, once.

    Returns ``{task_id, title, on_behalf_of, assigned_to}``. The call is never repeated once it was sent.

    :param title: Title of the task (templated).
    :param on_behalf_of: The user who creates it: an e-mail address, or an id (templated).
    :param assigned_to: The user who is to do it, likewise; default: ``on_behalf_of`` (templated).
    :param description: What is to be done (templated).
    :param files: Experimental: what is sent as ``Files``, as it is. The vendor documents that a task can have files,
        and not in which form (templated).
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft`` (templated).
    :raises ConfigurationError: no such user, or several (they are listed); files that JSON does not hold.
    :raises OutcomeUnknown: the answer was lost, now or in an earlier try; says what to look for, never retried.
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
        check_required(title=self.title)
        check_given(self, "assigned_to", "description", "files")
        field_rules.raw_value("files", self.files)

    def plan(self, context: Context, user: str) -> tuple[str, Callable[[], dict[str, Any]]]:
        assignee = str_id(self.assigned_to)
        assignee = user if assignee is None else self.hook.find_user_id(assignee, parameter="assigned_to")

        def create() -> dict[str, Any]:
            task = self.hook.create_task(
                self.title,
                on_behalf_of=user,
                assigned_to=assignee,
                description=self.description,
                files=field_rules.raw_value("files", self.files),
            )
            return {"task_id": task["id"], "title": task["title"], "on_behalf_of": user, "assigned_to": assignee}

        return f"a task {self.title!r} for user {assignee}, created by user {user}", create

    def describe(self, result: Mapping[str, Any]) -> str:
        return (
            f"Created task {result['task_id']} {result['title']!r} for user {result['assigned_to']} as user "
            f"{result['on_behalf_of']}."
        )


class WorkflowsoftListOperator(WorkflowsoftOperator):
    """
    Lists process diagrams, integration steps or users, for instance to map a task over them.

    Returns ``[{id, title}]`` of diagrams, ``[{id, title, diagram_id, diagram}]`` of the integration steps of a
    diagram, or ``[{id, full_name, email}]`` of users. The API has no pages: where it returns as many rows as were
    asked for (of diagrams 100), a warning in the log says that there may be more.

    :param kind: ``diagrams``, ``steps`` or ``users`` (templated).
    :param diagram: With ``steps``: title or id of the process diagram (templated).
    :param search: With ``diagrams`` and ``users``: what the server is to search for; needed for users (templated).
    :param limit: With ``users``: how many to return at most; default 100. The vendor's own default is 15 (templated).
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft`` (templated).
    :raises ConfigurationError: ``kind`` is another word; a parameter is missing or belongs to another kind.
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
        check_given(self, "diagram", "search", "limit")
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
        return self.hook.search_users(str(self.search), limit=self._limit())

    def _limit(self) -> int:
        if self.limit is None:
            return rules.ROW_LIMIT
        given = str(self.limit).strip()
        if not given.isdecimal() or int(given) < 1:
            raise ConfigurationError(f"limit must be a whole number of at least 1; got {self.limit!r}.")
        return int(given)

    def _steps(self, desired: str) -> list[dict[str, str]]:
        diagram = self.hook.find_process_diagram(desired)
        steps = self.hook.list_integration_steps(diagram["id"])
        return [{**step, "diagram_id": diagram["id"], "diagram": diagram["title"]} for step in steps]


def _earlier_run(record: Mapping[str, Any]) -> str:
    again = "It is done again, for the task was cleared."
    if "description" in record:
        return f"Before this task was cleared: {record['description']} {again}"
    return (
        f"Before this task was cleared, it began at {record['started']} to create {record['what']}, and nobody knows "
        f"whether it did. {again}"
    )


def _unknown(why: str, what: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"Nobody can tell whether it was created. {why.rstrip('. ')}. Look for {what}")


def _reject(name: str, value: Any, kind: str) -> None:
    if value is not None:
        raise ConfigurationError(f"{name} does not go with kind={kind!r}.")
