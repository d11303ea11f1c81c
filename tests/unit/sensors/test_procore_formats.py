"""Waits on Procore end the same with times, members, values and errors in each plausible format."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.exceptions import NotFound
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor, ProcoreResponseRequestedSensor

pytestmark = pytest.mark.usefixtures("airflow_connections")

INSTANCE = "700001"


@pytest.mark.parametrize(
    ("flag", "side"),
    [
        ("time_format", "utc"),
        ("time_format", "milliseconds"),
        ("time_format", "offset"),
        ("optional_members", "absent"),
        ("more_members", "more"),
        ("more_words", "more"),
    ],
)
def test_wait_ends_the_same_in_every_format(emulator, flag, side):
    emulator.control("PATCH", "flags", **{flag: side})
    sensor = ProcoreInstanceSensor(task_id="wait", instance_id=INSTANCE, timeout=30)

    turn = ProcoreResponseRequestedSensor(task_id="turn", tool_type="purchase_order_contract", timeout=30)
    request = turn.poke({})
    while_open = sensor.poke({})
    for login in ("integration@example.com", "dana@example.com"):
        emulator.control("POST", f"procore/instances/{INSTANCE}/respond", login=login, option="Approve")
        emulator.control("POST", "clock", advance=60)
    ended = sensor.poke({}).xcom_value

    assert INSTANCE in str(request.xcom_value)
    assert while_open is False
    assert (ended["item_status"], ended["state"]) == ("Approved", "complete")
    assert (ended["decision"]["option"], ended["decision"]["by"]) == ("Approve", "dana@example.com")


@pytest.mark.parametrize("side", ["documented", "v1", "page"])
def test_rejection_names_the_status_in_every_format(emulator, side):
    emulator.control("PATCH", "flags", error_body=side)

    with pytest.raises(NotFound) as raised:
        ProcoreHook().get_instance("1")

    assert raised.value.status_code == 404
    assert ("was not found" in (raised.value.server_message or "")) is (side != "page")
