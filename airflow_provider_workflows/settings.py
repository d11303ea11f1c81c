"""The settings of this package, read from section ``[workflows]`` of Airflow's configuration."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import conf

from airflow_provider_workflows.rules.parameters import check_seconds
from airflow_provider_workflows.rules.patience import DEFAULT_PATIENCE_SECONDS


def poke_interval_seconds() -> float:
    """Return the seconds between two polls of a wait whose DAG does not set ``poke_interval``."""
    return _seconds("poke_interval", 60.0, may_be_zero=False)


def rejection_patience_seconds() -> float:
    """Return the seconds for which a wait continues while all of its polls are rejected."""
    return _seconds("rejection_patience", DEFAULT_PATIENCE_SECONDS)


def triggerer_count() -> int:
    """Return the number of triggerers that share the rate limit of each server and user."""
    return max(1, int(conf.getint("workflows", "triggerer_count", fallback=1)))


def traces_actions() -> bool:
    """Return whether each write action emits an OpenTelemetry span."""
    return bool(conf.getboolean("workflows", "trace_actions", fallback=False))


def approvals_page_reads() -> bool:
    """Return whether the Approvals page may read Procore, over the connections of the API server."""
    return bool(conf.getboolean("workflows", "approvals_page_reads", fallback=False))


def _seconds(name: str, fallback: float, *, may_be_zero: bool = True) -> float:
    value = float(conf.getfloat("workflows", name, fallback=fallback))
    check_seconds(f"[workflows] {name}", value, may_be_zero=may_be_zero)
    return value
