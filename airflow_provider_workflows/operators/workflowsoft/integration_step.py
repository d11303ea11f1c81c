"""Read, write and complete an integration instance once over all tries of a task."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.exceptions import (
    NOTHING_DONE,
    ApiError,
    ConfigurationError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    ServerError,
    StepMoved,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.operators.base import Pin
from airflow_provider_workflows.operators.unknown_outcome import describe, poll_until, poll_until_found
from airflow_provider_workflows.rules import workflowsoft as rules
from airflow_provider_workflows.rules import workflowsoft_fields as field_rules

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
    from airflow_provider_workflows.version_compat import StateStore

log = logging.getLogger(__name__)
AUTO = "__AUTO__"  # the only custom action that the vendor documents
ON_UNKNOWN_COMPLETION = ("fail", "retry", "assume_done")
VERIFY = ("exact", "normalized")


class IntegrationStep:
    """
    Read, write and complete one integration instance.

    The values and the completion are persisted in the task's state store before they are sent. A retry continues
    where an earlier try stopped.

    :param store: The task's state store; None before Airflow 3.3.
    :param confirm_timeout: Seconds for which a change is read back.
    :param step_id: Id of the integration step, if it is known.
    :param verify: ``exact``, or ``normalized`` to accept normalized values.
    :param if_open: What to do if the instance is found open after an unknown outcome; for error texts.
    """

    def __init__(
        self,
        hook: WorkflowsoftHook,
        instance_id: str,
        store: StateStore | None,
        *,
        confirm_timeout: float,
        step_id: str | None = None,
        verify: str = "exact",
        if_open: str = "clear the task",
    ):
        self._hook = hook
        self._id = instance_id
        self._confirm_timeout = confirm_timeout
        self._step_id = step_id
        self._verify = verify
        self._if_open = if_open
        self._decision = Pin(store, f"decision_{instance_id}", None)
        self._completion = Pin(store, f"completion_{instance_id}", None)
        self._earlier_decision = self.decision is not None

    @property
    def decision(self) -> dict[str, Any] | None:
        """What an earlier try decided to write, or None."""
        return self._decision.value or None

    @property
    def started_action(self) -> str | None:
        """The custom action with which this task started to complete the instance, or None."""
        return (self._completion.value or {}).get("custom_action")

    def read(self, expected: Mapping[str, str] | None = None) -> list[field_rules.Field]:
        """
        Read the fields.

        :param expected: Required types, by label or key.
        :raises ConfigurationError: a field is missing or of another type.
        :raises NotFound: the instance does not exist, or no longer.
        """
        try:
            fields = self._hook.get_fields(self._id)
        except NotFound as missing:
            if not missing.is_documented:
                raise
            raise missing.reworded(
                f"Integration instance {self._id} does not exist: it was completed and removed, or this is the id of "
                "something else, such as a process or a step"
            ) from missing
        if expected is not None:
            field_rules.check_expected(fields, expected, self._id)
        return fields

    # --- writing ---

    def plan(
        self,
        fields: list[field_rules.Field],
        desired: Mapping[str, Any],
        *,
        allow_unknown_types: bool,
        fill_required: bool = False,
        **more: Any,
    ) -> dict[str, Any]:
        """
        Decide what to write, and persist the decision: a retry writes the same values.

        :param fields: The fields as they are.
        :param desired: Values by label or key.
        :param fill_required: Raise an error if a required field would stay empty.
        :param more: Other parts of the decision, as JSON primitives.
        :return: ``{values, written: [label], unchanged: [label], **more}``
        :raises ConfigurationError: Workflowsoft would reject a value.
        """
        update = field_rules.plan_update(fields, desired, allow_unknown_types=allow_unknown_types)
        for field in fields:
            if field.key in update.values and field.options and field_rules.option_values(field) is None:
                log.warning("The options of field %s have an unexpected format. Its value is not checked.", field)
        if fill_required and (missing := field_rules.left_empty(fields, update.values)):
            raise ConfigurationError(
                f"Required fields of instance {self._id} would stay empty: {', '.join(missing)}. Nothing was sent."
            )
        values = field_rules.stored_values(update.values)
        filled = field_rules.filled(fields, update.values)
        decision = {
            "values": values,
            "written": update.written,
            "unchanged": update.unchanged,
            "filled": filled,  # a write must not empty these, and a retry checks that, too
            **more,
        }
        self._decision.persist(decision)
        return decision

    def write(self, fields: list[field_rules.Field], decision: Mapping[str, Any]) -> None:
        """
        Write the values of the decision that the fields do not show yet, and read all fields back.

        :param fields: The fields as they are.
        :raises StepMoved: the instance is already completed.
        :raises OutcomeUnknown: the response was lost and the fields do not show the values.
        :raises UnexpectedResponse: the server accepted the values but shows others, or emptied other fields.
        """
        values = field_rules.read_stored_values(decision["values"])
        if self._earlier_decision:
            fields = self._reject_emptied(fields, decision["filled"])
        missing = field_rules.plan_update(fields, values, allow_unknown_types=True).values
        if missing:
            self._send(fields, missing)
            log.info(
                "Wrote %s of integration instance %s as user %s.",
                ", ".join(repr(field.label) for field in fields if field.key in missing),
                self._id,
                self._hook.on_behalf_of,
            )
        if unsent := [*decision["unchanged"], *([] if missing else decision["written"])]:
            log.info("Nothing is sent for %s of instance %s: these fields already have their values.", unsent, self._id)
        elif not missing:
            log.info("There is no field of instance %s to write.", self._id)

    def _compare(
        self, before: list[field_rules.Field], after: list[field_rules.Field], values: Mapping[str, Any]
    ) -> field_rules.WriteComparison:
        return field_rules.compare_write(before, after, values, normalized=self._verify == "normalized")

    def _reject_emptied(self, fields: list[field_rules.Field], filled: list[str]) -> list[field_rules.Field]:
        """Raise an error if fields that had a value before an earlier try wrote others stay empty; else return all."""

        def emptied(shown: list[field_rules.Field]) -> list[str]:
            by_key = {field.key: field for field in shown}
            return [str(by_key.get(key, key)) for key in filled if key not in by_key or by_key[key].is_empty]

        if emptied(fields):  # or the read is older than a write before
            fields = poll_until(self.read, lambda shown: not emptied(shown), self._confirm_timeout) or fields
        if names := emptied(fields):
            raise _emptied(
                f"had a value before an earlier try wrote other fields, and are empty now: {', '.join(names)}"
            )
        return fields

    def _send(self, before: list[field_rules.Field], values: Mapping[str, Any], *, again: bool = False) -> None:
        unclear: OutcomeUnknown | ServerError | None = None
        try:
            self._hook.update_fields(self._id, values)
        except NOTHING_DONE as rejected:
            if not self._earlier_decision and not again:  # otherwise the earlier request may still arrive
                self._decision.persist({})  # nothing was written, so a retry may decide again
            raise self._moved(rejected) from rejected
        except (OutcomeUnknown, ServerError) as error:
            log.warning("%s Reading whether the values were written.", describe(error))
            unclear = error
        seen: list[field_rules.WriteComparison] = []

        def shown() -> field_rules.WriteComparison | None:
            seen[:] = [self._compare(before, self._hook.get_fields(self._id), values)]
            is_decided = not seen[0].wrong and not seen[0].emptied
            # Writing the same values once more is harmless, and faster than waiting.
            may_repeat = isinstance(unclear, OutcomeUnknown) and not again and seen[0].is_untouched
            return seen[0] if is_decided or may_repeat else None

        # A server that says that it failed mostly did: one read is enough.
        found = poll_until_found(shown, 0 if isinstance(unclear, ServerError) else self._confirm_timeout)
        if found is not None and found.wrong:
            log.warning("The fields of instance %s show their old values. Writing them once more.", self._id)
            self._send(before, values, again=True)
            return
        if found is None and not unclear and not seen:
            seen = [
                self._compare(before, self._hook.get_fields(self._id), values)
            ]  # raises its error if reading still fails
        if not seen or seen[0].wrong:
            if isinstance(unclear, OutcomeUnknown) and not _says_completed(unclear):
                raise _outcome_unknown(unclear, f"the fields of instance {self._id} were written") from unclear
            if unclear is not None:
                raise self._moved(unclear) from unclear
        if seen[0].emptied:
            raise _emptied(f"were not written, but are empty or missing now: {'; '.join(seen[0].emptied)}")
        if seen[0].wrong:
            raise UnexpectedResponse(
                f"Workflowsoft accepted the values but shows others in: {'; '.join(seen[0].wrong)}. If it only "
                'normalizes them, set verify="normalized"'
            )
        for difference in seen[0].normalized:
            log.warning("Workflowsoft shows another value of field %s.", difference)
        for difference in seen[0].changed:
            log.warning(
                "A field that was not written has another value, which Workflowsoft may have computed, or another user "
                "or task may have written: %s.",
                difference,
            )

    def _moved(self, error: WorkflowsError) -> Exception:
        if not _says_completed(error):
            return error
        return StepMoved(f"Instance {self._id} is already completed, so its fields cannot be written. {error}")

    # --- completing ---

    def complete(self, custom_action: str, *, on_unknown: str) -> bool:
        """
        Complete the instance once; return whether this call completed it.

        :param custom_action: The custom action; a retry passes :attr:`started_action` if there is one.
        :param on_unknown: What to do if the outcome remains unknown: ``fail``, ``retry`` or ``assume_done``.
        :raises ConfigurationError: a required field is empty.
        :raises OutcomeUnknown: the outcome remains unknown, with ``fail``.
        """
        earlier = self._completion.value or {}
        again = "completing" in earlier
        if "completed" in earlier:
            log.info("Nothing is sent: an earlier try completed instance %s at %s.", self._id, earlier["completed"])
            return False
        if again:
            started = f"An earlier try started to complete instance {self._id} at {earlier['completing']}"
            lost = OutcomeUnknown(f"{started} and did not finish")
            if self._is_over(lost, earlier) or not self._may_send_again(lost, on_unknown):
                log.info("Nothing is sent: instance %s counts as completed.", self._id)
                return self._record_completed(custom_action, by_this_call=False)
        fields = self.read()
        # A dry run has not sent the values that this task would have written before; plan() has checked them.
        has_unsent = self._hook.dry_run and self.decision is not None
        if not has_unsent and field_rules.missing_required(fields):
            # The read may be older than a write just before, of this task or another one.
            fields = poll_until(self.read, _is_filled, self._confirm_timeout) or fields
            if missing := field_rules.missing_required(fields):
                raise ConfigurationError(
                    f"Instance {self._id} cannot be completed, because required fields are empty: "
                    f"{', '.join(missing)}. Fill them. The completion was not sent."
                )
        before = {
            "writable": not field_rules.has_closed(fields),
            "fields": len(fields),
            "listed": self._is_listed(),
        }
        self._completion.persist({"completing": now(), "custom_action": custom_action, **before})
        done = self._send_completion(custom_action, before, on_unknown, again=again)
        if done:
            log.info(
                "Completed integration instance %s with %r as user %s.",
                self._id,
                custom_action,
                self._hook.on_behalf_of,
            )
        return self._record_completed(custom_action, by_this_call=done)

    def _send_completion(self, custom_action: str, before: Mapping[str, Any], on_unknown: str, *, again: bool) -> bool:
        try:
            self._hook.complete(self._id, custom_action=custom_action)
        except (*NOTHING_DONE, ServerError) as error:
            if _says_completed(error):
                if not again and custom_action != AUTO:
                    self._completion.persist({})
                    raise StepMoved(
                        f"Instance {self._id} was completed by another user, perhaps not with {custom_action!r}. "
                        f"{error}"
                    ) from error
                log.warning("The server says that the instance was already completed: %s", error)
                return False
            if isinstance(error, ServerError):
                if self._is_over(error, before):
                    return True
                # A 500 may be a business error, or a crash after the completion. It must not be repeated.
                raise AirflowFailException(
                    f"ServerError: {describe(error)} It is not sent again. Check whether instance {self._id} is "
                    f"completed. If it is not, {self._if_open}."
                ) from error
            if not again:  # otherwise the earlier request may have completed it
                self._completion.persist({})
            raise
        except OutcomeUnknown as lost:
            if self._is_over(lost, before):  # the evidence did not exist before this call
                return True
            if not self._may_send_again(lost, "fail" if again else on_unknown):
                return False
            return self._send_completion(custom_action, before, on_unknown, again=True)
        return True

    def _may_send_again(self, lost: OutcomeUnknown, on_unknown: str) -> bool:
        if on_unknown == "fail":
            raise _outcome_unknown(lost, f"instance {self._id} is completed; if it is not, {self._if_open}") from lost
        log.warning("%s on_unknown_completion: %s.", describe(lost), on_unknown)
        return on_unknown == "retry"

    def _is_over(self, unclear: WorkflowsError, before: Mapping[str, Any]) -> bool:
        """Read whether the instance is completed; no response of the API says so, but some prove it."""
        log.warning("%s Reading whether the instance is completed.", describe(unclear))
        found = poll_until_found(
            lambda: self._evidence(before), 0 if isinstance(unclear, ServerError) else self._confirm_timeout
        )
        if found:
            log.info("Instance %s counts as completed: %s.", self._id, found)
        return found is not None

    def _evidence(self, before: Mapping[str, Any]) -> str | None:
        """Return what proves that the instance is completed, or None; only changes since ``before`` count."""
        try:
            fields = self._hook.get_fields(self._id)
        except NotFound as missing:
            return "it can no longer be read" if missing.is_documented else None  # a gateway may have returned it
        except (InvalidRequest, ServerError) as error:
            return error.server_message if _says_completed(error) else None
        is_whole = len(fields) >= before.get("fields", 0)  # otherwise a row that is left out may be writable
        if before["writable"] and is_whole and field_rules.has_closed(fields):
            return "its fields can no longer be written"
        if before["listed"] and not self._poll():
            return "its step has no open instance"
        return None

    def _is_listed(self) -> bool:
        """Return whether a poll of the step lists the instance; poll only if that does not consume it."""
        if self._step_id is None or not self._hook.lists_until_completed or not self._hook.may_consume:
            return False
        try:
            return any(row["integration_instance_id"] == self._id for row in self._poll())
        except ApiError:
            return False

    def _poll(self) -> list[dict[str, str | None]]:
        return self._hook.poll_new_integrations(str(self._step_id), is_known=True, strict=True)

    def _record_completed(self, custom_action: str, *, by_this_call: bool) -> bool:
        self._completion.persist({"completed": now(), "custom_action": custom_action})
        return by_this_call


def _says_completed(error: WorkflowsError) -> bool:
    return rules.says_already_completed(getattr(error, "server_message", ""))


def _is_filled(fields: list[field_rules.Field]) -> bool:
    return not field_rules.missing_required(fields)


def _emptied(what: str) -> UnexpectedResponse:
    error = UnexpectedResponse(f"Writing emptied other fields. These {what}. A write may replace all fields here")
    error.retryable = False  # a retry would find the values written, and succeed
    return error


def _outcome_unknown(lost: OutcomeUnknown, what: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"{describe(lost)} It is unknown whether {what}")


def now() -> str:
    """Return the time as ISO-8601 text in UTC."""
    return datetime.now(timezone.utc).isoformat()
