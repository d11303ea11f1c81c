"""
Sessions and connections that record whether a failed call was sent.

An unsafe call may be sent again only if nothing of it was sent before. requests and urllib3 report a rejected proxy
tunnel or a failed TLS handshake like any other broken connection, so the connections here mark errors that occur before
the first byte of a call.
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
            super().connect()  # includes the tunnel through a proxy and the TLS handshake


class _Marking:
    """Mark an error that occurs before anything was sent."""

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
    """Hold the sockets to a server; several sessions can share one adapter."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # SOCKS pools have their own connection classes
            manager.pool_classes_by_scheme = POOLS
        return manager


class Session(requests.Session):
    """Send calls without following redirects."""

    def __init__(self) -> None:
        super().__init__()
        self.share(Adapter())

    def share(self, adapter: Adapter) -> None:
        """Use the sockets of an adapter."""
        for scheme in ("https://", "http://"):
            self.mount(scheme, adapter)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return None, because for a redirect requests would read its whole body without a size limit."""
        return None


def nothing_was_sent(error: BaseException) -> bool:
    """Return whether a call failed before anything of it was sent, so that even an unsafe call may be sent again."""
    before_sending = (requests.exceptions.ConnectTimeout, ConnectTimeoutError, NewConnectionError)
    return any(isinstance(cause, before_sending) or hasattr(cause, MARK) for cause in causes_of(error))


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """
    Yield an error and its causes; urllib3 stores some causes in ``reason`` and in the arguments.

    An exception that was merely being handled (``__context__``) is left out: it can be the error of an earlier call.
    """
    todo: list[Any] = [error]
    seen: set[int] = set()
    while todo:
        cause = todo.pop()
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            todo += [cause.__cause__, getattr(cause, "reason", None), *cause.args]
