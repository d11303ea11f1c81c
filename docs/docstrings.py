"""Turn signatures and docstrings of the package into Markdown, for the pages of the reference."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cached_property
from typing import Any

from airflow_provider_workflows import exceptions

PACKAGE = "airflow_provider_workflows"
FIELD = re.compile(r"^(?=:\w)", re.MULTILINE)
SHAPE = re.compile(r"^Returns\b|``\[?\{")
ROLE = re.compile(r":(?:class|meth|func|mod):`~?([\w.]+)`")


def find(name: str) -> Any:
    """Return a public object by its dotted name below the package."""
    module, _, attribute = f"{PACKAGE}.{name}".rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def in_package(obj: Any) -> bool:
    return str(obj.__module__).startswith(PACKAGE)


def markdown(text: str) -> str:
    """Return a docstring's text as Markdown, each paragraph in one line."""
    text = ROLE.sub(r"`\1`", text).replace("``", "`")
    paragraphs = re.split(r"\n{2,}", text.strip())
    return "\n\n".join(re.sub(r"\n(?!- |\d\. )\s*", " ", paragraph) for paragraph in paragraphs)


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(map(cell, row))} |" for row in [head, ["---"] * len(head), *rows])


class Docstring:
    """Split a docstring into its text and its fields."""

    def __init__(self, obj: Any):
        own = vars(obj).get("__doc__") if inspect.isclass(obj) else obj.__doc__
        self.text, *self._fields = FIELD.split(inspect.cleandoc(own or ""))

    @property
    def shapes(self) -> str:
        """The paragraphs that say what is returned, emitted or passed."""
        paragraphs = self.text.split("\n\n")[1:]
        return "\n\n".join(paragraph for paragraph in paragraphs if SHAPE.search(paragraph))

    def fields(self, kind: str) -> list[tuple[str, str]]:
        found = [re.match(rf":{kind} ?(\w*): *(.*)", field, re.DOTALL) for field in self._fields]
        return [(match[1], match[2].strip()) for match in found if match]


class Described:
    """Describe a class or function by its signature and docstring, with what a class inherits."""

    def __init__(self, obj: Any):
        self.obj = obj
        self.docstring = Docstring(obj)

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The parameters that a class or function takes; those of a class first, then those of its bases."""
        sources = [vars(base).get("__init__") for base in self._bases] if inspect.isclass(self.obj) else [self.obj]
        not_taken = {"self", *getattr(self.obj, "not_taken", ())}
        found: dict[str, inspect.Parameter] = {}
        for source in filter(None, sources):
            parameters = inspect.signature(source).parameters
            others = [name for name, parameter in parameters.items() if parameter.kind is parameter.VAR_KEYWORD]
            for name, parameter in parameters.items():
                if name not in not_taken and name not in others:
                    found.setdefault(name, parameter)
            if not others:  # it passes no more to its bases
                break
        return found

    @property
    def _bases(self) -> list[type]:
        return [base for base in self.obj.__mro__ if in_package(base)]

    @cached_property
    def meanings(self) -> dict[str, str]:
        docstrings = [Docstring(base) for base in self._bases] if inspect.isclass(self.obj) else [self.docstring]
        found: dict[str, str] = {}
        for docstring in docstrings:
            for name, text in docstring.fields("param"):
                found.setdefault(name, text)
        return found

    def signature(self, name: str) -> str:
        """Return how it is called, without types, which are with the parameters."""
        signature = inspect.signature(self.obj)
        bare = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name not in ("self", "cls")]
        return name + str(inspect.Signature(bare)).replace("'", '"')

    def parameter_table(self) -> str:
        rows = []
        for name, meaning in self.meanings.items():
            parameter = self.parameters.get(name)
            if parameter is None:
                continue
            has_type = parameter.annotation is not parameter.empty
            text = markdown(re.sub(r",? ?\(templated\)", "", meaning))
            default = "required" if parameter.default is parameter.empty else f"`{_literal(parameter.default)}`"
            kind = f"`{parameter.annotation}`" if has_type else ""
            # The meaning comes second, so that a phone shows it.
            rows.append([f"`{name}`", text, kind, default, "yes" if "(templated)" in meaning else ""])
        return table(["parameter", "meaning", "type", "default", "templated"], rows) if rows else ""

    def errors(self, to_docs: str) -> str:
        """Return the errors as a list; those of the package link to what to do about them."""
        lines = []
        for name, text in self.docstring.fields("raises"):
            known = name in exceptions.__all__
            link = f"[{name}]({to_docs}troubleshooting.md#{name.lower()})" if known else f"`{name}`"
            lines.append(f"- {link}: {markdown(text)}")
        return "\n".join(["Errors:", "", *lines]) if lines else ""


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def join(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def parameters(name: str, to_docs: str) -> str:
    """Return import, parameters, result and errors of a class or decorator, for a page with a text of its own."""
    described = Described(find(name))
    module, _, short = f"{PACKAGE}.{name}".rpartition(".")
    return join(
        f"```python\nfrom {module} import {short}\n```",
        described.parameter_table(),
        markdown(described.docstring.shapes),
        described.errors(to_docs),
    )


def function(name: str, to_docs: str) -> str:
    """Return all that is known of a function."""
    module, _, short = f"{PACKAGE}.{name}".rpartition(".")
    return join(f"### {short}", f"```python\nfrom {module} import {short}\n```", _callable(find(name), short, to_docs))


def members(name: str, to_docs: str) -> str:
    """Return what is public of a class that is called by its methods."""
    cls = find(name)
    module, _, short = f"{PACKAGE}.{name}".rpartition(".")
    parts = [f"```python\nfrom {module} import {short}\n```", Described(cls).parameter_table()]
    for base in (base for base in cls.__mro__ if in_package(base)):
        for member, value in vars(base).items():
            if member.startswith("_") or getattr(cls, member, None) is None or not _is_first(cls, base, member):
                continue
            plain = getattr(value, "__func__", value)
            if inspect.isfunction(plain) and plain.__doc__:
                parts += [f"### {member}", _callable(plain, member, to_docs)]
            elif isinstance(value, (property, cached_property)) and value.__doc__:
                parts += [f"### {member}", f"Property. {markdown(inspect.cleandoc(value.__doc__))}"]
    return join(*parts)


def _is_first(cls: type, base: type, member: str) -> bool:
    return next(owner for owner in cls.__mro__ if member in vars(owner)) is base


def _callable(obj: Any, name: str, to_docs: str) -> str:
    described = Described(obj)
    lines = [f"- `{parameter}`: {markdown(text)}" for parameter, text in described.docstring.fields("param")]
    returned = next((text for _, text in described.docstring.fields("returns?")), "")
    return join(
        f"`{described.signature(name)}`",
        markdown(described.docstring.text),
        "\n".join(lines),
        f"Returns {returned[0].lower()}{markdown(returned[1:])}" if returned else "",
        described.errors(to_docs),
    )


def errors() -> str:
    """Return a table of all errors, bases before what derives from them."""
    classes = [getattr(exceptions, name) for name in exceptions.__all__ if inspect.isclass(getattr(exceptions, name))]
    classes.sort(key=lambda cls: list(vars(exceptions)).index(cls.__name__))
    rows = []
    for cls in classes:
        summary = markdown(Docstring(cls).text.strip().split("\n\n")[0])
        base = next((base.__name__ for base in cls.__bases__ if in_package(base)), "")
        rows.append(
            [f"[{cls.__name__}](#{cls.__name__.lower()})", f"`{base}`" if base else "", _yes(cls.retryable), summary]
        )
    return table(["error", "kind of", "retried", "meaning"], rows)


def _yes(value: bool) -> str:
    return "yes" if value else "never"
