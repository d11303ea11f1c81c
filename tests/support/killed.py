"""How a worker dies in the tests."""

from __future__ import annotations


class Killed(BaseException):
    """A worker that dies: nothing in the operator gets to handle it."""
