from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import types
from importlib.metadata import entry_points, version
from pathlib import Path

import airflow
import jsonschema
import pytest

import airflow_provider_workflows
from airflow_provider_workflows.get_provider_info import get_provider_info
from tests.support.versions import AIRFLOW

pytestmark = pytest.mark.compat

KNOWS_ALL = pytest.mark.skipif(AIRFLOW < (3, 3), reason="before Airflow 3.3 its schema has not all that we declare")
KNOWS_FIELDS = pytest.mark.skipif(AIRFLOW < (3, 2), reason="before Airflow 3.2 its schema has no fields of connections")
SCHEMAS = Path(airflow.__file__).parent
# provider.yaml has these beside what get_provider_info() returns, for the providers of Airflow's own repository.
OF_AIRFLOWS_REPOSITORY = {"state": "ready", "source-date-epoch": 1}


def schema(name: str) -> dict:
    return json.loads((SCHEMAS / name).read_text())


def test_airflow_finds_the_information_by_the_packages_entry_point():
    (entry,) = [e for e in entry_points(group="apache_airflow_provider") if e.dist.name == "airflow-provider-workflows"]

    assert entry.load()() == get_provider_info()


def test_the_information_fits_airflows_runtime_schema():
    jsonschema.validate(get_provider_info(), schema("provider_info.schema.json"))


@KNOWS_ALL
def test_the_information_fits_the_stricter_schema_of_provider_yaml():
    whole = schema("provider.yaml.schema.json")
    info = {**get_provider_info(), **OF_AIRFLOWS_REPOSITORY}

    jsonschema.validate(info, whole)

    form = whole["properties"]["connection-types"]["items"]
    for connection_type in info["connection-types"]:
        jsonschema.validate(connection_type, form)
        assert set(connection_type) <= set(form["properties"])


@pytest.mark.parametrize("key", ["retry-policies", "external-services"])
def test_a_newer_key_is_there_where_the_schema_has_it(key):
    whole = schema("provider.yaml.schema.json")["properties"]
    info = get_provider_info()
    known = {*whole, *whole["connection-types"]["items"]["properties"]}

    assert (key in {*info, *info["connection-types"][0]}) is (key in known)


@KNOWS_FIELDS
def test_a_misspelt_connection_field_would_be_found():
    info = {**get_provider_info(), **OF_AIRFLOWS_REPOSITORY}
    info["connection-types"][0]["conn-fields"]["timeout"]["hint"] = "?"

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(info, schema("provider.yaml.schema.json"))


def test_names_and_versions_are_those_of_the_distribution():
    info = get_provider_info()

    assert info["package-name"] == "airflow-provider-workflows"
    assert info["versions"][0] == airflow_provider_workflows.__version__ == version("airflow-provider-workflows")


def test_integrations_name_a_guide_and_a_logo_that_exist():
    docs = Path(__file__).parents[2] / "docs"
    for integration in get_provider_info()["integrations"]:
        (guide,) = integration["how-to-guide"]
        assert (docs / guide.removeprefix("/docs/")).is_file()
        assert (docs / integration["logo"].removeprefix("/")).read_text().startswith("<svg ")


def test_everything_that_is_named_exists():
    info = get_provider_info()
    modules = [
        module
        for room in ("hooks", "operators", "sensors", "triggers", "retry-policies")
        for integration in info.get(room, ())
        for module in integration["python-modules"]
    ]
    classes = info["extra-links"] + [form["hook-class-name"] for form in info["connection-types"]]

    assert [importlib.import_module(module).__doc__ for module in modules] != []
    for path in classes:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name)
    integrations = {integration["integration-name"] for integration in info["integrations"]}
    assert {i["integration-name"] for room in ("hooks", "operators") for i in info[room]} == integrations


@pytest.mark.parametrize(("room", "kind"), [("operators", "Operator"), ("sensors", "Sensor")])
def test_every_module_with_something_to_use_in_a_dag_is_named(room, kind):
    folder = Path(airflow_provider_workflows.__file__).parent / room
    named = {module for integration in get_provider_info()[room] for module in integration["python-modules"]}

    usable = set()
    for file in folder.rglob("*.py"):
        if re.search(rf"^class (Procore|Workflowsoft)\w+{kind}\(", file.read_text(), re.MULTILINE):
            # A folder is one import path.
            path = file.with_suffix("") if file.parent == folder else file.parent
            usable.add(".".join(path.relative_to(folder.parents[1]).parts))
    assert named == usable


def test_no_field_is_masked_that_contains_no_secret():
    """Airflow hides the values of fields with such parts in their name, in its forms and everywhere in the logs."""
    try:
        from airflow.sdk.log import redact
    except ImportError:  # Airflow 3.0
        from airflow.sdk.execution_time.secrets_masker import redact

    fields = [name for form in get_provider_info()["connection-types"] for name in form["conn-fields"]]

    masked = {name for name in fields if redact({name: "value"})[name] == "***"}
    # A proxy's address may contain its password; Airflow 3.0 does not mask it.
    assert masked == {"access_token", "proxies"} - ({"proxies"} if AIRFLOW < (3, 1) else set())


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["get", "airflow-provider-workflows", "--full"], "Wait for, respond to and audit"),
        pytest.param(["hooks"], "airflow_provider_workflows.hooks.procore.ProcoreHook", marks=pytest.mark.slow),
        pytest.param(["behaviours"], "workflowsoft", marks=pytest.mark.slow),
    ],
)
def test_airflows_own_commands_show_the_provider_without_a_warning(command, shown):
    if command == ["behaviours"] and AIRFLOW < (3, 2):
        pytest.importorskip("wtforms", reason="before Airflow 3.2 connection forms need wtforms, which is not here")
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "providers", *command, "--output", "plain"], capture_output=True, text=True
    )

    assert done.returncode == 0
    assert shown in done.stdout.replace("\n", "")
    warnings = [line for line in done.stderr.splitlines() if "warn" in line.lower() and "workflows" in line.lower()]
    assert warnings == []


class Widget:
    """Replaces a field or a validator of wtforms, which only Airflow 3.0 and 3.1 require."""

    def __init__(self, label: object = None, **arguments: object):
        self.label = label
        self.arguments = arguments


def test_older_airflows_get_the_same_form_from_the_hook(monkeypatch):
    from airflow_provider_workflows.hooks.procore import ProcoreHook
    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

    fields, validators = types.ModuleType("wtforms"), types.ModuleType("wtforms.validators")
    kinds = ("BooleanField", "IntegerField", "PasswordField", "StringField")
    vars(fields).update({name: type(name, (Widget,), {}) for name in kinds})
    vars(validators).update({"Optional": Widget, "any_of": Widget})
    monkeypatch.setitem(sys.modules, "wtforms", fields)
    monkeypatch.setitem(sys.modules, "wtforms.validators", validators)
    forms = {form["connection-type"]: form for form in get_provider_info()["connection-types"]}

    for hook in (ProcoreHook, WorkflowsoftHook):
        assert {"get_connection_form_widgets", "get_ui_field_behaviour"} <= set(
            vars(hook)
        )  # not in a base: Airflow reads it there
        form = forms[hook.conn_type]
        widgets = hook.get_connection_form_widgets()
        assert {name: widget.label for name, widget in widgets.items()} == {
            name: field["label"] for name, field in form["conn-fields"].items()
        }
        behaviour = hook.get_ui_field_behaviour()
        assert behaviour["relabeling"] == form["ui-field-behaviour"]["relabeling"]
        assert behaviour["hidden_fields"] == ["schema"]
    widgets = ProcoreHook.get_connection_form_widgets()
    assert type(widgets["access_token"]).__name__ == "PasswordField"
    assert type(widgets["allow_http"]).__name__ == "BooleanField"
    assert type(widgets["timeout"]).__name__ == "IntegerField"
    assert widgets["environment"].arguments["validators"][0].label[0] == "production"
