"""Assets built in one line, and parameters that are rejected when Airflow parses a DAG file."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk import Asset
from airflow.triggers.base import BaseTrigger

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.assets import events
from airflow_provider_workflows.assets.events import events_of
from airflow_provider_workflows.assets.procore import procore_asset
from airflow_provider_workflows.assets.workflowsoft import workflowsoft_asset
from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.triggers.events import BaseEventTrigger
from airflow_provider_workflows.triggers.procore_events import (
    ProcoreInstanceChangedTrigger,
    ProcoreResponseRequestedTrigger,
)
from airflow_provider_workflows.triggers.workflowsoft_events import WorkflowsoftIntegrationTrigger

pytestmark = pytest.mark.compat

TOOL = "purchase_order_contract"


def watcher(asset):
    (found,) = asset.watchers
    return found.trigger


def test_an_asset_for_requests():
    asset = procore_asset("orders to approve", tool_type=TOOL, project_id=1001, user="us@example.com")

    assert asset.uri == "procore://procore_default/response_requested/orders%20to%20approve"
    assert isinstance(watcher(asset), ProcoreResponseRequestedTrigger)
    path, kwargs = watcher(asset).serialize()
    assert path == "airflow_provider_workflows.triggers.procore_events.ProcoreResponseRequestedTrigger"
    assert kwargs == {
        "procore_conn_id": "procore_default",
        "company_id": None,
        "project_id": ["1001"],
        "tool_type": [TOOL],
        "tool_subtype": None,
        "user": "us@example.com",
        "poll_interval": 1.0,  # of [workflows] poke_interval
        "asset": "orders to approve",
    }


def test_an_asset_for_changes():
    asset = procore_asset(
        "orders", event="instance_changed", tool_type={TOOL}, states="complete", poll_interval=timedelta(minutes=5)
    )

    trigger = watcher(asset)
    assert isinstance(trigger, ProcoreInstanceChangedTrigger)
    assert (trigger.states, trigger.changes, trigger.poll_interval) == (["complete"], [], 300.0)


def test_an_asset_for_an_integration_step():
    asset = workflowsoft_asset("vendors", diagram="Vendor onboarding", step="Register vendor", poll_interval=15)

    assert asset.uri == "workflowsoft://workflowsoft_default/integration/vendors"
    assert isinstance(watcher(asset), WorkflowsoftIntegrationTrigger)


def test_short_interval_is_accepted_before_the_server_is_known():
    """How often a server that is not on this machine is polled is known when it is polled."""
    assert watcher(workflowsoft_asset("vendors", step_id=101, poll_interval=1)).poll_interval == 1.0


def test_the_name_of_an_asset_and_of_its_watcher_are_the_same_text():
    asset = procore_asset(" orders ", tool_type=TOOL)

    assert (asset.name, watcher(asset).asset) == ("orders", "orders")


BUILDERS = {
    "procore": lambda **more: procore_asset("a", tool_type=TOOL, **more),
    "changes": lambda **more: procore_asset("a", event="instance_changed", tool_type=TOOL, **more),
    "workflowsoft": lambda **more: workflowsoft_asset("a", step_id=101, **more),
}
EVERY_BUILDER = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


@EVERY_BUILDER
def test_group_and_extra_reach_the_asset(build):
    asset = build(group="orders", extra={"owner": "finance"})

    assert (asset.group, asset.extra) == ("orders", {"owner": "finance"})
    assert (build().group, build().extra) == (Asset(name="a").group, Asset(name="a").extra)


@EVERY_BUILDER
def test_access_control_reaches_the_asset_where_airflow_has_it(build):
    if not version_compat.ASSETS_HAVE_ACCESS_CONTROL:
        with pytest.raises(ConfigurationError, match="access_control"):
            build(access_control=object())
        return
    from airflow.sdk.definitions.asset import AssetAccessControl

    teams = AssetAccessControl(consumer_teams=["finance"])

    assert build(access_control=teams).access_control == teams
    assert build().access_control == AssetAccessControl()


@EVERY_BUILDER
def test_queue_reaches_the_watcher_where_airflow_has_it(build, monkeypatch):
    assert "queue" not in watcher(build()).serialize()[1]
    if not version_compat.WATCHERS_HAVE_QUEUES:
        with pytest.raises(ConfigurationError, match="queue"):
            build(queue="approvals")

        def init(self, *, queue=None, **kwargs):
            BaseTrigger.__init__(self, **kwargs)
            self.queue = queue

        monkeypatch.setattr(BaseEventTrigger, "__init__", init)
        monkeypatch.setattr(version_compat, "WATCHERS_HAVE_QUEUES", True)

    trigger = watcher(build(queue=" approvals "))
    path, stored = trigger.serialize()

    assert (trigger.queue, stored["queue"]) == ("approvals", "approvals")
    assert type(trigger)(**stored).serialize() == (path, stored)
    assert trigger.store_key == watcher(build()).store_key  # another queue is the same cursor


@EVERY_BUILDER
@pytest.mark.parametrize(("name", "value"), [("group", 5), ("extra", ["a"]), ("queue", "{{ ds }}"), ("queue", "")])
def test_wrong_option_of_an_asset_is_named(build, name, value):
    with pytest.raises(ConfigurationError, match=name):
        build(**{name: value})


@pytest.mark.parametrize("cls", [ProcoreResponseRequestedTrigger, ProcoreInstanceChangedTrigger])
def test_misspelt_argument_of_a_watcher_is_rejected(cls):
    with pytest.raises(TypeError, match="projct_id"):
        cls(tool_type=TOOL, projct_id="1001")


@pytest.mark.parametrize(
    "asset",
    [
        procore_asset("a", tool_type=[TOOL, "other"]),
        procore_asset("b", event="instance_changed", tool_type=TOOL, changes=["ended", "gone"]),
        workflowsoft_asset("c", step_id=101),
    ],
    ids=lambda asset: asset.name,
)
def test_watcher_survives_a_round_trip_through_the_database(asset):
    _, kwargs = watcher(asset).serialize()
    again = type(watcher(asset))(**json.loads(json.dumps(kwargs)))

    assert again.serialize() == watcher(asset).serialize()
    assert again.scope().key == watcher(asset).scope().key
    hash(again.scope().key)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"event": "something"}, "event"),
        ({"tool_type": []}, "tool_type"),
        ({"tool_type": None}, "tool_type"),
        ({"tool_type": ""}, "tool_type"),
        ({"tool_type": "{{ params.tool }}"}, "tool_type is a template"),
        ({"user": "{{ var.value.us }}"}, "user is a template"),
        ({"company_id": ...}, "company_id"),
        ({"project_id": [datetime(2026, 1, 1)]}, "project_id"),
        ({"project_id": []}, "project_id"),
        ({"project_id": [None]}, "project_id"),
        ({"procore_conn_id": None}, "procore_conn_id"),
        ({"poll_interval": 0}, "poll_interval"),
        ({"poll_interval": -1.0}, "poll_interval"),
        ({"poll_interval": "60"}, "poll_interval"),
        ({"poll_interval": float("nan")}, "poll_interval"),
        ({"states": "complete"}, "states does not go with"),
        ({"event": "instance_changed", "user": "1"}, "user does not go with"),
        ({"event": "instance_changed", "states": "completed"}, "states"),
        ({"event": "instance_changed", "changes": ["begun"]}, "changes"),
        ({"name": ""}, "name"),
    ],
    ids=str,
)
def test_wrong_parameter_of_a_procore_asset_is_named(kwargs, named):
    with pytest.raises(ConfigurationError, match=named):
        procore_asset(**{"name": "asset", "tool_type": TOOL, **kwargs})


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({}, "step"),
        ({"step": "a"}, "diagram"),
        ({"step": "a", "step_id": "1", "diagram": "b"}, "step"),
        ({"step_id": "1", "poll_interval": 0}, "poll_interval must be seconds or a timedelta, more than 0"),
        ({"step_id": "1", "poll_interval": -15}, "poll_interval must be seconds or a timedelta, more than 0"),
        ({"step_id": "1", "poll_interval": timedelta(0)}, "poll_interval must be seconds or a timedelta, more than 0"),
        ({"step_id": "1", "max_instances": 0}, "max_instances"),
        ({"step_id": "1", "max_instances": 501}, "max_instances"),
        ({"step_id": "1", "max_instances": "5"}, "max_instances"),
        ({"step_id": "{{ ds }}"}, "step_id is a template"),
    ],
    ids=str,
)
def test_wrong_parameter_of_a_workflowsoft_asset_is_named(kwargs, named):
    with pytest.raises(ConfigurationError, match=named):
        workflowsoft_asset("asset", **kwargs)


def test_old_airflow_is_rejected_with_the_required_version(monkeypatch):
    monkeypatch.setattr(events, "CAN_WATCH_ASSETS", False)

    for build in (
        lambda: procore_asset("a", tool_type=TOOL),
        lambda: workflowsoft_asset("b", step_id="1"),
    ):
        with pytest.raises(ConfigurationError, match=r"Airflow 3\.0\.1 or newer"):
            build()


@pytest.mark.parametrize("uri", ["procore://", "procore://conn", "workflowsoft://conn/integration"])
def test_airflow_rejects_an_asset_with_half_a_uri(uri):
    with pytest.raises(ValueError, match="must be"):
        Asset(name="a", uri=uri)


def test_airflow_accepts_the_uris_of_the_assets():
    assert Asset(name="a", uri="procore://conn/instance_changed/a").uri == "procore://conn/instance_changed/a"


def test_a_run_reads_each_event_once():
    def asset_event(extra):
        return SimpleNamespace(extra=extra)

    first, second = {"event_id": "a", "n": 1}, {"event_id": "b", "n": 2}
    triggering = {
        "asset": [asset_event({"payload": {"events": [first]}}), asset_event({"payload": {"events": [first, second]}})],
        "by hand": [asset_event({}), asset_event(None), asset_event({"payload": "text"})],
    }

    assert events_of(triggering) == [first, second]
    assert events_of({}) == []
