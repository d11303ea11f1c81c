"""
PostgreSQL and Redis on this machine, until the block ends; for the runs with many tasks at once.

``python -m tests.support.engines`` only installs PostgreSQL where it is missing.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.live_airflow import free_ports

POSTGRESQL, REDIS = "postgresql", "redis-server"  # packages of Debian
READY_WITHIN = 30.0  # seconds


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL with an empty database; yield its URL."""
    (port,) = free_ports(1)
    with folder("live-postgresql-") as place:
        owner = ["runuser", "-u", pwd.getpwuid(place.stat().st_uid).pw_name, "--"] if os.geteuid() == 0 else []

        def call(program: str, *arguments: str) -> None:
            command = [*owner, program_of(program, POSTGRESQL), *arguments]
            done = subprocess.run(
                command, cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr.decode()[-2000:]}")

        data = str(place / "data")
        call("initdb", "-A", "trust", "-U", "airflow", "-D", data)
        # What a power cut would do to it is not what is tried here.
        options = f"-p {port} -k {place} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=300"
        call("pg_ctl", "-w", "-D", data, "-l", str(place / "log"), "-o", options, "start")
        try:
            call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "airflow", "airflow")
            yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}/airflow"
        finally:
            call("pg_ctl", "-w", "-D", data, "-m", "fast", "stop")


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Run a Redis that stores nothing on disk; yield its URL."""
    program = program_of("redis-server", REDIS)
    (port,) = free_ports(1)
    with folder("live-redis-") as place:
        command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(place)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait(READY_WITHIN)


def program_of(name: str, package: str) -> str:
    """Return the path of a program; root installs Debian's package of it where it is missing."""
    found = _path_of(name)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-q"], check=True)
        subprocess.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", package], check=True)
        found = _path_of(name)
    if found is None:
        raise SystemExit(f"The program {name} is missing. Install it; in Debian it is in the package {package}.")
    return found


def _path_of(name: str) -> str | None:
    # On Debian the programs of PostgreSQL's server are not on the PATH.
    of_the_server = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(of_the_server[-1]) if of_the_server else shutil.which(name)


@contextlib.contextmanager
def folder(prefix: str) -> Iterator[Path]:
    """Yield a folder; for root, of another user, because PostgreSQL does not run as root."""
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        if os.geteuid() == 0:
            shutil.chown(name, "nobody")
        yield Path(name)


if __name__ == "__main__":
    program_of("initdb", POSTGRESQL)
