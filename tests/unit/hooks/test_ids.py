"""Ids that are passed to hooks: text or whole numbers, or an error that names the parameter before a call is sent."""

from __future__ import annotations

import inspect

import pytest

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.hooks.ids import IDS_OR_NAMES, id_parameters, may_be_none
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

pytestmark = pytest.mark.usefixtures("airflow_connections")
TOOL = "purchase_order_contract"


def methods():
    """Yield each public method of a hook with each of its id parameters."""
    for hook in (ProcoreHook, ProcoreLegacyHook, WorkflowsoftHook):
        for name, method in inspect.getmembers(hook, inspect.isfunction):
            if method.__module__.startswith("airflow_provider_workflows.") and not name.startswith("_"):
                for parameter in id_parameters(method):
                    yield pytest.param(hook, name, parameter, id=f"{hook.__name__}.{name}-{parameter}")


@pytest.mark.parametrize(("hook", "name", "parameter"), list(methods()))
def test_every_hook_method_rejects_what_is_no_id(emulator, hook, name, parameter):
    signature = inspect.signature(getattr(hook, name))
    required = {p.name: "1" for p in list(signature.parameters.values())[1:] if p.default is p.empty}
    required = {name: [value] if name.endswith("_ids") else value for name, value in required.items()}
    is_optional = may_be_none(signature.parameters[parameter])

    for value in (5001.0, True, "", {"id": 1}, *([] if is_optional else [None])):
        for ids in [value, ["1", value]] if parameter.endswith("_ids") else [value, [value]]:
            with pytest.raises(ConfigurationError, match=f"^{parameter} "):
                getattr(hook(), name)(**{**required, parameter: ids})
    if parameter not in IDS_OR_NAMES:
        with pytest.raises(ConfigurationError, match=f"^{parameter} "):
            getattr(hook(), name)(**{**required, parameter: "5001.0"})
    assert emulator.requests() == []


@pytest.mark.parametrize("kind", [str, int])
@pytest.mark.parametrize(
    "read",
    [
        lambda kind: [row["id"] for row in ProcoreHook().list_instances(TOOL, item_id=kind(5001))],
        lambda kind: [row["id"] for row in ProcoreHook().list_item_instances(TOOL, kind(5001))],
        lambda kind: ProcoreHook().bulk_history(TOOL, [kind(5001)])[0]["item_id"],
        lambda kind: ProcoreHook().find_user_id(kind(90001)),
        lambda kind: ProcoreHook(project_id=kind(1001)).get_instance(kind(700001))["id"],
        lambda kind: ProcoreLegacyHook().get_instance(kind(568150))["id"],
        lambda kind: ProcoreLegacyHook().find_instance_id("PurchaseOrderContract", kind(1953145)),
        lambda kind: WorkflowsoftHook().find_process_diagram(kind(1)),
        lambda kind: WorkflowsoftHook().resolve_step(kind(1), kind(101)),
        lambda kind: WorkflowsoftHook().find_user_id(kind(7)),
    ],
)
def test_whole_number_finds_the_same_as_its_text(kind, read):
    assert read(kind) == read(str)
    assert read(kind)


@pytest.mark.parametrize("item", [{"item_id": 5002.0}, {"item_id": None}, {"item_id": "5002", "preset_id": True}])
def test_bulk_start_rejects_an_item_without_ids(emulator, item):
    with pytest.raises(ConfigurationError, match="^(item_id|preset_id) "):
        ProcoreHook().bulk_start_instances(TOOL, [item])
    assert emulator.requests() == []


def test_response_rejects_an_attachment_without_an_id(emulator):
    with pytest.raises(ConfigurationError, match="^attachments: form_ids "):
        ProcoreHook().respond("1", step_occurrence_id="1", option_id="1", attachments={"form_ids": [5001.0]})
    assert emulator.requests() == []
