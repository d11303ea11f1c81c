"""Searches for secrets, or pieces of them, in everything that an Airflow deployment stores and shows."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from urllib.parse import quote, quote_plus

from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import LargeBinary, MetaData, Text, cast, create_engine, select
from sqlalchemy.pool import NullPool

PIECE = 12  # characters; what is shorter could be anything
STEP = 4  # of the search; every run of PIECE + STEP - 1 characters of a secret is found
POLL_SECONDS = 1.0  # seconds between two polls of what exists for a moment only
# Airflow stores them in here, encrypted. Decrypted they are the secrets themselves.
CONNECTIONS = "connection"


class Scanner:
    """
    Knows the secrets in every form in which they could be written down.

    :param secrets: The secrets by what they are called in a finding.
    """

    def __init__(self, secrets: Mapping[str, str]):
        self._pieces = {
            piece: name for name, secret in secrets.items() for form in forms(secret) for piece in pieces(form)
        }

    def find(self, content: bytes) -> set[str]:
        """Return the names of the secrets of which at least a piece is in a content."""
        known = self._pieces
        last = len(content) - PIECE
        windows = (content[at : at + PIECE] for at in chain(range(0, last, STEP), [max(last, 0)]))
        return {known[window] for window in windows if window in known}

    def find_in(self, contents: Iterable[tuple[str, bytes]]) -> list[str]:
        """Return a line for each content with a secret in it, sorted."""
        return sorted(f"{where}: {name}" for where, content in contents for name in self.find(content))


def forms(secret: str) -> set[bytes]:
    """Return a secret as it is, quoted for a URL, escaped for JSON, HTML and Python, and in base64."""
    escaped = json.dumps(secret)[1:-1]
    texts = {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        escaped,
        json.dumps(secret, ensure_ascii=False)[1:-1],
        json.dumps(escaped)[1:-1],
        html.escape(secret),
        repr(secret)[1:-1],
        repr(secret.encode())[2:-1],
    }
    plain = secret.encode()
    return {text.encode() for text in texts} | {plain.decode().encode("latin-1", "replace")} | set(_base64(plain))


def pieces(form: bytes) -> set[bytes]:
    """Return all pieces of a form, none of them so short that it could be something else."""
    if len(form) < PIECE + STEP - 1:
        raise ValueError("a secret that is too short to look for")
    return {form[at : at + PIECE] for at in range(len(form) - PIECE + 1)}


def _base64(plain: bytes) -> Iterator[bytes]:
    # Something may precede the secret, such as the login of HTTP Basic, and shift the letters.
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + plain)
        inner = encoded[0 if before == 0 else 4 : -4]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Return the content of every file in a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(folder)), path.read_bytes()


def database(url: str, fernet_key: str, only: str | None = None) -> Iterator[tuple[str, bytes]]:
    """
    Return every value of a database, those that Airflow has encrypted decrypted, too.

    :param url: Address of a PostgreSQL or SQLite database, as SQLAlchemy takes it.
    :param only: The one table to read. Default: all of them.
    """
    fernet = Fernet(fernet_key)
    engine = create_engine(url, poolclass=NullPool)
    schema = MetaData()
    schema.reflect(engine, only=None if only is None else [only], resolve_fks=False)
    with engine.connect() as connection:
        for table in schema.tables.values():
            columns = [
                column if isinstance(column.type, LargeBinary) else cast(column, Text) for column in table.columns
            ]
            for row in connection.execute(select(*columns)):
                for column, stored in zip(table.columns.keys(), row, strict=True):
                    if stored is None:
                        continue
                    value = stored.encode() if isinstance(stored, str) else bytes(stored)
                    yield f"{table.name}.{column}", value
                    if table.name != CONNECTIONS and (decrypted := _decrypted(fernet, value)) is not None:
                        yield f"{table.name}.{column}, decrypted", decrypted


def _decrypted(fernet: Fernet, value: bytes) -> bytes | None:
    try:
        return fernet.decrypt(value)
    except InvalidToken:
        return None


class Sampler:
    """
    Collects, while the ``with`` block lasts, what is there for a moment only.

    That are the arguments of all processes of this machine, and the triggers, whose rows go when they have fired.

    :param url: Address of Airflow's database.
    """

    def __init__(self, url: str, fernet_key: str):
        self.arguments: set[bytes] = set()
        self.triggers: set[tuple[str, bytes]] = set()
        self._url = url
        self._fernet_key = fernet_key
        self._leave = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._leave.set()
        self._thread.join()
        if self._failure is not None:
            raise RuntimeError("not all that was there for a moment was seen") from self._failure

    def _work(self) -> None:
        try:
            self._poll()
        except Exception as failure:  # raised when the block ends
            self._failure = failure

    def _poll(self) -> None:
        while not self._leave.wait(POLL_SECONDS):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):  # it has ended
                    self.arguments.add(process.read_bytes())
            self.triggers.update(database(self._url, self._fernet_key, "trigger"))
