"""One OpenTelemetry span for each write action, if ``[workflows] trace_actions`` is set."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_workflows.settings import traces_actions

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context

    from airflow_provider_workflows.operators.base import WritingOperator

log = logging.getLogger(__name__)


@contextmanager
def action_span(operator: WritingOperator, context: Context) -> Iterator[None]:
    """
    Emit a span when the action of a task has ended, in the process that ends it: a deferral emits none.

    The span starts with this process's part of the action. Its attributes are names of Airflow's own, the class of an
    error, and the length of the wait; no ids or texts of items, because traces go to other systems.
    """
    if not traces_actions():
        yield
        return
    started, error = time.time_ns(), ""
    try:
        yield
    except AirflowSkipException:
        raise
    except Exception as failure:  # raised again
        error = type(failure).__name__
        raise
    except BaseException:  # a deferral, or a kill: the action has not ended
        started = 0
        raise
    finally:
        if started and not operator.has_unsent_calls:  # of a dry run, which changed nothing
            try:
                _emit(operator, context, started, error)
            except Exception:  # a trace must not fail a task
                log.debug("The span of the action could not be emitted.", exc_info=True)


def _emit(operator: WritingOperator, context: Context, started: int, error: str) -> None:
    from opentelemetry import trace
    from opentelemetry.trace import Status, StatusCode

    ti = context.get("ti")
    names = {name: getattr(ti, name, None) for name in ("dag_id", "run_id", "task_id", "map_index", "try_number")}
    attributes: dict[str, Any] = {f"airflow.{name}": value for name, value in names.items() if value is not None}
    attributes["airflow.operator"] = type(operator).__name__
    waited_since: datetime | None = operator.waited_since(context)
    if waited_since is not None:
        attributes["workflows.wait_seconds"] = round(max(0.0, time.time() - waited_since.timestamp()), 3)
    if error:
        attributes["error.type"] = error
    span = trace.get_tracer("airflow_provider_workflows").start_span(
        f"workflows.{type(operator).__name__}", start_time=started, attributes=attributes
    )
    if error:
        span.set_status(Status(StatusCode.ERROR))
    span.end()
