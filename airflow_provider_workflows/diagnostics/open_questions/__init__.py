"""
The questions that the vendors' documents leave open, with all plausible answers, as data.

Each YAML file lists what one product's documents leave open. The page "Limits and contract gaps" and the contract check
read them; the emulator does not, and a test compares both. A row has:

question: What is not documented, as the end of the sentence "It is not documented ...".
flag: The emulator's behaviour flag whose values are the sides. Several questions can have the same flag.
sides: The plausible answers: each value of the flag with the answer in a few words, or ``~`` for a value with which the
    question does not arise. Of a flag that takes a number, numbers that stand for the sides.
reading: What this package does, whichever side is true.
cannot_be_read: Why no reading of a tenant shows the side. Without it, ``contract_check`` has a probe for the flag.
tests: The tests that run with each side, as ``file::function``; a test that is parametrized counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PRODUCTS = {"procore": "Procore v2", "procore_legacy": "Procore Legacy", "workflowsoft": "Workflowsoft"}


@dataclass(frozen=True)
class OpenQuestion:
    """
    Describe what one product's documents leave open.

    :param product: A key of ``PRODUCTS``.
    :param sides: The answer in words by the value of the flag; None where the question does not arise.
    """

    product: str
    question: str
    flag: str
    sides: Mapping[str, str | None]
    reading: str
    tests: Sequence[str]
    cannot_be_read: str | None = None

    @property
    def answers(self) -> list[str]:
        """Return the plausible answers in words, each once."""
        return [answer for answer in dict.fromkeys(self.sides.values()) if answer is not None]


def open_questions(*products: str) -> list[OpenQuestion]:
    """
    Return the open questions of some products, in the order of the files.

    :param products: Keys of ``PRODUCTS``; none for all.
    """
    import yaml  # comes with Airflow

    return [
        OpenQuestion(product=product, **row)
        for product in products or PRODUCTS
        for row in yaml.safe_load((Path(__file__).parent / f"{product}.yaml").read_text(encoding="utf-8"))
    ]
