"""Which Airflow the tests run on."""

from __future__ import annotations

from airflow import __version__
from packaging import version

AIRFLOW = version.parse(__version__).release[:2]
