"""How a worker dies in the tests of Workflowsoft."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.killed import Killed


@pytest.fixture
def dies(monkeypatch) -> Callable[..., None]:
    """Return a function that lets the worker die in the next call of a method, before or after its effect."""

    def at(owner: type, name: str, moment: str, about: str = "") -> None:
        """:param about: What the first argument of the call holds, such as the key in a store."""
        really, died = getattr(owner, name), []

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if died or about not in str(args[:1]):
                return really(self, *args, **kwargs)
            died.append(True)
            if moment == "after":
                really(self, *args, **kwargs)
            raise Killed

        monkeypatch.setattr(owner, name, call)

    return at
