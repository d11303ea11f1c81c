"""The base classes of the schemas; ``/openapi.json`` is generated from the schemas of all three APIs."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Reject members that are not declared, so that a response cannot have more than its description."""

    model_config = ConfigDict(extra="forbid")


class Empty(Model):
    pass
