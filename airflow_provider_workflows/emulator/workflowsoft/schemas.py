"""The requests and responses of Workflowsoft."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from ..schemas import Empty, Model


def camel(name: str) -> str:
    return name[:1].lower() + name[1:]


def pascal(name: str) -> str:
    return name[:1].upper() + name[1:]


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=camel)


class Pascal(BaseModel):
    model_config = ConfigDict(alias_generator=pascal)


class IdTitle(Model):
    Id: int | str
    Title: str


class CamelIdTitle(IdTitle, Camel):
    pass


class IntegrationInstance(Model):
    IntegrationInstanceId: int | str
    ProcessInstanceId: int | str


class CamelIntegrationInstance(IntegrationInstance, Camel):
    pass


NewIntegrations = (
    IntegrationInstance
    | CamelIntegrationInstance
    | list[IntegrationInstance]
    | list[CamelIntegrationInstance]
    | Empty
    | None
)


class ApiToken(Model):
    access_token: str
    expires_in: int | None = None


class WsField(Model):
    label: str
    type: str
    key: str
    options: list[str] | list[dict[str, int | str]] | dict[str, str] | None
    valueJson: Any = None  # JSON text or, by the flag, a value
    isReadonly: bool
    isRequired: bool


class PascalWsField(WsField, Pascal):
    pass


class WriteFields(BaseModel):
    TaskId: int | str
    Fields: dict[str, Any]


class TaskAction(BaseModel):
    Action: str
    CustomAction: str


class WsUser(Model):
    Id: int | str
    FullName: str
    Email: str


class CamelWsUser(WsUser, Camel):
    pass


class StartProcess(BaseModel):
    TemplateId: int | str
    Fields: dict[str, Any] = {}


class CreateTask(BaseModel):
    Title: str
    AssignedUserId: int | str | None = None
    Description: str | None = None
    Files: Any = None


class WsTask(Model):
    Id: int | str
    Title: str
    Description: str | None


class CamelWsTask(WsTask, Camel):
    pass


class WsDone(Model):
    """Describe what a write may return, whether it succeeded or not."""

    Success: bool
    Message: str | None = None
    TaskId: int | str | None = None
    Id: int | str | None = None


class CamelWsDone(WsDone, Camel):
    pass


class WsError(Model):
    Message: str
    ExceptionMessage: str | None = None
    ExceptionType: str | None = None


class CamelWsError(WsError, Camel):
    pass
