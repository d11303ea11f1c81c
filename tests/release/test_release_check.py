"""The checklist of a release is complete and reports what happened."""

from __future__ import annotations

import re

import pytest

from tests.support import release_check
from tests.support.release import ROOT


def test_failed_check_fails_the_list_but_the_others_still_run(capsys):
    ran = []

    assert release_check.main(["lint", "docs", "wheel"], run=lambda target: ran.append(target) or target != "docs") == 1

    assert ran == ["lint", "docs", "wheel"]
    marks = re.findall(r"^\[(.)\] `make (\S+)`", capsys.readouterr().out, re.MULTILINE)
    assert {target: mark for mark, target in marks if mark != " "} == {"lint": "x", "docs": "!", "wheel": "x"}
    assert len(marks) == len(release_check.CHECKS)


def test_unknown_check_runs_nothing():
    with pytest.raises(SystemExit):
        release_check.main(["lint", "tests"], run=lambda target: pytest.fail(target))


def test_every_check_is_a_make_target():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert {step.target for step in release_check.CHECKS} <= set(targets)
