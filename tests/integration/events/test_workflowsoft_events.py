"""The events that the watcher of an integration step emits, with both ways of reading."""

from __future__ import annotations

import asyncio
import logging

import pytest

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.triggers import workflowsoft_producer
from airflow_provider_workflows.triggers.asset_journal import AssetJournal
from airflow_provider_workflows.triggers.workflowsoft_events import WorkflowsoftIntegrationTrigger

DIAGRAM, STEP, STEP_ID = "Event planning", "Check event", "101"
CONSUMED, LISTED = "consumed_on_read", "listed_until_completed"


def integration(**kwargs):
    named = {} if "step_id" in kwargs else {"diagram": DIAGRAM, "step": STEP}
    return WorkflowsoftIntegrationTrigger(**{**named, "poll_interval": 0.05, "asset": "step", **kwargs})


@pytest.fixture
def emulator(airflow_connections):
    return airflow_connections


@pytest.fixture
def connect(emulator, set_connection):
    """Return a function that sets how the emulator reads, and what the connection says of it."""

    def connect_it(reading, host=None, **extra):
        emulator.control("PATCH", "flags", new_integrations=reading)
        connection = emulator.connection("workflowsoft")
        connection["host"] = host or connection["host"]
        connection["extra"] |= {"new_integrations": reading, **extra}
        set_connection("workflowsoft_default", connection)

    return connect_it


@pytest.fixture
def statistics(monkeypatch):
    counted = []
    count = version_compat.count
    monkeypatch.setattr(
        "airflow_provider_workflows.version_compat.count",
        lambda name, *value, **tags: counted.append((name, tags)) or count(name, *value, **tags),
    )
    return counted


def start(emulator):
    """Start a process, and return the id of the integration instance that it opens."""
    return emulator.control("POST", "workflowsoft/processes", diagram=DIAGRAM)["integration_instance_id"]


def polls(emulator):
    return sum(request["path"].endswith("/new-integrations") for request in emulator.requests())


def emitted(triggerer, asset=None):
    return [row["integration_instance_id"] for row in triggerer.events(asset)]


def journal(stores, asset="step"):
    (key,) = [key for key in stores.keys(asset) if key.endswith(".journal")]
    return stores.value(asset, key)


async def until_the_response_is_on_its_way(triggerer, stores, asset="step"):
    """The response itself is delayed by a fault."""
    await triggerer.until(lambda: any(key.endswith(".journal") for key in stores.keys(asset)))
    await asyncio.sleep(0.15)
    assert journal(stores, asset)["polling_since"] is not None


def watch_asset(asset="step", number=1, **kwargs):
    async def scenario(triggerer):
        triggerer.watch(integration(asset=asset, **kwargs))
        await triggerer.until(lambda: len(emitted(triggerer)) >= number)
        await triggerer.polls(3)

    return scenario


# --- listed until completed -----------------------------------------------------------------------------------


def test_open_instance_is_emitted_once(run, emulator, connect):
    connect(LISTED)
    first = start(emulator)

    triggerer = run(watch_asset())

    ((_, payload),) = triggerer.payloads
    (row,) = payload.pop("events")
    assert payload == {"event": "integration", "workflowsoft_conn_id": "workflowsoft_default", "possibly_lost": []}
    assert row == {
        "event_id": f"integration:{emulator.url.removeprefix('http://')}:{STEP_ID}:{first}",
        "integration_instance_id": first,
        "process_instance_id": row["process_instance_id"],
        "diagram_id": "1",
        "step_id": STEP_ID,
        "step": STEP,
    }
    assert polls(emulator) > 3


def test_only_new_instances_are_emitted_after_a_restart(run, emulator, connect):
    connect(LISTED)
    emulator.control("PATCH", "flags", new_integration_shape="list")
    first = start(emulator)
    assert emitted(run(watch_asset())) == [first]
    second = start(emulator)

    assert emitted(run(watch_asset())) == [second]


def test_an_event_that_airflow_never_got_is_redelivered(run, emulator, connect):
    connect(LISTED)
    start(emulator)

    assert run(watch_asset(), persists=False).events() == run(watch_asset()).events() != []


def test_instance_hidden_behind_another_is_not_redelivered(run, emulator, connect):
    connect(LISTED)
    first, second = start(emulator), start(emulator)

    async def scenario(triggerer):
        triggerer.watch(integration())
        await triggerer.until(lambda: emitted(triggerer) == [first])
        emulator.control("POST", f"workflowsoft/instances/{first}/complete", fields={"Venue": "Hall"})
        await triggerer.until(lambda: emitted(triggerer) == [first, second])
        await triggerer.polls(3)

    run(scenario)


def test_several_assets_share_a_poll_and_each_gets_its_event(run, emulator, connect):
    connect(LISTED)
    first = start(emulator)

    async def scenario(triggerer):
        for number in range(3):
            triggerer.watch(integration(asset=f"asset {number}", poll_interval=0.05 + number))
        await triggerer.until(lambda: len(emitted(triggerer)) == 3)
        await triggerer.polls(12)

    triggerer = run(scenario)

    assert emitted(triggerer) == [first] * 3
    # A poll of this shape sends two requests, because it ends when the same instance comes again.
    assert polls(emulator) <= 2 * (triggerer.readings / 3 + 2)


def test_remote_server_is_not_polled_more_often_than_every_15_s(run, emulator, connect, monkeypatch):
    connect(LISTED)
    start(emulator)
    monkeypatch.setattr("airflow_provider_workflows.hooks.workflowsoft.LOOPBACK_HOSTS", set())

    async def scenario(triggerer):
        triggerer.watch(integration())
        await triggerer.until(lambda: triggerer.payloads)
        before = polls(emulator)
        await asyncio.sleep(0.3)
        assert polls(emulator) == before

    run(scenario)


@pytest.mark.sample(3)
@pytest.mark.parametrize("malformed", ["null", "7", "{}", '{"IntegrationInstanceId": null}'])
def test_malformed_row_concerns_only_itself(run, emulator, connect, caplog, malformed):
    connect(LISTED)

    def shows(*ids):
        rows = ", ".join(f'{{"IntegrationInstanceId": {instance_id}, "ProcessInstanceId": 8}}' for instance_id in ids)
        body = f"[{malformed}{', ' if rows else ''}{rows}]"
        emulator.control("POST", "faults?replace=true", path="new-integrations", status=200, body=body, times=10**6)

    shows()

    async def scenario(triggerer):
        triggerer.watch(integration())
        await triggerer.polls(5)
        shows(7)
        await triggerer.until(lambda: emitted(triggerer) == ["7"])
        shows(7, 9)
        await triggerer.until(lambda: emitted(triggerer) == ["7", "9"])
        await triggerer.polls(3)

    run(scenario)

    assert len([record for record in caplog.records if "the response is malformed in part" in record.message]) <= 1


def second_connection(emulator, set_connection, reading, **changed):
    connection = emulator.connection("workflowsoft")
    connection["extra"] |= {"new_integrations": reading}
    set_connection("second", {**connection, **changed})


@pytest.mark.parametrize("names", [{}, {"step_id": STEP_ID}])
def test_two_connections_of_one_account_are_noticed(run, emulator, connect, set_connection, caplog, names):
    connect(LISTED)
    second_connection(emulator, set_connection, LISTED)

    async def scenario(triggerer):
        for asset in ("one", "two"):  # which share a connection
            triggerer.watch(integration(asset=asset))
        triggerer.watch(integration(asset="three", workflowsoft_conn_id="second", **names))
        await triggerer.until(lambda: "watched twice" in caplog.text)
        start(emulator)
        await triggerer.until(lambda: len(emitted(triggerer)) == 3)
        await triggerer.polls(6)

    run(scenario)

    assert len([record for record in caplog.records if "watched twice" in record.message]) <= 2


def test_two_connections_of_one_account_take_no_instances(run, emulator, connect, set_connection, caplog):
    connect(CONSUMED)
    second_connection(emulator, set_connection, CONSUMED)

    async def scenario(triggerer):
        triggerer.watch(integration(asset="one"))
        await triggerer.until(lambda: polls(emulator))
        triggerer.watch(integration(asset="two", workflowsoft_conn_id="second"))
        await triggerer.until(lambda: "signs in as the same user through connection" in caplog.text)
        ids = [start(emulator) for _ in range(3)]
        await triggerer.until(lambda: emitted(triggerer, "one") == ids)

    assert emitted(run(scenario), "two") == []


def test_connections_of_two_users_are_distinguished(run, emulator, connect, set_connection, caplog):
    connect(LISTED)
    token = WorkflowsoftHook().get_api_token()
    second_connection(emulator, set_connection, LISTED, login=None, password=token)

    async def scenario(triggerer):
        triggerer.watch(integration(asset="one"))
        triggerer.watch(integration(asset="two", workflowsoft_conn_id="second"))
        start(emulator)
        await triggerer.until(lambda: len(emitted(triggerer)) == 2)

    run(scenario)

    assert "watched twice" not in caplog.text


def other_server(emulator):
    """Return another name of the emulator, which stands for another server with the same ids."""
    return emulator.url.replace("127.0.0.1", "localhost")


def test_instances_of_another_server_are_new(run, emulator, connect, stores):
    connect(LISTED)
    first = start(emulator)
    ids = run(watch_asset()).event_ids()
    connect(LISTED, host=other_server(emulator))

    other = run(watch_asset())

    assert emitted(other) == [first]
    assert set(other.event_ids()).isdisjoint(ids)
    assert emitted(run(watch_asset(number=0))) == []


def test_a_cursor_without_servers_is_ignored(run, emulator, connect, stores):
    connect(LISTED)
    first = start(emulator)
    run(watch_asset())
    for key in stores.keys("step"):
        stores.values["step"][key] = stores.values["step"][key].replace(f'"{other_server(emulator)[7:]}"', "1")
        stores.values["step"][key] = stores.values["step"][key].replace(f'"{emulator.url[7:]}"', "1")

    assert emitted(run(watch_asset())) == [first]


# --- consumed on read ---------------------------------------------------------------------------------------


def test_received_instance_is_emitted_and_then_forgotten(run, emulator, connect, stores):
    connect(CONSUMED)
    ids = [start(emulator) for _ in range(3)]

    triggerer = run(watch_asset(number=3))

    assert emitted(triggerer) == ids  # without sleeping for the interval in between
    assert [set(row) for row in triggerer.events()] == [
        {"event_id", "integration_instance_id", "process_instance_id", "diagram_id", "step_id", "step"}
    ] * 3
    entry = journal(stores)
    assert (entry["received"], entry["possibly_lost"]) == ([], [])


def test_no_poll_starts_before_its_intent_is_stored(run, emulator, connect, stores):
    connect(CONSUMED)
    first = start(emulator)
    stores.fails = lambda what, asset, key: what == "set"

    async def scenario(triggerer):
        triggerer.watch(integration())
        await triggerer.polls(3)
        assert polls(emulator) == 0
        stores.fails = lambda what, asset, key: False
        await triggerer.until(lambda: emitted(triggerer) == [first])

    run(scenario)


def test_received_instance_is_stored_before_it_is_emitted(run, emulator, connect, stores):
    connect(CONSUMED)
    first = start(emulator)
    stored = []

    async def scenario(triggerer):
        persist = triggerer.persist
        triggerer.persist = lambda: (stored.append(journal(stores)["received"]), persist())
        triggerer.watch(integration())
        await triggerer.until(lambda: emitted(triggerer))
        await triggerer.until(lambda: stored)

    run(scenario)

    assert [row[0] for row in stored[0]] == [first]


def test_event_that_airflow_lost_is_redelivered_after_a_kill(run, emulator, connect, stores):
    connect(CONSUMED)
    first = start(emulator)

    async def killed(triggerer):
        triggerer.watch(integration())
        await triggerer.until(lambda: emitted(triggerer) == [first])

    one_life = run(killed, persists=False)
    second = start(emulator)
    next_life = run(watch_asset(number=2))

    assert one_life.events() == next_life.events()[:1]
    assert emitted(next_life) == [first, second]
    assert [payload["possibly_lost"] for _, payload in next_life.payloads] == [[], []]
    assert journal(stores)["received"] == []


@pytest.fixture
def listed_but_consumed(emulator, connect):
    """A server that lists instances until they are completed, over a connection that says that it does not."""
    connect(CONSUMED)
    emulator.control("PATCH", "flags", new_integrations=LISTED)


@pytest.mark.usefixtures("listed_but_consumed")
@pytest.mark.parametrize("shape", ["object", "list"])
def test_an_instance_that_is_listed_again_is_emitted_once(run, emulator, stores, caplog, shape):
    emulator.control("PATCH", "flags", new_integration_shape=shape)
    first = start(emulator)

    async def scenario(triggerer):
        triggerer.watch(integration())
        await triggerer.until(lambda: emitted(triggerer) == [first])
        await triggerer.polls(5)
        emulator.control("POST", f"workflowsoft/instances/{first}/complete", fields={"Venue": "Hall"})
        second = start(emulator)
        await triggerer.until(lambda: emitted(triggerer) == [first, second])
        await triggerer.polls(5)

    triggerer = run(scenario)

    assert len(triggerer.payloads) == 2
    assert (journal(stores)["received"], journal(stores)["possibly_lost"]) == ([], [])
    (logged,) = [r.getMessage() for r in caplog.records if "set the connection's extra" in r.getMessage()]
    assert f"returned integration instance {first} " in logged
    assert emitted(run(watch_asset(number=0))) == []


@pytest.mark.usefixtures("listed_but_consumed")
def test_a_poll_with_known_instances_only_waits_the_interval(run, emulator):
    start(emulator)

    async def scenario(triggerer):
        triggerer.watch(integration(poll_interval=3))
        await triggerer.until(lambda: polls(emulator) == 2)
        await asyncio.sleep(0.8)

    run(scenario)
    assert polls(emulator) == 2


@pytest.mark.usefixtures("listed_but_consumed")
def test_a_listed_instance_that_airflow_never_got_is_emitted(run, emulator):
    first = start(emulator)

    async def killed(triggerer):
        triggerer.watch(integration())
        await triggerer.until(lambda: emitted(triggerer) == [first])

    assert run(killed, persists=False).events() == run(watch_asset()).events() != []


@pytest.mark.usefixtures("listed_but_consumed")
def test_a_second_asset_gets_an_instance_that_the_first_has(run, emulator):
    first = start(emulator)

    async def scenario(triggerer):
        triggerer.watch(integration(asset="old"))
        await triggerer.until(lambda: emitted(triggerer, "old") == [first])
        triggerer.watch(integration(asset="new"))
        await triggerer.until(lambda: emitted(triggerer, "new") == [first])
        await triggerer.polls(5)

    assert sorted(emitted(run(scenario))) == [first, first]


def test_stored_instance_is_emitted_for_its_own_server_only(run, emulator, connect):
    connect(CONSUMED)
    start(emulator)

    async def killed(triggerer):
        triggerer.watch(integration())
        await triggerer.until(lambda: triggerer.payloads)

    before = run(killed, persists=False)
    connect(CONSUMED, host=other_server(emulator))
    assert emitted(run(watch_asset(number=0))) == []
    connect(CONSUMED)
    assert run(watch_asset()).events() == before.events()


def test_a_kill_before_the_poll_loses_nothing_and_is_suspected(run, emulator, connect, stores, statistics):
    """It is unknown whether the poll was sent."""
    connect(CONSUMED)
    first = start(emulator)

    async def killed(triggerer):
        number = triggerer.watch(integration())
        await triggerer.until(lambda: any(key.endswith(".journal") for key in stores.keys("step")))
        triggerer._stores[number].is_dead = True

    emulator.control("POST", "faults", path="new-integrations", reset="before", times=1)
    run(killed)
    emulator.control("DELETE", "faults")
    triggerer = run(watch_asset())

    assert emitted(triggerer) == [first]
    ((since, until),) = [tuple(period.values()) for period in triggerer.payloads[0][1]["possibly_lost"]]
    assert since <= until
    assert journal(stores)["possibly_lost"] == []  # an event has reported it
    assert ("workflows.suspected_lost_delivery", {"step_id": STEP_ID}) in statistics


def test_kill_before_the_response_arrives_is_a_possible_loss(run, emulator, connect, stores, statistics, caplog):
    connect(CONSUMED)
    lost = start(emulator)
    emulator.control("POST", "faults", path="new-integrations", delay=0.5, after=True, times=1)

    async def killed(triggerer):
        triggerer.watch(integration())
        await until_the_response_is_on_its_way(triggerer, stores)

    run(killed)
    assert journal(stores)["polling_since"] is not None
    second = start(emulator)
    triggerer = run(watch_asset())

    assert lost not in emitted(triggerer)
    assert emitted(triggerer) == [second]
    assert len(triggerer.payloads[0][1]["possibly_lost"]) == 1
    assert "Suspected loss: the response to a poll of integration step 101" in caplog.text
    assert [name for name, _ in statistics].count("workflows.suspected_lost_delivery") == 1


def test_orderly_triggerer_stop_stores_the_response_in_flight(run, emulator, connect, stores):
    connect(CONSUMED)
    first = start(emulator)
    emulator.control("POST", "faults", path="new-integrations", delay=0.5, after=True, times=1)

    async def stopped(triggerer):
        number = triggerer.watch(integration())
        await until_the_response_is_on_its_way(triggerer, stores)
        await triggerer.stop(number)
        await asyncio.sleep(0.8)

    assert run(stopped).payloads == []
    assert [row[0] for row in journal(stores)["received"]] == [first]
    triggerer = run(watch_asset())

    assert emitted(triggerer) == [first]
    assert triggerer.payloads[0][1]["possibly_lost"] == []


def test_watcher_replaced_during_a_response_loses_nothing(run, emulator, connect, stores, statistics):
    """As after an edit of the DAG: the new watcher comes while the old one's poll still waits for its response."""
    connect(CONSUMED)
    first = start(emulator)
    emulator.control("POST", "faults", path="new-integrations", delay=0.7, after=True, times=1)

    async def scenario(triggerer):
        number = triggerer.watch(integration())
        await until_the_response_is_on_its_way(triggerer, stores)
        await triggerer.stop(number)
        triggerer.watch(integration(poll_interval=0.06))
        await triggerer.until(lambda: emitted(triggerer))
        await triggerer.polls(2)

    triggerer = run(scenario)

    assert emitted(triggerer) == [first]
    assert [payload["possibly_lost"] for _, payload in triggerer.payloads] == [[]]
    assert "workflows.suspected_lost_delivery" not in [name for name, _ in statistics]


def test_overlapping_watchers_of_an_asset_suspect_no_loss(run, emulator, connect, statistics):
    """Airflow starts the new watcher before it takes the old one away."""
    connect(CONSUMED)

    async def scenario(triggerer):
        number = triggerer.watch(integration())
        for turn in range(15):
            await triggerer.polls(1)
            await asyncio.sleep(turn * 0.003)
            new = triggerer.watch(integration(poll_interval=0.05 + turn / 1000))
            await triggerer.polls(3)
            await triggerer.stop(number)
            number = new
        first = start(emulator)
        await triggerer.until(lambda: first in emitted(triggerer))

    run(scenario)

    assert "workflows.suspected_lost_delivery" not in [name for name, _ in statistics]


def test_a_lost_response_is_reported_with_the_next_event(run, emulator, connect, stores, statistics):
    connect(CONSUMED)
    start(emulator)
    emulator.control("POST", "faults", path="new-integrations", reset="after", times=2)

    async def scenario(triggerer):
        triggerer.watch(integration())
        await triggerer.until(lambda: polls(emulator) >= 3)
        triggerer.second = start(emulator)
        await triggerer.until(lambda: emitted(triggerer))
        await triggerer.polls(3)

    triggerer = run(scenario)

    assert emitted(triggerer) == [triggerer.second]
    assert len(triggerer.payloads[0][1]["possibly_lost"]) == 1  # two polls, one period
    assert [name for name, _ in statistics].count("workflows.suspected_lost_delivery") == 2
    assert journal(stores)["possibly_lost"] == []


@pytest.mark.parametrize(
    "fault", [{"status": 429, "headers": {"Retry-After": "1"}}, {"status": 401}, {"status": 403}], ids=str
)
def test_a_rejected_poll_is_not_a_loss(run, emulator, connect, fault):
    connect(CONSUMED)
    first = start(emulator)
    emulator.control("POST", "faults", path="new-integrations", times=2, **fault)

    triggerer = run(watch_asset())

    assert emitted(triggerer) == [first]
    assert triggerer.payloads[0][1]["possibly_lost"] == []


@pytest.mark.parametrize("status", [429, 503])
def test_no_poll_before_the_time_that_the_server_stated(run, emulator, connect, status):
    connect(CONSUMED)
    emulator.control("POST", "faults", path="new-integrations", status=status, headers={"Retry-After": "60"}, times=9)

    async def scenario(triggerer):
        triggerer.watch(integration())
        await triggerer.until(lambda: polls(emulator) == 1)
        await asyncio.sleep(0.5)

    run(scenario)
    assert polls(emulator) == 1


def test_readable_part_of_a_malformed_response_is_emitted(run, emulator, connect):
    connect(CONSUMED)
    response = [{"IntegrationInstanceId": 7, "ProcessInstanceId": 8}, "malformed"]
    emulator.control("POST", "faults", path="new-integrations", status=200, json=response)

    triggerer = run(watch_asset())

    assert emitted(triggerer) == ["7"]
    assert len(triggerer.payloads[0][1]["possibly_lost"]) == 1


def test_each_asset_gets_every_instance_and_has_its_own_journal(run, emulator, connect, stores):
    connect(CONSUMED)
    ids = [start(emulator) for _ in range(2)]

    async def scenario(triggerer):
        triggerer.watch(integration(asset="one"))
        triggerer.watch(integration(asset="two", poll_interval=3600, max_instances=3))
        await triggerer.until(lambda: len(emitted(triggerer)) == 4)
        await triggerer.polls(4)

    triggerer = run(scenario)

    assert emitted(triggerer, "one") == emitted(triggerer, "two") == ids
    assert [journal(stores, asset)["received"] for asset in ("one", "two")] == [[], []]


def test_watcher_that_joins_during_a_poll_gets_its_events(run, emulator, connect, stores):
    connect(CONSUMED)
    first = start(emulator)
    emulator.control("POST", "faults", path="new-integrations", delay=0.5, after=True, times=1)

    async def scenario(triggerer):
        triggerer.watch(integration(asset="one"))
        await until_the_response_is_on_its_way(triggerer, stores, "one")
        triggerer.watch(integration(asset="two"))
        await triggerer.until(lambda: len(emitted(triggerer)) == 2)

    triggerer = run(scenario)

    assert emitted(triggerer, "two") == [first]


def test_step_identified_in_two_ways_is_polled_by_one_watcher(run, emulator, connect, caplog):
    connect(CONSUMED)

    async def scenario(triggerer):
        triggerer.watch(integration(asset="one"))
        await triggerer.until(lambda: polls(emulator))
        triggerer.watch(integration(asset="two", step_id=STEP_ID))
        await triggerer.until(lambda: "identifies it in another way" in caplog.text)
        first = start(emulator)
        await triggerer.until(lambda: emitted(triggerer) == [first])

    triggerer = run(scenario)

    assert emitted(triggerer, "two") == []


def test_no_poll_without_the_extra_allow_consume(run, emulator, connect, caplog):
    connect(CONSUMED, allow_consume=False)
    start(emulator)

    async def scenario(triggerer):
        triggerer.watch(integration())
        await triggerer.until(lambda: "allow_consume" in caplog.text)

    with caplog.at_level(logging.WARNING):
        run(scenario)

    assert polls(emulator) == 0


def test_dry_run_of_a_watcher_does_not_poll_and_loses_nothing(run, emulator, connect, caplog):
    connect(CONSUMED, dry_run=True)
    started = start(emulator)

    async def scenario(triggerer):
        triggerer.watch(integration())
        await triggerer.until(lambda: "is a dry run" in caplog.text)
        assert polls(emulator) == 0
        connect(CONSUMED)
        await triggerer.until(lambda: emitted(triggerer) == [started])

    with caplog.at_level(logging.WARNING):
        run(scenario)


def test_a_store_that_fails_after_the_poll_loses_nothing(run, emulator, connect, stores):
    connect(CONSUMED)
    first = start(emulator)
    state = {"polled": False, "failures": 1}

    def fails(what, asset, key):
        if what == "set" and polls(emulator) and state["failures"]:
            state["failures"] -= 1
            return True
        return False

    stores.fails = fails
    triggerer = run(watch_asset())

    assert emitted(triggerer) == [first]
    assert state["failures"] == 0
    assert journal(stores)["received"] == []


def test_changed_connection_applies_after_its_ttl(run, emulator, connect, monkeypatch):
    connect(CONSUMED)
    monkeypatch.setattr(workflowsoft_producer, "CONNECTION_TTL_SECONDS", 0.0)
    first = start(emulator)

    async def scenario(triggerer):
        triggerer.watch(integration())
        await triggerer.until(lambda: emitted(triggerer) == [first])
        connect(LISTED)
        second = start(emulator)
        await triggerer.until(lambda: emitted(triggerer)[-1] == second)

    run(scenario)


@pytest.mark.parametrize("stopped", ["the watcher", "the triggerer"])
def test_stop_before_a_poll_suspects_no_loss(run, emulator, connect, stores, statistics, monkeypatch, stopped):
    connect(CONSUMED)
    poll_starts = AssetJournal.poll_starts

    async def slow(journal, *what):
        await poll_starts(journal, *what)
        await asyncio.sleep(0.3)

    monkeypatch.setattr(AssetJournal, "poll_starts", slow)

    async def life(triggerer):
        number = triggerer.watch(integration())
        await triggerer.until(lambda: stores.keys("step") and journal(stores)["polling_since"] is not None)
        await (triggerer.stop(number) if stopped == "the watcher" else triggerer.manager.stop_all())
        await triggerer.until(lambda: journal(stores)["polling_since"] is None)

    run(life)
    assert polls(emulator) == 0
    first = start(emulator)
    triggerer = run(watch_asset())

    assert emitted(triggerer) == [first]
    assert triggerer.payloads[0][1]["possibly_lost"] == []
    assert "workflows.suspected_lost_delivery" not in [name for name, _ in statistics]


@pytest.mark.parametrize("interval", [60, 1800])
def test_failed_poll_is_never_repeated_before_its_interval(interval):
    producer = workflowsoft_producer.IntegrationProducer(integration(poll_interval=interval))
    delays = [0.0]
    for _ in range(5000):
        delays.append(producer._delay_after(OSError(), delays[-1]))

    assert delays[1] == min(delays[1:]) == interval
    assert max(delays) == delays[-1] == max(interval, 600)
