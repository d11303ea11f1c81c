"""Tests of large sizes: a tenth of the size in each run, the full size with the slow tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest


def tenth_and_full(name: str, full: int) -> Any:
    """
    Parametrize a test with a tenth of a size, and with the full size as a slow test.

    :param name: Name of the test's parameter.
    :param full: The full size, a multiple of ten.
    """
    return pytest.mark.parametrize(name, [full // 10, pytest.param(full, marks=pytest.mark.slow)])


def some_and_all(values: Sequence[Any], number: int, names: Callable[[Any], str] = str) -> list[Any]:
    """Return parameters of which only the first few run with the quick tests."""
    return [
        pytest.param(value, id=names(value), marks=() if place < number else pytest.mark.slow)
        for place, value in enumerate(values)
    ]
