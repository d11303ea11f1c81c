"""A task with a request in Airflow's Required Actions, as Airflow 3.3 treats it; found by running it."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

HITL = "airflow.sdk.execution_time.hitl"  # not before Airflow 3.1
KIM = {"id": "7", "name": "Kim"}


class NoRequest(Exception):
    """What Airflow returns for a task instance without a request."""


class ApprovalTask:
    """
    One task instance, over its tries, deferrals and clears, and its request.

    :param build: Creates the operator; each try and each resume has a new one.
    :param store: The task state store.
    """

    def __init__(self, build: Callable[[], Any], store: Any, monkeypatch: pytest.MonkeyPatch):
        self.build = build
        self.store = store
        self.id, self.try_number, self.max_tries = uuid4(), 1, 3
        self.state = "scheduled"
        self.request: dict[str, Any] | None = None
        self.created: list[str] = []  # requests, by the state of the task
        self.wiped = 0  # responses that a request deleted
        self.reads = 0
        self.resumed_with: dict[str, Any] | None = None
        monkeypatch.setattr(f"{HITL}.upsert_hitl_detail", self._upsert)
        monkeypatch.setattr(f"{HITL}.get_hitl_detail_content_detail", self._read)

    # --- what a person does ---

    def click(self, option: str, note: str | None = None, user: dict[str, str] | None = None) -> int:
        """Respond in Required Actions; return the status of Airflow's API."""
        if self.request is None:
            return 404
        if self.request["responded_at"] is not None:
            return 409
        if option not in self.request["options"]:
            return 400
        user = user or KIM
        if self.request["assigned_users"] and user["id"] not in [each["id"] for each in self.request["assigned_users"]]:
            return 403
        self.request |= {
            "chosen_options": [option],
            "params_input": {} if note is None else {"note": note},
            "responded_at": datetime(2026, 11, 30, 8, tzinfo=timezone.utc),
            "responded_by_user": user,
        }
        if self.state == "deferred":
            names = ("chosen_options", "params_input", "responded_at", "responded_by_user")
            self._schedule({**{name: self.request[name] for name in names}, "timedout": False})
        return 200

    @property
    def is_listed(self) -> bool:
        """Whether Required Actions lists the task."""
        return self.request is not None and self.state == "deferred" and self.request["responded_at"] is None

    def clear(self) -> None:
        self.id, self.state, self.resumed_with = uuid4(), "scheduled", None
        self.max_tries = self.try_number + 3
        self.try_number += 1

    # --- what Airflow does ---

    def run(self) -> Any:
        """Run the task, or resume it with the event that has come; return its result, or None if it is deferred."""
        event, self.resumed_with = self.resumed_with, None
        operator, context = self.build(), self.context()
        self.state = "running"
        try:
            result = operator.execute(context) if event is None else getattr(operator, self.method)(context, event)
        except TaskDeferred as deferral:
            path, arguments = deferral.trigger.serialize()
            self.trigger = path, json.loads(json.dumps(arguments))
            self.method, self.state = deferral.method_name, "deferred"
            return None
        except AirflowException:
            self.state = "failed"
            raise
        except BaseException:  # the worker was killed, or the try has failed
            self.retry()
            raise
        self.state = "success"
        return result

    def retry(self) -> None:
        """Start the next try; the request moves to it with its response."""
        self.id, self.state = uuid4(), "scheduled"
        self.try_number += 1

    def run_trigger(self) -> None:
        """Let the triggerer run the trigger until it fires."""
        assert self.state == "deferred"

        async def first() -> Any:
            async for event in self.new_trigger().run():
                return event.payload
            raise AssertionError("the trigger ended without an event")

        self._schedule(json.loads(json.dumps(asyncio.run(first()))))

    def new_trigger(self) -> Any:
        path, arguments = self.trigger
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)(**arguments)

    def context(self) -> dict[str, Any]:
        ti = SimpleNamespace(id=self.id, try_number=self.try_number, max_tries=self.max_tries)
        return {"ti": ti, "task_state_store": self.store, "task": SimpleNamespace(retries=3)}

    def _schedule(self, event: dict[str, Any]) -> None:
        self.resumed_with, self.state = event, "scheduled"

    def _upsert(self, ti_id: UUID, options: list[str], subject: str, **more: Any) -> None:
        assert ti_id == self.id
        self.created.append(self.state)
        no_response: dict[str, Any] = dict.fromkeys(("chosen_options", "responded_at", "responded_by_user"))
        if self.request is None:
            content = {"options": options, "subject": subject, "assigned_users": [], **more}
            self.request = {**json.loads(json.dumps(content)), **no_response, "params_input": {}}
        elif self.request["responded_at"] is not None:
            self.wiped += 1
            self.request |= no_response

    def _read(self, ti_id: UUID) -> Any:
        self.reads += 1
        if self.state != "deferred":
            raise AssertionError("only a triggerer may ask")
        if ti_id != self.id or self.request is None:
            raise NoRequest("404")
        user = self.request["responded_by_user"]
        return SimpleNamespace(
            response_received=self.request["responded_at"] is not None,
            chosen_options=self.request["chosen_options"] or (),
            params_input=self.request["params_input"],
            responded_at=self.request["responded_at"],
            responded_by_user=None if user is None else SimpleNamespace(**user),
        )
