"""Load each operator of a package when it is first used, so that one import path does not load all of them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def load(package: str, files: Mapping[str, str], name: str) -> Any:
    """
    Return a name of a package, for its ``__getattr__``, and cache it there.

    :param package: Name of the package.
    :param files: The module of the package that defines each of its public names.
    :param name: The requested name.
    :raises AttributeError: the package has no such name.
    """
    if name not in files:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    value = getattr(import_module(f"{package}.{files[name]}"), name)
    setattr(import_module(package), name, value)
    return value
