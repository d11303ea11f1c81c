"""An emulator in a process of its own: prints its address, and ends with its standard input."""

from __future__ import annotations

import sys

from airflow_provider_workflows.emulator import Emulator

with Emulator(sys.argv[1]) as emulator:
    print(emulator.url, flush=True)
    sys.stdin.read()
