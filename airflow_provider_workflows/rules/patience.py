"""When rejected polls fail a wait: not after a single one, which a gateway or a restart of the server can cause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow_provider_workflows.exceptions import ApiError, ConfigurationError, InvalidRequest, NotFound, WorkflowsError

MIN_REJECTED_POLLS = 3
DEFAULT_PATIENCE_SECONDS = 600.0


class Rejections(NamedTuple):
    """
    Count the consecutive rejected polls of one wait, across all kinds of rejections.

    :param since: Unix time of the first of them.
    :param polls: Number of rejected polls.
    """

    since: float
    polls: int

    @classmethod
    def following(cls, before: Rejections | None, now: float) -> Rejections:
        """Count one more rejected poll; if the clock was set back, the time starts again."""
        if before is None:
            return cls(now, 1)
        return cls(min(before.since, now), before.polls + 1)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> Rejections | None:
        return None if stored is None else cls(float(stored["since"]), int(stored["polls"]))

    def to_dict(self) -> dict[str, Any]:
        return self._asdict()

    def are_final(self, now: float, patience_seconds: float) -> bool:
        """Return whether the wait fails: enough polls over enough wall-clock time were rejected."""
        return self.polls >= MIN_REJECTED_POLLS and now - self.since >= patience_seconds


def fails_first_poke(error: WorkflowsError) -> bool:
    """
    Return whether an error fails a wait at the first poke of its first try, while the DAG's author is still watching.

    These are a wrong parameter or a missing connection, and a 404 or 422 in the API's own format. Every other error can
    come from a server between Airflow and the API, and be over a minute later.
    """
    if isinstance(error, ConfigurationError):
        return True
    is_from_api = isinstance(error, ApiError) and error.is_documented
    return is_from_api and (isinstance(error, NotFound) or (isinstance(error, InvalidRequest) and bool(error.fields)))
