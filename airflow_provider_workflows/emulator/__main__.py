"""The command ``python -m airflow_provider_workflows.emulator``: runs the emulator until it is interrupted."""

from __future__ import annotations

import argparse
import ipaddress

from . import listening_socket, server
from .behaviour_flags import BEHAVIOUR_FLAGS
from .state import SEEDS


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_workflows.emulator",
        description="Emulate Procore Workflows and Workflowsoft on this machine.",
        epilog=_flags_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 (default) selects a free port")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default 127.0.0.1")
    parser.add_argument("--seed", default="default", choices=SEEDS, help="initial data; default: default")
    parser.add_argument(
        "--allow-remote",
        action="store_true",
        help="listen on an address that other machines can reach; the emulator does not authenticate control calls",
    )
    options = parser.parse_args(arguments)
    if not _is_loopback(options.host) and not options.allow_remote:
        parser.error(f"--host {options.host} can be reached from other machines; to allow that, add --allow-remote")
    with listening_socket(options.host, options.port) as listener:
        host = f"[{options.host}]" if ":" in options.host else options.host
        emulator = server(options.seed)
        print(f"Emulator ready: http://{host}:{listener.getsockname()[1]}", flush=True)
        try:
            emulator.run(sockets=[listener])
        except KeyboardInterrupt:
            pass  # Ctrl-C at a terminal; the server has already shut down


def _flags_table() -> str:
    lines = [f"  {name}: {flag.allowed}\n      {flag.why}" for name, flag in BEHAVIOUR_FLAGS.items()]
    return "\n".join(["behaviour flags (PATCH /_emulator/flags), default first:", *lines])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    main()
