"""Running the emulator: as a command, as a context manager, with the large seed."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

import airflow_provider_workflows.emulator as package
from airflow_provider_workflows.emulator import Emulator, listening_socket
from airflow_provider_workflows.emulator.__main__ import main
from airflow_provider_workflows.emulator.behaviour_flags import BEHAVIOUR_FLAGS
from tests.support.processor_time import slowness
from tests.unit.emulator.conftest import PROJECT

INSTANCES = f"{PROJECT}/workflows/instances"
COMMAND = [sys.executable, "-m", "airflow_provider_workflows.emulator"]


def run(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("stop", "exit_code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_command_starts_serves_and_stops(stop, exit_code):
    with run() as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Emulator ready: http://127.0.0.1:")
        emulator = Emulator.attach(line.removeprefix("Emulator ready: ").strip() + "/")
        emulator.control("GET", "clock")
        used = processor_seconds(process.pid) / slowness()
        process.send_signal(stop)
        assert process.wait(60) == exit_code
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert used < 3.0


def test_a_restart_forgets_instances_and_repeats_their_ids():
    """What the documentation says of waits that outlive an emulator depends on it."""
    started = []
    for item_id in ("5002", "5003"):
        with Emulator() as emulator:
            assert [instance["item_id"] for instance in emulator.control("GET", "state")["procore"]] == ["5001"]
            started.append(
                emulator.control("POST", "procore/instances", tool_type="purchase_order_contract", item_id=item_id)
            )

    assert started[0] == started[1]


def test_a_reachable_address_needs_allow_remote(capsys):
    for host in ("0.0.0.0", "example.com"):
        with pytest.raises(SystemExit):
            main(["--host", host])
        assert "--allow-remote" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        (["--host", "0.0.0.0", "--allow-remote"], "http://0.0.0.0:"),
        (["--host", "localhost"], "http://localhost:"),
        (["--host", "::1"], "http://[::1]:"),
    ],
)
def test_the_printed_address_is_that_of_the_listening_socket(monkeypatch, capsys, arguments, url):
    class Server:
        def run(self, sockets):
            self.port = sockets[0].getsockname()[1]

    served = Server()
    monkeypatch.setattr("airflow_provider_workflows.emulator.__main__.server", lambda seed: served)
    main(arguments)

    assert capsys.readouterr().out == f"Emulator ready: {url}{served.port}\n"


def test_interrupting_the_command_is_not_an_error(monkeypatch):
    class Server:
        def run(self, sockets):
            raise KeyboardInterrupt

    monkeypatch.setattr("airflow_provider_workflows.emulator.__main__.server", lambda seed: Server())
    main([])


def test_help_lists_every_flag(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])

    shown = capsys.readouterr().out
    for name, flag in BEHAVIOUR_FLAGS.items():
        assert f"  {name}: {flag.allowed}\n" in shown


def test_a_seed_that_does_not_exist_is_rejected():
    with pytest.raises(Exception, match="default, large"), Emulator(seed="small"):
        pass


def test_the_context_manager_leaves_nothing_behind():
    with Emulator() as emulator:
        urllib.request.urlopen(f"{emulator.url}/_emulator/clock", timeout=5).close()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{emulator.url}/_emulator/clock", timeout=5)
    assert emulator._thread is not None
    assert not emulator._thread.is_alive()


def test_responses_do_not_wait_for_acknowledgements():
    """A socket without that option delays each response by 40 ms."""
    with listening_socket("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_bug_is_a_500_that_shows_where_it_is(emulator, procore, monkeypatch, capfd):
    def broken(*arguments):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("airflow_provider_workflows.emulator.procore.instance_routes.show", broken)
    response = requests.get(
        f"{emulator.url}{PROJECT}/workflows/instances/700001", headers=procore.session.headers, timeout=5
    )

    assert response.status_code == 500
    assert emulator.requests()[-1]["status"] == 500
    assert "ZeroDivisionError: a bug" in capfd.readouterr().err


@contextlib.contextmanager
def signed_in(seed: str) -> Iterator[tuple[Emulator, int, requests.Session]]:
    """Run an emulator in a process of its own, as users do: in this one the coverage would be measured, too."""
    with run("--seed", seed) as process, contextlib.ExitStack() as at_the_end, requests.Session() as session:
        at_the_end.callback(process.terminate)
        session.trust_env = False
        assert process.stdout is not None
        emulator = Emulator.attach(process.stdout.readline().rpartition(" ")[2].strip())
        connection = emulator.connection("procore")
        grant = {"grant_type": "client_credentials"}
        signing_in = (connection["login"], connection["password"])
        token = session.post(f"{emulator.url}/oauth/token", data=grant, auth=signing_in).json()["access_token"]
        session.headers.update({"Authorization": f"Bearer {token}", "Procore-Company-Id": "4264807"})
        yield emulator, process.pid, session


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used; 0 where there is no /proc."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def cost(pid: int, rows: int, request: Callable[[], requests.Response]) -> float:
    """Return the processor time that the emulator uses for one response, on a machine as quick as the reference."""
    found = request().json()
    assert len(found if isinstance(found, list) else found["data"]) == rows
    before = processor_seconds(pid)
    for _ in range(5):
        request()
    return (processor_seconds(pid) - before) / 5 / slowness()


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["large", "huge"])
def test_page_costs_little_however_many_instances(seed):
    tool = "filters[tool_type]=purchase_order_contract"
    active = f"{tool}&filters[active]=true&per_page=100"
    legacy = "/rest/v1.0/workflow_instances?company_id=4264807"
    quick = {
        "v2": (100, 0.05, f"{INSTANCES}?{active}"),
        "v2 of an assignee": (100, 0.05, f"{INSTANCES}?{active}&filters[assignee_id]=90001"),
        "v2 page 100": (100, 0.05, f"{INSTANCES}?{active}&page=100"),
        "v2 of an item": (1, 0.05, f"{INSTANCES}?{tool}&filters[item_id]=109999"),
        "v1 page 50": (100, 0.05, f"{legacy}&per_page=100&page=50"),
        "v1 page 1 of 2000": (2000, 0.3, f"{legacy}&per_page=2000"),
        "v1 page 5 of 2000": (2000, 0.3, f"{legacy}&per_page=2000&page=5"),
        "v1 of an object": (1, 0.05, f"{legacy}&filters[workflowed_object_id]=2009999"),
    }
    with signed_in(seed) as (emulator, pid, session):
        slow = {}
        for name, (rows, bound, path) in quick.items():
            seconds = cost(pid, rows, lambda path=path: session.get(emulator.url + path))
            if seconds >= bound:
                slow[name] = seconds
    assert slow == {}


@pytest.mark.slow
def test_100_000_instances_take_little_time_and_memory():
    bulk = {"tool_type": "purchase_order_contract", "item_ids": [str(199_999 - number) for number in range(50)]}
    with signed_in("huge") as (emulator, pid, session):
        assert processor_seconds(pid) / slowness() < 15
        page = session.get(
            f"{emulator.url}{INSTANCES}?filters[tool_type]=purchase_order_contract&page=1000&per_page=100"
        )
        assert page.headers["Total"] == "100001"
        legacy = session.get(f"{emulator.url}/rest/v1.0/workflow_instances?company_id=4264807&per_page=2000")
        assert legacy.headers["Total"] == "100002"
        assert cost(pid, 50, lambda: session.post(f"{emulator.url}{INSTANCES}/bulk_history", json=bulk)) < 0.05
        status = Path(f"/proc/{pid}/status")
        if not status.exists():
            pytest.skip("there is no /proc that shows the memory of a process")
        used = re.search(r"VmRSS:\s+(\d+) kB", status.read_text())

    assert used is not None
    assert int(used[1]) < 400 * 1024


@pytest.mark.parametrize("seed", ["large", pytest.param("huge", marks=pytest.mark.slow)])
def test_the_seeds_of_many_contain_the_stated_numbers(emulator, procore, legacy, seed):
    emulator.control("POST", "reset", seed=seed)
    count = {"large": 10_000, "huge": 100_000}[seed]

    for item, status in ((99_999, 0), (100_000, 1), (100_000 + count - 1, 1), (100_000 + count, 0)):
        query = {"filters[tool_type]": "purchase_order_contract", "filters[item_id]": str(item)}
        assert len(procore.get(INSTANCES, **query)["data"]) == status
    for number, status in ((1_999_999, 0), (2_000_000, 1), (2_000_000 + count - 1, 1), (2_000_000 + count, 0)):
        query = {"filters[workflowed_object_id]": str(number)}
        assert len(legacy.get("/rest/v1.0/workflow_instances", **query)) == status


def test_the_emulator_imports_nothing_else_of_the_package():
    folder = Path(package.__file__).parent
    for file in folder.rglob("*.py"):
        depth = len(file.relative_to(folder).parts)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= depth, file.name
                assert "airflow" not in (node.module or ""), file.name
            if isinstance(node, ast.Import):
                assert not [name for name in node.names if "airflow" in name.name], file.name
