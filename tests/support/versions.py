"""Which Airflow the tests run on, and what a failure on it means."""

from __future__ import annotations

import sys

from airflow import __version__
from packaging import version

AIRFLOW = version.parse(__version__).release[:2]


def report_failure(airflow_version: str) -> int:
    """
    Print what failed tests mean to the weekly workflow, in GitHub's form.

    :return: The exit code: 0 on a pre-release of Airflow, which may still change, and 1 on a release.
    """
    if version.parse(airflow_version).is_prerelease:
        print(f"::warning::Tests failed on Airflow {airflow_version}. It is a pre-release, so the workflow goes on.")
        return 0
    print(f"::error::Tests failed on Airflow {airflow_version}, which is released.")
    return 1


if __name__ == "__main__":
    sys.exit(report_failure(__version__))
