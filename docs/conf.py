"""How Sphinx builds the site, without a network; `make docs` runs it."""

from __future__ import annotations

import inspect
import os
import re
import tempfile
from typing import Any

# Airflow writes its settings when it is imported.
_home = tempfile.TemporaryDirectory(prefix="airflow-home-docs-")
os.environ["AIRFLOW_HOME"] = _home.name

from airflow_provider_workflows import __version__, exceptions  # noqa: E402  after the environment is set
from airflow_provider_workflows.decorators import typed  # noqa: E402  after the environment is set

project = "airflow-provider-workflows"
author = "The airflow-provider-workflows authors"
copyright = author
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]

html_theme = "furo"
html_title = f"{project} {version}"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "source_repository": "https://github.com/airflow-provider-workflows/airflow-provider-workflows/",
    "source_branch": "main",
    "source_directory": "docs/",
}
copybutton_exclude = ".linenos, .gp, .go"

myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # types are with the parameters
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
# Every name of ours must be found. Airflow's, the libraries' and the types in texts such as `str | None` need not.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!airflow_provider_workflows\.).*")]

SOURCE = "https://github.com/airflow-provider-workflows/airflow-provider-workflows/blob/main/"
OPTIONS = {"procore_response": typed.ResponseOptions, "workflowsoft_integration": typed.IntegrationOptions}
DOCUMENTED = re.compile(r"^:param (\w+):", re.MULTILINE)


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class of ours and of its bases of ours, its own first."""
    found: dict[str, inspect.Parameter] = {}
    for one in cls.__mro__:
        if one.__module__.startswith("airflow_provider_workflows") and "__init__" in vars(one):
            for name, parameter in inspect.signature(vars(one)["__init__"]).parameters.items():
                if name != "self" and parameter.kind is not parameter.VAR_KEYWORD:
                    found.setdefault(name, parameter)
    return found


def annotations(obj: Any) -> dict[str, str]:
    """Return the types of parameters as they are written; those of a decorator are the keys of its options."""
    signature = parameters(obj) if inspect.isclass(obj) else inspect.signature(obj).parameters
    found = {name: p.annotation for name, p in signature.items() if p.annotation is not p.empty}
    options = OPTIONS.get(getattr(obj, "__name__", ""))
    if options:
        found |= {name: hint.__forward_arg__ for name, hint in options.__annotations__.items()}
    return {name: str(annotation) for name, annotation in found.items()}


def inherited(cls: type, lines: list[str]) -> list[str]:
    """Return the descriptions of parameters that only the docstrings of the bases have."""
    known = set(DOCUMENTED.findall("\n".join(lines)))
    added: list[str] = []
    for base in cls.__mro__[1:]:
        if base.__module__.startswith("airflow_provider_workflows"):
            fields = re.split(r"^(?=:\w)", inspect.cleandoc(vars(base).get("__doc__") or ""), flags=re.MULTILINE)
            for field in fields:
                name = DOCUMENTED.match(field)
                if name and name[1] not in known and name[1] in parameters(cls):
                    known.add(name[1])
                    added += field.rstrip().splitlines()
    return added


def describe_parameters(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Add what a class inherits, the type of each parameter, whether an error is retried, and links."""
    if what == "class":
        end = next((number for number, line in enumerate(lines) if line.startswith(":raises")), len(lines))
        lines[end:end] = inherited(obj, lines)
    if what in ("class", "function", "method"):
        known = annotations(obj)
        types = [f":type {one}: ``{known[one]}``" for one in DOCUMENTED.findall("\n".join(lines)) if one in known]
        while lines and not lines[-1]:
            lines.pop()
        lines += [*types, ""]
    if what == "exception" and not obj.retryable:
        lines += ["Never retried.", ""]
    for number, line in enumerate(lines):
        raised = re.match(r":raises (\w+):", line)
        if raised and raised[1] in exceptions.__all__:
            line = line.replace(raised[1], f"~airflow_provider_workflows.exceptions.{raised[1]}", 1)
        lines[number] = re.sub(r":(class|meth|func):`([\w.]+)`", r":\1:`.\2`", line)


def show_own_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None] | None:
    """Show the parameters of a class as they are given, by name, with those of its bases."""
    if what != "class" or issubclass(obj, BaseException):
        return None
    shown = [
        p.replace(annotation=p.empty, kind=p.KEYWORD_ONLY if p.kind is p.KEYWORD_ONLY else p.POSITIONAL_OR_KEYWORD)
        for p in sorted(parameters(obj).values(), key=lambda p: (p.kind, p.default is not p.empty))
    ]
    return str(inspect.Signature(shown)), None


def link_to_source(app: Any, page: str, source: list[str]) -> None:
    """Let links that leave docs/ lead to the repository; on GitHub they work as they are written."""
    source[0] = source[0].replace("](" + "../" * (page.count("/") + 1), "](" + SOURCE)


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", describe_parameters)
    app.connect("autodoc-process-signature", show_own_signature)
    app.connect("source-read", link_to_source)
