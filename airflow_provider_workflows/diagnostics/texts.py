"""How the checks put into words what they found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_workflows.exceptions import (
    WorkflowsError,
)

if TYPE_CHECKING:
    pass

Result = TypeVar("Result")

MAX_NAMED = 6  # of a list, in a sentence
MAX_MESSAGE_CHARACTERS = 500  # characters; a server can name as many things as it likes


def counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def first_of(looked_at: Sequence[Any], every: Sequence[Any], thing: str) -> str:
    all_of_them = counted(len(every), thing)
    return all_of_them if len(looked_at) == len(every) else f"the first {len(looked_at)} of {all_of_them}"


def named(names: Iterable[Any]) -> str:
    every = [str(name) for name in names]
    more = f" and {len(every) - MAX_NAMED} more" if len(every) > MAX_NAMED else ""
    return ", ".join(every[:MAX_NAMED]) + more


def printable(words: str) -> str:
    """Return words that a terminal can be shown, whatever a server has put into them."""
    text = "".join(sign if sign.isprintable() else " " for sign in words)
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else f"{text[:MAX_MESSAGE_CHARACTERS]} ..."


def text_of(error: WorkflowsError) -> str:
    """Return what an error says, without its advice."""
    return str(error).removesuffix(getattr(error, "advice", "")).strip()
