"""When an Airflow connection is looked up again: the same rule for the polls of a triggerer and a wait on a worker."""

from __future__ import annotations

CONNECTION_TTL_SECONDS = 900.0
MAX_STALE_SECONDS = 3600.0  # how long polls use an expired connection while looking it up fails
MIN_LOOK_UP_SECONDS = 60.0  # between two lookups that failed calls cause


class LookUps:
    """
    Record the lookups of one connection, and decide when the next one is due.

    A lookup is expensive, so it is due after 15 minutes, or earlier if a call failed as it does after the connection
    was changed. All times are those of a monotonic clock.
    """

    def __init__(self) -> None:
        self._found_at = float("-inf")
        self._started_at = float("-inf")

    def is_due(self, now: float) -> bool:
        return now - self._found_at >= CONNECTION_TTL_SECONDS

    def request(self, now: float) -> bool:
        """Make a lookup due after a rejected sign-in or a failed connection; return False if the last is too recent."""
        if now - self._started_at < MIN_LOOK_UP_SECONDS:
            return False
        self._found_at = float("-inf")
        return True

    def start(self, now: float) -> None:
        """Record that a lookup starts."""
        self._started_at = now

    def succeed(self, now: float) -> None:
        """Record that a lookup has found the connection."""
        self._found_at = now

    def may_fail(self, now: float) -> bool:
        """Return whether polls continue with the known connection, because a secrets backend may be unavailable."""
        age = now - self._found_at
        return age == float("inf") or age <= CONNECTION_TTL_SECONDS + MAX_STALE_SECONDS
