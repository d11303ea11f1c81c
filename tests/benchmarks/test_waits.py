"""The benchmark of waiting runs, small; and it says which targets are missed."""

from __future__ import annotations

import importlib.util
import json

import pytest

from benchmarks import neighbours, report, waits

SMALL = ["--waits", "20", "--interval", "1", "--polls", "1", "--first-delay", "0.1"]
HAS_STOCK = importlib.util.find_spec("airflow.providers.http") is not None


def measured(path, *kinds):
    waits.main([*SMALL, "--kinds", *kinds, "--json", str(path)])
    return {row["kind"]: row for row in json.loads(path.read_text())["measured"]}


@pytest.mark.slow
def test_benchmark_measures_waits_of_both_procore_apis(tmp_path, capsys):
    found = measured(tmp_path / "results.json", "v2", "legacy")

    assert {kind: row["requests_per_poll"] for kind, row in found.items()} == {"v2": 1, "legacy": 1}
    assert all(row["changed"] == 20 for row in found.values())
    assert all(0 < row["cpu_per_poll"] < 1 for row in found.values())
    assert all(0 < row["delay_p50"] <= row["delay_p99"] for row in found.values())
    assert "20 waits by Legacy" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not HAS_STOCK, reason="apache-airflow-providers-http is not installed; `make bench` does that")
def test_benchmark_measures_the_triggers_of_airflow(tmp_path):
    found = measured(tmp_path / "results.json", "http_sensor")

    assert found["http_sensor"]["changed"] == 20
    assert 15 < found["http_sensor"]["requests_per_poll"] <= 21


@pytest.mark.slow
def test_benchmark_measures_waits_beside_others(tmp_path):
    few = {"tenants": 2, "results": 1, "equal_waits": 2, "listed_instances": 6, "items": 60, "decisions": 4}
    sizes = neighbours.Sizes(**few, interval=1.0, legacy_instances=10, page_seconds=0.3, scopes=4)

    found = {target["name"]: target["value"] for target in waits.measure_neighbours(sizes, tmp_path)["targets"]}

    assert found["2 equal ProcoreResponseRequestedSensors: lists in each poll"] == 1
    assert found["4 scopes on one connection: look-ups of the connection"] == 1
    assert 1 <= found["4 scopes on one connection: sockets opened"] <= 4
    assert [name.partition(" ")[2].partition(":")[0] for name in found] == [
        "hung tenants",
        "equal ProcoreResponseRequestedSensors",
        "equal ProcoreResponseRequestedSensors",
        "scopes on one connection",
        "scopes on one connection",
        "v2 items beside a Legacy list of 0.3 s a page",
    ]


def test_benchmark_without_http_provider_skips_its_triggers(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert measured(tmp_path / "results.json", "http_sensor", "http_event") == {}
    assert "not installed, so its triggers are not measured" in capsys.readouterr().out


def result(kind, waits, **figures):
    good = {"requests_per_poll": waits, "cpu_per_poll": 0.01, "longest_stall": 0.001, "core_share_60": 0.01}
    return {"kind": kind, "waits": waits, "interval": 10.0, "memory": 10.0, "delay_p99": 10.0} | good | figures


def test_benchmark_names_the_targets_that_are_missed():
    stock = result("http_sensor", 1_000, cpu_per_poll=1.0, longest_stall=0.1)
    own = result("v2", 1_000, requests_per_poll=20.0, cpu_per_poll=0.2)
    large = result("legacy", 10_000, memory=251.0, delay_p99=11.5, longest_stall=0.051)

    found = waits.targets({"measured": [own, large, stock], "emulator_memory": 399.0})

    assert {target["name"]: target["value"] for target in found if not target["met"]} == {
        "Workflows v2: CPU at 1,000 waits, as a part of HttpSensorTrigger": 0.2,
        "Legacy: longest stall at 10,000 waits, in seconds, without full garbage collections": 0.051,
        "Legacy: MiB more than at rest at 10,000 waits": 251.0,
        "Legacy: delay p99 at 10,000 waits, beyond the interval": 1.5,
    }
    assert len(found) == 10


def test_targets_beside_others_are_shown_and_count():
    missed = {"name": "16 hung tenants", "value": 0.6, "limit": 0.5, "met": False}
    met = {"name": "Legacy", "value": 1, "limit": 1, "met": True}
    machine = {"date": "2026-01-01", "cores": 2, "python": "3.12", "airflow": "3.1.0", "http_provider": None}
    results = {"measured": [], "emulator_memory": None, "machine": machine, "targets": [met], "seconds": 1}

    beside = results | {"neighbours": {"date": "2026-01-02", "others": 0.0, "targets": [missed]}}

    assert report.all_targets(results | {"neighbours": None}) == [met]
    assert report.all_targets(beside) == [met, missed]
    assert "MISSED 16 hung tenants" in report.text(beside)


def test_chart_is_drawn_of_any_measures():
    row = result("v2", 1_000)
    assert "Workflows v2" in report.chart({"measured": [row]})
    assert "<polyline" in report.chart({"measured": [row, result("legacy", 100)]})
