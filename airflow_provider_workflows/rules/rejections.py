"""When the rejections of a server are believed: never after a single one, which a gateway may have answered."""

from __future__ import annotations

from collections.abc import Collection, Hashable

MIN_REJECTED_POLLS = 3
DEFAULT_PATIENCE_SECONDS = 600.0


class Rejections:
    """
    Count the consecutive rejections of several things that are polled, each under a key of its own.

    :param patience: Seconds that the rejections of a thing must last before they are believed.
    """

    def __init__(self, patience: float = DEFAULT_PATIENCE_SECONDS):
        self._patience = patience
        self._seen: dict[Hashable, tuple[int, float]] = {}  # how many in a row, and when the first one came

    def record(self, key: Hashable, now: float) -> bool:
        """
        Record a rejection, and tell whether it is to be believed.

        :param now: Seconds of any clock that only runs forward.
        """
        number, since = self._seen.get(key, (0, now))
        self._seen[key] = number + 1, since
        return number + 1 >= MIN_REJECTED_POLLS and now - since >= self._patience

    def forget(self, key: Hashable) -> None:
        """Forget the rejections of a thing that the server has answered for."""
        self._seen.pop(key, None)

    def retain(self, keys: Collection[Hashable]) -> None:
        """Forget all things but these."""
        self._seen = {key: seen for key, seen in self._seen.items() if key in keys}
