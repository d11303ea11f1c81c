"""When a wait believes that it was rejected: not after one poll, for a gateway or a restart can cause that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_workflows.exceptions import ApiError, ConfigurationError, InvalidRequest, NotFound, WorkflowsError

MIN_REJECTED_POLLS = 3
DEFAULT_PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Rejections:
    """
    The consecutive polls of one wait that were rejected, whatever the kind of each rejection.

    :param since: Unix time of the first of them.
    :param polls: How many there were.
    """

    since: float
    polls: int

    @classmethod
    def following(cls, before: Rejections | None, now: float) -> Rejections:
        """Count one more rejected poll; a clock that was set back starts the stretch of time again."""
        if before is None:
            return cls(now, 1)
        return cls(min(before.since, now), before.polls + 1)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> Rejections | None:
        return None if stored is None else cls(float(stored["since"]), int(stored["polls"]))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def are_final(self, now: float, patience_seconds: float) -> bool:
        """Tell whether the wait fails: enough polls over enough wall-clock time were rejected."""
        return self.polls >= MIN_REJECTED_POLLS and now - self.since >= patience_seconds


def fails_first_poke(error: WorkflowsError) -> bool:
    """
    Tell whether an error fails a wait at the first poke of its first try, where the DAG's author is still looking.

    That is a wrong parameter or a missing connection, and what the API itself says of one: a 404 or a 422 in the API's
    own format. Everything else can come from something between us and the API, and be over a minute later.
    """
    if isinstance(error, ConfigurationError):
        return True
    is_from_api = isinstance(error, ApiError) and error.is_documented
    return is_from_api and (isinstance(error, NotFound) or (isinstance(error, InvalidRequest) and bool(error.fields)))
