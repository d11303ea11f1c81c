"""Structured template fields are declared as such, for Airflow's page of rendered templates."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

PRODUCTS = ("procore", "procore_legacy", "workflowsoft")
CLASSES = [
    cls
    for product in PRODUCTS
    for package in (f"operators.{product}", f"sensors.{product}")
    for module in [import_module(f"airflow_provider_workflows.{package}")]
    for cls in (getattr(module, name) for name in getattr(module, "__all__", None) or dir(module))
    if isinstance(cls, type) and cls.__module__.startswith(f"airflow_provider_workflows.{package}")
]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_structured_template_fields_have_a_renderer(cls):
    annotations = {
        name: str(parameter.annotation)
        for base in cls.__mro__
        for name, parameter in inspect.signature(vars(base).get("__init__", lambda: None)).parameters.items()
    }
    structured = {name for name in cls.template_fields if "Mapping" in annotations.get(name, "")}

    assert set(cls.template_fields_renderers) == structured
