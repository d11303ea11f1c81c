"""What is remembered of the polls of an integration step."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_workflows.rules.poll_journal import MAX_INSTANCES, MAX_STRETCHES, PollJournal

PLACE = {"diagram_id": "1", "step_id": "101", "step": "Check event"}
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
GUID = "9aae87b4-2b01-43eb-be17-d0080a22"


def at(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


def instances(*ids: str) -> list[dict[str, str]]:
    return [{"integration_instance_id": name, "process_instance_id": f"p{name}"} for name in ids]


def stretch(since: int, until: int) -> dict[str, str]:
    since_text, until_text = (at(minute).isoformat(timespec="milliseconds") for minute in (since, until))
    return {"since": since_text, "until": until_text}


class Polls:
    """A journal that is stored after each transition and read back before the next one."""

    def __init__(self) -> None:
        self.stored: str | None = None

    @property
    def journal(self) -> PollJournal:
        return PollJournal.from_dict(self.stored and json.loads(self.stored))

    def persist(self, journal: PollJournal) -> PollJournal:
        self.stored = json.dumps(journal.to_dict())
        assert self.journal == journal
        return journal

    def start(self, minute: int) -> None:
        self.persist(self.journal.poll_started(PLACE, at(minute)))

    def receive(self, minute: int, *ids: str) -> None:
        self.start(minute)
        self.persist(self.journal.poll_ended(instances(*ids)))

    def lose(self, minute: int, *ids: str, failures: int = 0) -> None:
        self.start(minute)
        self.persist(self.journal.poll_lost(at(minute + 1), instances(*ids), failures))


@pytest.fixture
def polls() -> Polls:
    return Polls()


def test_a_poll_is_open_until_its_end_is_stored(polls):
    assert polls.journal.polling_since is None
    polls.persist(polls.journal.poll_started(PLACE, at(3), "stream"))
    assert datetime.fromisoformat(polls.journal.polling_since) == at(3)
    assert (polls.journal.place, polls.journal.poller) == (PLACE, "stream")

    polls.persist(polls.journal.poll_ended([]))
    assert polls.journal.polling_since is None


def test_each_received_instance_is_there_once_in_order(polls):
    polls.receive(0, "2", "1")
    polls.receive(1)
    polls.receive(2, "3", "2")

    assert polls.journal.instances == instances("2", "1", "3")


def test_a_transition_leaves_the_earlier_journal_alone(polls):
    polls.receive(0, "1")
    before = polls.journal
    text = json.dumps(before.to_dict())

    before.poll_started(PLACE, at(1)).poll_lost(at(2), instances("2")).forget(["1"], [])

    assert json.dumps(before.to_dict()) == text


def test_losses_with_no_response_in_between_are_one_period(polls):
    for minute in (0, 5, 10):
        polls.lose(minute)
    polls.start(12)
    polls.persist(polls.journal.poll_ended())  # rejected
    polls.lose(15)

    assert list(polls.journal.possibly_lost) == [stretch(0, 16)]


@pytest.mark.parametrize("ids", [(), ("1",)], ids=["nothing", "one"])
def test_a_response_between_two_losses_makes_two_periods(polls, ids):
    polls.lose(0)
    polls.receive(5, *ids)
    polls.lose(10)

    assert list(polls.journal.possibly_lost) == [stretch(0, 1), stretch(10, 11)]


def test_the_readable_part_of_a_lost_response_is_received(polls):
    polls.lose(0, "1")
    polls.lose(5)

    assert polls.journal.instances == instances("1")
    assert list(polls.journal.possibly_lost) == [stretch(0, 1), stretch(5, 6)]


def test_failures_count_until_the_server_responds(polls):
    polls.lose(0, failures=2)
    assert polls.journal.failures == 2

    polls.receive(1)
    assert polls.journal.failures == 0


def test_what_was_delivered_is_forgotten_and_the_rest_is_not(polls):
    polls.lose(0, "1", "2")
    reported = polls.journal.possibly_lost
    polls.lose(5)
    polls.receive(7, "3")

    polls.persist(polls.journal.forget({"1", "2"}, reported))

    assert polls.journal.instances == instances("3")
    assert list(polls.journal.possibly_lost) == [stretch(5, 6)]


def test_a_period_that_grew_since_its_event_is_emitted_again(polls):
    polls.lose(0)
    reported = polls.journal.possibly_lost
    polls.lose(5)

    assert list(polls.journal.forget([], reported).possibly_lost) == [stretch(0, 6)]


def test_confirming_during_a_poll_leaves_the_poll_open(polls):
    polls.receive(0, "1")
    polls.start(1)

    journal = polls.persist(polls.journal.forget(["1"], []))

    assert journal.polling_since is not None


def test_a_flickering_server_does_not_outgrow_the_store(polls):
    for minute in range(0, 1000, 10):
        polls.lose(minute)
        polls.receive(minute + 5)

    assert len(polls.journal.possibly_lost) == MAX_STRETCHES
    assert polls.journal.possibly_lost[-1]["until"] == stretch(0, 991)["until"]


def test_what_a_task_may_receive_fits_into_the_store(polls):
    polls.receive(0, *(f"{GUID}{number:04}" for number in range(500)))
    for minute in range(0, 1000, 10):
        polls.lose(minute)
        polls.receive(minute + 5)

    assert len(polls.journal.received) == 500
    assert len(polls.stored) < 2**16


def test_a_journal_with_too_many_instances_stores_the_first_ones():
    journal = PollJournal().poll_ended(instances(*(f"{GUID}{number:04}" for number in range(3000))))

    assert len(journal.instances) == 3000
    stored = json.dumps(journal.to_dict())
    assert len(stored) < 2**16
    assert PollJournal.from_dict(json.loads(stored)).instances == journal.instances[:MAX_INSTANCES]
