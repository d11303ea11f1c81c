"""Every list of both Procore APIs is read whole, with every flag of the emulator for pages."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.emulator.behaviour_flags import BEHAVIOUR_FLAGS
from airflow_provider_workflows.exceptions import IncompleteList, UnexpectedResponse
from airflow_provider_workflows.hooks import procore, procore_legacy
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

TOOL = "purchase_order_contract"
PLACES = BEHAVIOUR_FLAGS["cursor_place"].values


@pytest.fixture
def many(airflow_connections):
    """An emulator with 120 more instances of each API."""
    started = airflow_connections.control("POST", "procore/instances/many", tool_type=TOOL, count=120)
    assert len(started["ids"]) == 120
    airflow_connections.control(
        "POST", "procore/legacy/instances/many", count=120, workflow="Purchase Order Approval Workflow"
    )
    return airflow_connections


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Pages of legacy lists as small as those of v2."""
    monkeypatch.setattr(procore_legacy, "V1_PAGE_SIZE", procore.V2_PAGE_SIZE)


def instances(**filters) -> list[str]:
    return [row["id"] for row in ProcoreHook(project_id="1001").list_instances(TOOL, **filters)]


def legacy_instances() -> list[str]:
    return [row["id"] for row in ProcoreLegacyHook().list_instances()]


@pytest.mark.sample(3)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("page_limit", BEHAVIOUR_FLAGS["page_limit"].values)
def test_a_list_by_cursor_is_read_whole(many, place, page_limit):
    many.control("PATCH", "flags", cursor_place=place, page_limit=page_limit)

    found = instances()

    assert len(found) == len(set(found)) == 121


@pytest.mark.parametrize("place", ["body_meta_next_cursor", "link_header"])
def test_a_list_that_takes_no_page_numbers_is_read_whole(many, place):
    many.control("PATCH", "flags", instances_paging="cursor_only", cursor_place=place)

    found = instances()

    assert len(found) == len(set(found)) == 121


@pytest.mark.sample(3)
@pytest.mark.parametrize("style", BEHAVIOUR_FLAGS["page_headers"].values)
@pytest.mark.parametrize("page_limit", BEHAVIOUR_FLAGS["page_limit"].values)
def test_a_list_by_page_numbers_is_read_whole(many, style, page_limit):
    many.control("PATCH", "flags", instances_paging="page_only", page_headers=style, page_limit=page_limit)

    for found in (instances(), legacy_instances()):
        assert len(found) == len(set(found)) >= 121


def test_a_total_that_counts_hidden_rows_makes_a_list_incomplete(many):
    many.control("PATCH", "flags", instances_paging="page_only", list_total="hidden_rows_too")

    for read in (instances, legacy_instances):
        with pytest.raises(IncompleteList):
            read()


def test_an_unpaged_list_that_names_a_next_page_is_an_error(airflow_connections):
    shown = {"data": [{"type": TOOL, "provider": "Project"}], "meta": {"next_cursor": "c2"}}
    airflow_connections.control("POST", "faults", path="/workflows/tools", status=200, json=shown)

    with pytest.raises(UnexpectedResponse, match="has a next page"):
        ProcoreHook().list_tools()
