"""The settings of this package in Airflow's configuration, section ``[workflows]``."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import conf

from airflow_provider_workflows.rules.patience import DEFAULT_PATIENCE_SECONDS


def poke_interval_seconds() -> float:
    """Return the seconds between two polls of a wait whose DAG gives none."""
    return float(conf.getfloat("workflows", "poke_interval", fallback=60.0))


def rejection_patience_seconds() -> float:
    """Return for how many seconds a wait goes on although each of its polls is rejected."""
    return float(conf.getfloat("workflows", "rejection_patience", fallback=DEFAULT_PATIENCE_SECONDS))


def triggerer_count() -> int:
    """Return how many triggerers share the rate limit of each server and sign-in."""
    return max(1, int(conf.getint("workflows", "triggerer_count", fallback=1)))
