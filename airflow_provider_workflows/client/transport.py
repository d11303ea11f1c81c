"""
How calls get onto the wire: sessions and connections that know whether anything was sent.

An unsafe call may be sent again only where nothing was sent before. requests and urllib3 report a refused proxy tunnel
or a failed TLS handshake like any other broken connection, so the connections here mark what fails before the first
byte of a call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

MARK = "_nothing_was_sent"


class _PlainConnection(HTTPConnection):
    def connect(self) -> None:
        with _Marking():
            super().connect()


class _TlsConnection(HTTPSConnection):
    def connect(self) -> None:
        with _Marking():
            super().connect()  # with the tunnel through a proxy, and the handshake


class _Marking:
    """Marks an error as one that came before anything was sent."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            setattr(error, MARK, True)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


POOLS = {"http": _PlainPool, "https": _TlsPool}


class Adapter(HTTPAdapter):
    """Holds the sockets to a server; several sessions can share one."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # whose pools connect in their own way
            manager.pool_classes_by_scheme = POOLS
        return manager


class Session(requests.Session):
    """Sends calls; follows no redirect, and does not even look at one."""

    def __init__(self) -> None:
        super().__init__()
        self.share(Adapter())

    def share(self, adapter: Adapter) -> None:
        """Use the sockets of an adapter."""
        for scheme in ("https://", "http://"):
            self.mount(scheme, adapter)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Name none: to look at a redirect, requests would read its whole body, however large."""
        return None


def nothing_was_sent(error: BaseException) -> bool:
    """Tell whether a call failed before anything of it was sent, so that any call may go again."""
    before_sending = (requests.exceptions.ConnectTimeout, ConnectTimeoutError, NewConnectionError)
    return any(isinstance(cause, before_sending) or hasattr(cause, MARK) for cause in causes_of(error))


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """
    Yield an error and what it came from; urllib3 keeps some of it in ``reason`` and in arguments.

    What merely was being handled when it was raised is left out: that can be the error of an earlier call.
    """
    todo: list[Any] = [error]
    seen: set[int] = set()
    while todo:
        cause = todo.pop()
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            todo += [cause.__cause__, getattr(cause, "reason", None), *cause.args]
