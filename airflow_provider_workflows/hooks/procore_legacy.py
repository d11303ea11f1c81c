"""The hook for Procore's Legacy Workflows (v1) API."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

from airflow_provider_workflows.client.retry import Idempotency
from airflow_provider_workflows.client.urls import build_path
from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    UnexpectedResponse,
)
from airflow_provider_workflows.hooks.ids import checks_ids
from airflow_provider_workflows.hooks.procore import ProcoreConnectionHook
from airflow_provider_workflows.rules.procore import COMPANY_LEVEL
from airflow_provider_workflows.rules.procore_legacy import of_object, str_ids
from airflow_provider_workflows.rules.procore_legacy_history import newest_first

INSTANCES = "/rest/v1.0/workflow_instances"
HISTORIES = "/rest/v1.0/workflow_activity_histories"
V1_PAGE_SIZE = 2000  # the largest page of the v1 API


@checks_ids
class ProcoreLegacyHook(ProcoreConnectionHook):
    """
    Call Procore's Legacy Workflows API (v1), which is separate from Workflows v2.

    The hook uses the same connection as ``ProcoreHook``. Ids are strings, also in results, where the API has numbers;
    as parameters they may be whole numbers. Times are the API's own strings.

    Reference: https://developers.procore.com/documentation/tutorial-workflows

    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company to work in; default: the connection's.
    :param project_id: Project of the objects; default: the connection's. Only change orders need it to be found.
    """

    product = "procore_legacy"

    def list_instances(
        self, *, object_type: str | None = None, object_id: str | None = None, project_id: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """
        List the active instances, page by page as they are read.

        Rows of other objects are left out, because a server can ignore the filters.

        :param object_type: Tool or class of an object, such as ``PurchaseOrderContract``: only its instance is listed.
        :param object_id: Id of the object.
        :param project_id: Project of the object.
        """
        rows = self._listed(object_type, object_id, project_id)
        return rows if object_type is None else filter(lambda row: of_object([row], object_type), rows)

    def get_instance(self, instance_id: str) -> dict[str, Any]:
        """Return one instance with its current state and the activities that can be performed in it."""
        return self._shown(INSTANCES, instance_id)

    def find_instance_id(self, object_type: str, object_id: str) -> str:
        """
        Return the id of an object's instance; an object has at most one.

        The id and the type of each row are compared, because a server can ignore the filters. A type matches by its
        name in any spelling, by the class of the workflow, or by its base class in the row, as in Procore's guide:
        ``Contract`` for ``PurchaseOrderContract``.

        :raises NotFound: the object has no instance that is visible to the connection's user.
        :raises ConfigurationError: the object has several instances.
        """
        query = {"object_type": object_type, "object_id": object_id, "project_id": self.project_id}
        rows: list[dict[str, Any]] = []
        with contextlib.suppress(PermissionDenied):  # the list may be restricted to company administrators
            rows = list(self._listed(**query))
        found = of_object(rows, object_type)
        if not found:
            # The list has active instances only. "Show" also finds ended ones; with an object it ignores the id.
            with contextlib.suppress(InvalidRequest, NotFound):
                shown = self._show(build_path(INSTANCES + "/{}", "0"), **self._object_query(**query))
                rows += [shown] if shown.get("workflowed_object_id") == object_id else []
            found = of_object(rows, object_type)
        ids = list(dict.fromkeys(str(self._object(row, "GET", INSTANCES)["id"]) for row in found))
        if len(ids) > 1:
            raise ConfigurationError(
                f"{object_type} {object_id} has several workflow instances: {', '.join(ids)}. Give instance_id instead."
            )
        if not ids:
            types = sorted({str(row.get("workflowed_object_type")) for row in rows})
            others = f"; an instance of object_type {' or '.join(map(repr, types))} has that id" if types else ""
            raise NotFound(
                f"{object_type} {object_id} has no workflow instance that is visible to the connection's user{others}",
                is_documented=True,
            )
        return ids[0]

    def list_activity_histories(self, instance_id: str) -> list[dict[str, Any]]:
        """List the activities that were performed in an instance, the newest first."""
        query = {"company_id": self.company_id, "workflow_instance_id": instance_id}
        rows = map(str_ids, self.client.pages(HISTORIES, params=query, per_page=V1_PAGE_SIZE, style="v1"))
        # A server can ignore the filter, so rows of other instances are left out.
        return newest_first(row for row in rows if row.get("workflow_instance_id") in (None, instance_id))

    def get_activity_history(self, history_id: str, *, instance_id: str) -> dict[str, Any]:
        """
        Return one row of the activity history of an instance.

        :raises UnexpectedResponse: the response is a row of another instance.
        """
        row = self._shown(HISTORIES, history_id, workflow_instance_id=instance_id)
        if row.get("workflow_instance_id") not in (None, instance_id):
            raise UnexpectedResponse(
                f"History row {history_id} belongs to instance {row['workflow_instance_id']}, not to {instance_id}",
                method="GET",
                path=HISTORIES,
            )
        return row

    def list_permanent_logs(
        self, object_type: str, object_id: str, *, project_id: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """
        List the permanent log of an object's workflows, page by page as it is read.

        :param object_type: Tool or class of the object, such as ``PurchaseOrderContract``.
        :param object_id: Id of the object.
        :param project_id: Read the log of this project; without it, or with ``company``, that of the company.
        :return: Rows ``{id, activity, attachments: [{id, name, url, filename}], ball_in_court_duration, comments,
            created_at, performed_by, user_role}``, in Procore's order; users and roles by name only.
        """
        in_company = project_id in (None, COMPANY_LEVEL)
        level, level_id = ("companies", self.company_id) if in_company else ("projects", str(project_id))
        rows = self.client.pages(
            build_path("/rest/v1.0/" + level + "/{}/workflow_permanent_logs", level_id),
            params={"filters[workflowed_object_type]": object_type, "filters[workflowed_object_id]": object_id},
            per_page=V1_PAGE_SIZE,
            style="v1",
        )
        return map(str_ids, rows)

    def perform_activity(
        self,
        instance_id: str,
        *,
        activity_id: str,
        role_id: str,
        performed_by: str,
        comments: str | None = None,
        attachments: Collection[tuple[str, bytes, str]] = (),
        prostore_file_ids: Collection[str] = (),
    ) -> dict[str, Any]:
        """
        Perform an activity; never sent twice.

        The call is sent as JSON, or as a form if it has attachments. The names of the form's fields follow the
        conventions of Procore's server; they are not fully documented.

        :param activity_id: Id of the activity.
        :param role_id: Id of the role in which it is performed.
        :param performed_by: Login information id of a user with that role.
        :param comments: Comment for the history.
        :param attachments: Name, content and content type of each file; all files are held in memory.
        :param prostore_file_ids: Ids of files that Procore already stores.
        :return: The new row of the activity history.
        :raises OutcomeUnknown: the response was lost.
        """
        files = attachments if isinstance(attachments, (list, tuple, set, frozenset)) else [attachments]
        if not all(isinstance(file, tuple) and len(file) == 3 for file in files):
            raise ConfigurationError("attachments must be a list of (name, content, content type), one for each file.")
        activity: dict[str, Any] = {
            "workflow_activity_id": _number(activity_id),
            "workflow_instance_id": _number(instance_id),
            "workflow_user_role_id": _number(role_id),
            "performed_by_id": _number(performed_by),
        }
        if comments is not None:
            activity["comments"] = comments
        if prostore_file_ids:
            activity["prostore_file_ids"] = [_number(file_id) for file_id in prostore_file_ids]
        body: dict[str, Any] = {"json": {"workflow_activity_history": activity}}
        if attachments:
            body = {"files": _form_parts(activity, attachments)}
        response = self.client.call(
            "POST",
            HISTORIES,
            idempotency=Idempotency.UNSAFE,
            params={"company_id": self.company_id, "workflow_instance_id": instance_id},
            **body,
        )
        row: dict[str, Any] = str_ids(self._object(response.json(), "POST", HISTORIES))
        return row

    def _listed(
        self, object_type: str | None, object_id: str | None, project_id: str | None
    ) -> Iterator[dict[str, Any]]:
        """List the active instances of objects with an id, or all; not a generator, which an error would end."""
        query = self._object_query(object_type, object_id, project_id)
        rows = map(str_ids, self.client.pages(INSTANCES, params=query, per_page=V1_PAGE_SIZE, style="v1"))
        return filter(lambda row: object_id is None or row.get("workflowed_object_id") == object_id, rows)

    def _shown(self, route: str, row_id: str, **query: Any) -> dict[str, Any]:
        """Return the row with an id, and reject any other row."""
        where = build_path(route + "/{}", row_id)
        row = self._show(where, **query)
        if row["id"] != row_id:
            raise UnexpectedResponse(f"The response does not have the id {row_id}", method="GET", path=where)
        return row

    def _show(self, where: str, **query: Any) -> dict[str, Any]:
        response = self.client.get(where, params={"company_id": self.company_id, **query})
        shown: dict[str, Any] = str_ids(self._object(response.json(), "GET", where))
        return shown

    def _object_query(self, object_type: str | None, object_id: str | None, project_id: str | None) -> dict[str, Any]:
        return {
            "company_id": self.company_id,
            "filters[workflowed_object_type]": object_type,
            "filters[workflowed_object_id]": object_id,
            "project_id": project_id,
        }


def _form_parts(activity: dict[str, Any], attachments: Collection[tuple[str, bytes, str]]) -> list[Any]:
    """Return an activity and its files as the parts of a form; a part without a file name is a plain field."""
    parts: list[Any] = []
    for name, value in activity.items():
        if isinstance(value, list):
            parts += [(f"workflow_activity_history[{name}][]", (None, str(item))) for item in value]
        else:
            parts.append((f"workflow_activity_history[{name}]", (None, str(value))))
    return parts + [("workflow_activity_history[attachments][]", file) for file in attachments]


def _number(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
