"""The search for secrets finds them in every form, for one that finds nothing would be no promise."""

from __future__ import annotations

import base64
import html
import json
import sqlite3
from urllib.parse import quote, quote_plus

import pytest
import requests
from cryptography.fernet import Fernet

from tests.robustness.secrets.scanner import Scanner, database, files
from tests.robustness.secrets.servers import Hostile, OtherHost

SECRET = "4e1f09a7/+ü \"77b2c6d1'&%=9c0d5e33"

FORMS = {
    "clear": SECRET,
    "a part": SECRET[3:18],
    "url": quote(SECRET, safe=""),
    "form": quote_plus(SECRET),
    "json": json.dumps({"a": SECRET}),
    "json in json": json.dumps(json.dumps({"a": SECRET})),
    "html": html.escape(SECRET),
    "python": repr({"a": SECRET}),
    "bytes": repr(SECRET.encode()),
    **{
        f"base64 behind {before!r}": base64.b64encode(f"{before}{SECRET}".encode()).decode()
        for before in ("", "a", "ab", "somebody:")
    },
    "base64 for a URL": base64.urlsafe_b64encode(SECRET.encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_secret_is_found_in_every_format(form):
    assert Scanner({"it": SECRET}).find(f"INFO - Sent {form} to nobody".encode()) == {"it"}


def test_a_text_that_is_not_a_secret_is_not_found():
    assert Scanner({"it": SECRET}).find(b"INFO - 4e1f09a7 is no secret, and *** is none either") == set()


def test_files_and_all_tables_are_searched_decrypted_too(tmp_path):
    key = Fernet.generate_key()
    hidden = Fernet(key).encrypt(SECRET.encode()).decode()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "task.log").write_text(SECRET)
    with sqlite3.connect(tmp_path / "airflow.db") as connected:
        for table in ("trigger", "connection"):
            connected.execute(f'CREATE TABLE "{table}" (kwargs TEXT)')
            connected.execute(f'INSERT INTO "{table}" VALUES (?)', [hidden])
        connected.execute("CREATE TABLE xcom (value BLOB)")
        connected.execute("INSERT INTO xcom VALUES (?)", [json.dumps([SECRET]).encode()])
    connected.close()
    scanner = Scanner({"it": SECRET})

    assert scanner.find_in(files(tmp_path)) == ["airflow.db: it", "logs/task.log: it"]
    assert scanner.find_in(database(f"sqlite:///{tmp_path}/airflow.db", key.decode())) == [
        "trigger.kwargs, decrypted: it",
        "xcom.value: it",
    ]


def test_the_servers_record_a_token_and_repeat_it():
    with OtherHost() as other, Hostile(other) as hostile:
        headers = {"Authorization": f"Bearer {'t' * 20}"}
        requests.put(other.url, headers=headers, timeout=5)
        repeated = [
            requests.get(f"{hostile.url}/{kind}/any", headers=headers, timeout=5)
            for kind in ("unauthorized", "invalid", "failing")
        ]

    assert other.received[0]["headers"]["Authorization"] == headers["Authorization"]
    assert [(response.status_code, "t" * 20 in response.text) for response in repeated] == [
        (401, True),
        (422, True),
        (500, True),
    ]
