"""The contract check finds each side of each open question that reading can show, and guesses none."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import pytest

from airflow_provider_workflows.diagnostics.contract_check.check import PROBES
from airflow_provider_workflows.diagnostics.open_questions import open_questions
from airflow_provider_workflows.emulator import Emulator
from tests.support.contract_tenant import ContractTenant

READABLE = {row.flag: row for row in open_questions() if row.cannot_be_read is None}
# Sides that are on the wire like another one or like nothing: what the check finds instead.
LOOKS_LIKE = {
    ("list_total", "shown_rows"): None,
    ("rate_headers", "when_on"): "never",
    ("ws_rate_limit", "none"): None,
    ("ws_user_search", "exact"): None,
    ("ws_api_token_auth", "any"): "basic",
}
# What else must be so for a flag to show.
BESIDE = {
    "spike_limit": {"rate_headers": "always"},
    "hourly_limit": {"rate_headers": "always", "spike_limit": 1_000_000},
    "ws_rate_limit": {"rate_headers": "always"},
    "ws_token_lifetime": {"ws_token_shape": "object"},
}
SIGN_IN = {
    "bearer": {"login_auth": "bearer"},
    "cookie": {"login_auth": "cookie", "password": "session=emulator-password"},
}


@contextmanager
def crowded_tenant():
    """Yield a tenant of its own with more instances than the smaller page has rows."""
    with Emulator() as emulator:
        crowded = ContractTenant(emulator)
        crowded.control("procore/instances/many", count=60)
        yield crowded


def prepare(tenant, flag, side):
    """Let something happen after the flag is set, where the flag is not about reading."""
    if flag == "hourly_limit":
        tenant.later(3700)  # the requests of other tests count no more
    if (flag, side) == ("bulk_replace_status", "more_words"):
        tenant.control("flags", "PATCH", operation_delay=1000)
        tenant.replace()
    if flag == "bulk_replace_report":
        tenant.replace()
    if (flag, side) == ("ws_option_value", "id"):
        tenant.control("flags", "PATCH", ws_options_shape="id_value")
        tenant.ws_instances[1] = tenant.start_process("Purchase request", {"Decision": "1"})


def sides():
    """Yield each side; in the quick tests the first one of each question that is not the emulator's default."""
    for row in READABLE.values():
        for number, side in enumerate(row.sides):
            yield pytest.param(row.flag, side, marks=[] if number == 1 else pytest.mark.slow)


@pytest.mark.sample(8)
@pytest.mark.parametrize(("flag", "side"), list(sides()), ids=str)
def test_each_side_is_found_by_reading(tenant, check, flag, side):
    with crowded_tenant() if flag == "page_limit" else nullcontext(tenant) as of:
        check_side(of, check, flag, side)


def check_side(tenant, check, flag, side):
    value = int(side) if flag in ("spike_limit", "hourly_limit", "token_lifetime") else side
    tenant.control("flags", "PATCH", **BESIDE.get(flag, {}), **{flag: value})
    prepare(tenant, flag, side)
    is_procore = READABLE[flag].product != "workflowsoft"

    checked = check("procore" if is_procore else "workflowsoft", of=tenant, **SIGN_IN.get(side, {}))

    # Of the questions that have the flag, the first; with some values the others do not arise.
    found = next(finding.outcome for finding in checked.findings if finding.question.flag == flag)
    expected = LOOKS_LIKE.get((flag, side), side)
    assert (found.side, found.result) == (expected, "not_seen" if expected is None else "seen"), found
    assert checked.requests <= 60


def test_each_question_has_a_probe_or_the_reason_why_not():
    assert set(PROBES) == set(READABLE)
