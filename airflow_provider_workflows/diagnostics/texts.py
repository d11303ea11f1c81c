"""The wording of the checks' results: counts, lists of names, and messages that are safe to print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from airflow_provider_workflows.exceptions import WorkflowsError

MAX_NAMED = 6  # names of a list in one sentence
MAX_MESSAGE_CHARACTERS = 500  # a server's message can be long


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def first_of(checked: Sequence[Any], every: Sequence[Any], noun: str) -> str:
    """Return how many of all elements were checked."""
    total = counted(len(every), noun)
    return total if len(checked) == len(every) else f"the first {len(checked)} of {total}"


def named(names: Iterable[Any]) -> str:
    """Return the first names of a list and the number of the others."""
    every = [str(name) for name in names]
    more = f" and {len(every) - MAX_NAMED} more" if len(every) > MAX_NAMED else ""
    return ", ".join(every[:MAX_NAMED]) + more


def printable(message: str) -> str:
    """Return a message without control characters, which a server could send to a terminal, and shortened."""
    text = "".join(letter if letter.isprintable() else " " for letter in message)
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else f"{text[:MAX_MESSAGE_CHARACTERS]} ..."


def text_of(error: WorkflowsError) -> str:
    """Return the message of an error without its advice."""
    return str(error).removesuffix(getattr(error, "advice", "")).strip()
