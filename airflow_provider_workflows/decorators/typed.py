"""What editors and type checkers are told of decorated functions; Airflow itself sees none of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from typing_extensions import TypedDict, Unpack

if TYPE_CHECKING:
    from typing import TypeAlias

    from airflow.sdk import BaseNotifier, Context, XComArg
    from typing_extensions import Self

    Callback: TypeAlias = Callable[[Context], Any] | BaseNotifier
    Callbacks: TypeAlias = Callback | list[Callback]

Parameters = ParamSpec("Parameters")
Returned_co = TypeVar("Returned_co", covariant=True)


class TaskOptions(TypedDict, total=False):
    """The options that every task of Airflow's takes."""

    task_id: str
    task_display_name: str
    task_group: Any
    dag: Any
    default_args: Mapping[str, Any]
    params: Mapping[str, Any]
    owner: str
    email: str | list[str]
    email_on_retry: bool
    email_on_failure: bool
    retries: int
    retry_delay: timedelta | float
    retry_exponential_backoff: float
    max_retry_delay: timedelta | float
    retry_policy: Any
    start_date: datetime
    end_date: datetime
    depends_on_past: bool
    ignore_first_depends_on_past: bool
    wait_for_past_depends_before_skipping: bool
    wait_for_downstream: bool
    priority_weight: int
    weight_rule: Any
    queue: str
    pool: str
    pool_slots: int
    execution_timeout: timedelta
    on_execute_callback: Callbacks
    on_failure_callback: Callbacks
    on_success_callback: Callbacks
    on_retry_callback: Callbacks
    on_skipped_callback: Callbacks
    pre_execute: Callable[..., None]
    post_execute: Callable[..., None]
    trigger_rule: str
    resources: Mapping[str, Any]
    run_as_user: str
    map_index_template: str
    max_active_tis_per_dag: int
    max_active_tis_per_dagrun: int
    executor: str
    executor_config: Mapping[str, Any]
    do_xcom_push: bool
    multiple_outputs: bool
    inlets: Any
    outlets: Any
    doc: str
    doc_md: str
    doc_json: str
    doc_yaml: str
    doc_rst: str
    logger_name: str
    allow_nested_operators: bool
    render_template_as_native_obj: bool


class ResponseOptions(TaskOptions, total=False):
    """The options of ``procore_response``."""

    procore_conn_id: str
    company_id: str | int | None
    project_id: str | int | None
    on_step_moved: str
    confirm_timeout: timedelta | float
    timeout: timedelta | float | None
    poke_interval: timedelta | float | None
    deferrable: bool | None


class IntegrationOptions(TaskOptions, total=False):
    """The options of ``workflowsoft_integration``."""

    workflowsoft_conn_id: str
    expected_fields: Mapping[str, str] | None
    custom_action: str
    on_unknown_completion: str
    allow_unknown_types: bool
    verify: str
    confirm_timeout: timedelta | float


class DecoratedTask(Protocol[Returned_co]):
    """What all decorated functions can do beside being called."""

    @property
    def function(self) -> Callable[..., Returned_co]: ...

    def partial(self, **arguments: Any) -> Self:
        """Give some arguments to all mapped tasks."""

    def expand(self, **arguments: Any) -> XComArg:
        """Make a task of each element of the arguments."""

    def expand_kwargs(self, arguments: Any, *, strict: bool = True) -> XComArg:
        """Make a task of each mapping of arguments."""


class ResponseTask(DecoratedTask[Returned_co], Protocol[Parameters, Returned_co]):
    """A function that decides about a Procore workflow instance, as a task."""

    def __call__(self, instance: Any, *args: Parameters.args, **kwargs: Parameters.kwargs) -> XComArg:
        """
        Make a task.

        :param instance: A row of ``ProcoreResponseRequestedSensor``, or an instance's id.
        """

    def override(self, **options: Unpack[ResponseOptions]) -> Self:
        """Return the same function with other options."""


class IntegrationTask(DecoratedTask[Returned_co], Protocol[Parameters, Returned_co]):
    """A function that decides about a Workflowsoft integration instance, as a task."""

    def __call__(self, integration_instance_id: Any, *args: Parameters.args, **kwargs: Parameters.kwargs) -> XComArg:
        """
        Make a task.

        :param integration_instance_id: An id, a row of ``WorkflowsoftIntegrationSensor``, or a list of them.
        """

    def override(self, **options: Unpack[IntegrationOptions]) -> Self:
        """Return the same function with other options."""
