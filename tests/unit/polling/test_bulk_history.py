"""Histories in bulk: which items make a request fail, and how long the reader remembers them."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.exceptions import InvalidRequest, ServerError
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.polling.bulk_history import BulkHistoryReader, BulkHistoryUnavailable

pytestmark = pytest.mark.usefixtures("airflow_connections", "no_delays")

PLACE = ("purchase_order_contract", "1001")


@pytest.fixture
def failing_item(emulator):
    emulator.control("POST", "faults", method="POST", path="/bulk_history$", status=400, json={"error": "bad item"})


@pytest.mark.usefixtures("failing_item")
def test_rejected_item_is_requested_again_only_for_another_place():
    reader, hook = BulkHistoryReader(), ProcoreHook("procore_default")
    assert reader.start(*PLACE, ["5001"]) == {}
    (rejection,) = reader.read_next(hook).values()

    assert isinstance(rejection, InvalidRequest)
    assert reader.start(*PLACE, ["5001"]) == {"5001": rejection}
    assert reader.start("generic_tool_item", "1001", ["5001"]) == {}


@pytest.mark.usefixtures("failing_item")
def test_rejected_item_is_read_again_with_on_failure():
    failures = []
    reader = BulkHistoryReader(on_failure=lambda failure, items: failures.append((type(failure), items)))
    hook = ProcoreHook("procore_default")
    reader.start(*PLACE, ["5001"])
    reader.read_next(hook)

    assert reader.start(*PLACE, ["5001"]) == {}
    assert isinstance(reader.read_next(hook)["5001"], list)
    assert failures == [(InvalidRequest, 1)]


def test_route_is_disabled_after_two_faults_of_bulk_reads_only():
    reader, fault = BulkHistoryReader(), ServerError("The server failed")
    reader.start(*PLACE, ["5001"])
    reader.compare_with_single(fault, is_read=True)
    reader.compare_with_single(fault, is_read=False)
    reader.compare_with_single(fault, is_read=True)

    with pytest.raises(BulkHistoryUnavailable):
        reader.compare_with_single(fault, is_read=True)


def test_bulk_history_that_works_again_resets_the_count_of_faults():
    reader, fault = BulkHistoryReader(), ServerError("The server failed")
    reader.start(*PLACE, ["5001"])
    reader.compare_with_single(fault, is_read=True)
    reader.read_next(ProcoreHook("procore_default"))

    reader.compare_with_single(fault, is_read=True)
