"""A DAG that gives a secret away, to show that the search finds it."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pendulum
from airflow.sdk import BaseHook, dag, task


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False)
def planted():
    @task
    def give_away() -> list[list[str]]:
        secret = BaseHook.get_connection("planted").password
        print("The first half is", secret[: len(secret) // 2])
        print("For a URL it is", quote(secret, safe=""))
        print("HTTP Basic would be", base64.b64encode(f"somebody:{secret}".encode()).decode())
        return [["name", "secret"], ["planted", secret]]

    give_away()


planted()
