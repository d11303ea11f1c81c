"""
The connections that the polls of an event loop share.

All polls of one server and user share a :class:`Channel`: its threads, sockets and rate limiter. All polls over one
Airflow connection share a :class:`SharedConnection`: its lookup and its hooks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.exceptions import AuthenticationError, ConnectionFailed, RateLimited, WorkflowsError
from airflow_provider_workflows.polling.rate_limiter import RateLimiter
from airflow_provider_workflows.rules.look_ups import LookUps
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.settings import triggerer_count

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.base import FoundConnection, WorkflowsHook

log = logging.getLogger(__name__)
Result = TypeVar("Result")

MAX_THREADS = 2  # per channel: while a slow request blocks one thread, the other serves the other calls
MAX_CONSECUTIVE_REJECTIONS = 5  # 429s of one call, after which the poll cycle ends
MIN_LOGGED_BLOCK_SECONDS = 60.0


class SharedHook:
    """
    Share a hook between threads, and close it when it is dropped and its last call has ended.

    :param hook: The hook, whose connection was looked up.
    """

    def __init__(self, hook: WorkflowsHook):
        self.client = hook.client
        self._counted = hook.client.sent
        self._hook = hook
        self._lock = Lock()
        self._calls = 0
        self._is_dropped = False

    def run(self, function: Callable[[Any], Result]) -> Result:
        """Call a function with the hook, in a worker thread."""
        with self._lock:
            if self._is_dropped:
                raise ConnectionFailed("The Airflow connection was changed before the request was sent")
            self._calls += 1
        try:
            with documented_form():
                return function(self._hook)
        finally:
            with self._lock:
                self._calls -= 1
                is_last = self._is_dropped and not self._calls
            if is_last:
                self._hook.close()

    def take_sent(self) -> int:
        """Return how many requests were sent since the last call; concurrent calls share the client's count."""
        sent = self.client.sent - self._counted
        self._counted += sent
        return sent

    def drop(self) -> None:
        """Close the hook now, or when the calls that are running have ended."""
        with self._lock:
            self._is_dropped = True
            is_used = bool(self._calls)
        if not is_used:
            self._hook.close()


class Channel:
    """
    Run the calls of all polls of one server and user, in its own threads and within the rate limit.

    :param server: Address of the server, for the log.
    :param adapter: HTTP adapter whose sockets the clients of all hooks share.
    """

    def __init__(self, server: str, adapter: Any):
        self.server = server
        self.adapter = adapter
        self.limiter = RateLimiter(triggerer_count())
        self.users = 0  # shared connections that use this channel
        self.blocked = ""  # message of the 429 that the next call waits for
        self._free = asyncio.Semaphore(MAX_THREADS)
        self._threads: ThreadPoolExecutor | None = None
        self._block_is_logged = False

    async def call(self, shared: SharedHook, function: Callable[[Any], Result], tags: dict[str, str]) -> Result:
        """
        Call a function with a hook, in a thread; the function usually sends one request.

        If the server rate-limits the call, it is repeated as soon as the server allows that.

        :raises WorkflowsError: the error of the function; :class:`RateLimited` only after several consecutive 429s.
        """
        rejections = 0
        while True:
            async with self._free:
                await self.limiter.acquire()
                try:
                    result = await self._in_thread(shared, function, tags)
                except RateLimited as fault:
                    self._block(fault)
                    rejections += 1
                    if rejections == MAX_CONSECUTIVE_REJECTIONS:
                        raise
                except WorkflowsError:
                    self._unblock()
                    raise
                else:
                    self._unblock()
                    return result

    async def _in_thread(self, shared: SharedHook, function: Callable[[Any], Result], tags: dict[str, str]) -> Result:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix=f"workflows-poll-{self.server}")
        try:
            return await asyncio.wrap_future(self._threads.submit(shared.run, function))
        finally:
            sent = shared.take_sent()
            self.limiter.record(sent, shared.client.rate)
            version_compat.count("workflows.requests", sent, **tags)

    def _block(self, fault: RateLimited) -> None:
        seconds = self.limiter.record_rejected(fault)
        self.blocked = str(fault)
        if seconds > MIN_LOGGED_BLOCK_SECONDS and not self._block_is_logged:
            self._block_is_logged = True
            log.warning("Polling %s is rate-limited, will continue in %.0f s: %s", self.server, seconds, fault)

    def _unblock(self) -> None:
        self.limiter.record_success()
        self.blocked = ""
        self._block_is_logged = False

    def close(self) -> None:
        """End the threads; a thread that waits for a response ends when it arrives."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


class SharedConnection:
    """
    Look up one Airflow connection for all polls that use it, and share their hooks.

    :param conn_id: Id of the connection.
    :param channels: The channels of this event loop, by server and user.
    """

    def __init__(self, conn_id: str, channels: dict[object, Channel]):
        self.conn_id = conn_id
        self.users = 0  # polls
        self.channel: Channel | None = None
        self._channels = channels
        self._found: FoundConnection | None = None
        self._look_ups = LookUps()
        self._hooks: dict[Hashable, SharedHook] = {}
        self._looking_up = asyncio.Lock()

    async def call(
        self,
        key: Hashable,
        open_hook: Callable[[], WorkflowsHook],
        function: Callable[[Any], Result],
        tags: dict[str, str],
    ) -> Result:
        """
        Call a function with a hook; after a rejected sign-in call it again if the connection was changed.

        :param key: Identifies the hook among those of the connection.
        :param open_hook: Creates the hook, without looking up the connection.
        """
        shared, channel = await self._prepare(key, open_hook)
        try:
            return await channel.call(shared, function, tags)
        except AuthenticationError:
            if not self._look_ups.request(time.monotonic()):
                raise
            renewed, channel = await self._prepare(key, open_hook)
            if renewed is shared:
                raise
        except ConnectionFailed:
            self._look_ups.request(time.monotonic())  # before the next call
            raise
        return await channel.call(renewed, function, tags)

    async def _prepare(self, key: Hashable, open_hook: Callable[[], WorkflowsHook]) -> tuple[SharedHook, Channel]:
        # In a thread, because creating the first hook imports the HTTP client, which would block the event loop.
        new = None if key in self._hooks else await asyncio.get_running_loop().run_in_executor(None, open_hook)
        async with self._looking_up:
            await self._look_up()
            assert self._found is not None
            if key not in self._hooks:
                hook = new or open_hook()
                await hook.prepare(self._found)
                self._hooks[key] = SharedHook(hook)
                self._join(hook)
            assert self.channel is not None
            return self._hooks[key], self.channel

    async def _look_up(self) -> None:
        """Look up the connection at most every 15 minutes, because a lookup in a triggerer is expensive."""
        from airflow_provider_workflows.hooks.base import find_connection  # which imports the HTTP client

        if self._found is not None and not self._look_ups.is_due(time.monotonic()):
            return
        self._look_ups.start(time.monotonic())
        try:
            found = await find_connection(self.conn_id)
        except WorkflowsError as fault:
            # An unavailable secrets backend looks like a missing connection, so the known one is used for a while.
            if self._found is None or not self._look_ups.may_fail(time.monotonic()):
                raise
            log.warning(
                "Looking up connection %r failed, polling continues with the one known before: %s", self.conn_id, fault
            )
            return
        self._look_ups.succeed(time.monotonic())
        if self.channel is not None:
            self.channel.limiter.reset()
        if not found.is_same_as(self._found):
            self._found = found
            self._drop_hooks()

    def _join(self, hook: WorkflowsHook) -> None:
        """Join the channel of the hook's server and user, and share its sockets."""
        account = hook.account
        channel = self._channels.get(account)
        if channel is None:
            channel = self._channels[account] = Channel(hook.client.base_url, _adapter())
        if channel is not self.channel:
            self._leave()
            self.channel = channel
            channel.users += 1
        channel.limiter.configure(hook.requests_per_hour)
        hook.client.share_sockets(channel.adapter)

    def _leave(self) -> None:
        channel, self.channel = self.channel, None
        if channel is None:
            return
        channel.users -= 1
        if not channel.users:
            channel.close()
            for account in [account for account, known in self._channels.items() if known is channel]:
                del self._channels[account]

    def _drop_hooks(self) -> None:
        hooks, self._hooks = self._hooks, {}
        for shared in hooks.values():
            shared.drop()

    def requests_remaining(self, key: Hashable) -> int | None:
        """Return the number of requests that the server's last rate limit headers leave, or None."""
        shared = self._hooks.get(key)
        return None if shared is None or shared.client.rate is None else shared.client.rate.remaining

    def close(self) -> None:
        self._drop_hooks()
        self._leave()


async def in_new_thread(call: Callable[..., Result], *args: Any) -> Result:
    """Run a blocking call in a thread of its own, where neither it nor another call delays the other."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="workflows")
    try:
        return await asyncio.wrap_future(thread.submit(call, *args))
    finally:
        thread.shutdown(wait=False)


def _adapter() -> Any:
    from airflow_provider_workflows.client.transport import Adapter  # which imports the HTTP client

    return Adapter(pool_maxsize=MAX_THREADS)


@dataclass
class LoopState:
    """Store the polls and connections of one event loop: a triggerer has one, ``dag.test()`` one for each trigger."""

    polls: dict[tuple[Hashable, ...], Any] = field(default_factory=dict)
    connections: dict[str, SharedConnection] = field(default_factory=dict)
    channels: dict[object, Channel] = field(default_factory=dict)
