"""The table of open questions and the emulator's behaviour flags agree, though neither reads the other."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.diagnostics.open_questions import open_questions
from airflow_provider_workflows.emulator.behaviour_flags import BEHAVIOUR_FLAGS

QUESTIONS = open_questions()


def test_every_behaviour_flag_belongs_to_an_open_question():
    assert {row.flag for row in QUESTIONS} == set(BEHAVIOUR_FLAGS)


@pytest.mark.parametrize("row", QUESTIONS, ids=lambda row: row.question[:60])
def test_sides_of_a_question_are_the_values_of_its_flag(row):
    flag = BEHAVIOUR_FLAGS[row.flag]

    assert len(row.answers) >= 2
    if flag.takes_number:
        assert all(flag.allows(float(side)) for side in row.sides)
        assert flag.values[0] in {float(side) for side in row.sides}
    else:
        assert set(row.sides) == {str(value) for value in flag.values}


def test_questions_with_one_flag_agree_whether_it_can_be_read():
    reasons = {(row.flag, row.cannot_be_read) for row in QUESTIONS}

    assert len(reasons) == len({flag for flag, _ in reasons})
