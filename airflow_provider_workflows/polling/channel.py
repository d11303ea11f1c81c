"""One server and sign-in as all polls of an event loop use it: look-up, sockets, threads, rate limiter."""

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
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.settings import triggerer_count

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.base import FoundConnection, WorkflowsHook

log = logging.getLogger(__name__)
Result = TypeVar("Result")

MAX_THREADS = 2  # of a channel: one may hang in a slow request while the other goes on
CONNECTION_TTL_SECONDS = 900.0
MAX_STALE_SECONDS = 3600.0  # for which a connection is used on that cannot be looked up again
MIN_LOOK_UP_SECONDS = 60.0  # between two look-ups because of a rejected sign-in
MAX_CONSECUTIVE_REJECTIONS = 5  # of one call by the rate limit, until the poll cycle gives up
MIN_LOGGED_BLOCK_SECONDS = 60.0


class HeldHook:
    """
    A hook that is closed once it is dropped and no thread uses it any more.

    :param hook: The hook, its connection looked up.
    """

    def __init__(self, hook: WorkflowsHook):
        self.client = hook.client
        self._counted = hook.client.sent
        self._hook = hook
        self._lock = Lock()
        self._calls = 0
        self._is_dropped = False

    def run(self, function: Callable[[Any], Result]) -> Result:
        """Call a function with the hook; for a thread."""
        with self._lock:
            if self._is_dropped:
                raise ConnectionFailed("The connection was changed before the call was made")
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
        """Return how many requests were sent since the last time; calls at the same time share the client's count."""
        sent = self.client.sent - self._counted
        self._counted += sent
        return sent

    def drop(self) -> None:
        """Close the hook now, or after the calls that are under way."""
        with self._lock:
            self._is_dropped = True
            is_used = bool(self._calls)
        if not is_used:
            self._hook.close()


class Channel:
    """
    Makes the calls of all polls of one server and sign-in, on threads of its own and within the rate limit.

    :param server: For the log.
    :param adapter: The sockets that the clients of all its hooks share.
    """

    def __init__(self, server: str, adapter: Any):
        self.server = server
        self.adapter = adapter
        self.limiter = RateLimiter(triggerer_count())
        self.users = 0  # connections that lead to it
        self.blocked = ""  # the words of the rejection by the rate limit that the next call waits for
        self._free = asyncio.Semaphore(MAX_THREADS)
        self._threads: ThreadPoolExecutor | None = None
        self._block_is_logged = False

    async def call(self, held: HeldHook, function: Callable[[Any], Result], tags: dict[str, str]) -> Result:
        """
        Call a function with a hook, in a thread; with one request as a rule.

        Where the rate limit rejects the call it is made again as soon as the server allows it.

        :raises WorkflowsError: what the function raises; :class:`RateLimited` after several consecutive times.
        """
        rejections = 0
        while True:
            async with self._free:
                await self.limiter.acquire()
                try:
                    result = await self._in_thread(held, function, tags)
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

    async def _in_thread(self, held: HeldHook, function: Callable[[Any], Result], tags: dict[str, str]) -> Result:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix=f"workflows-poll-{self.server}")
        try:
            return await asyncio.wrap_future(self._threads.submit(held.run, function))
        finally:
            sent = held.take_sent()
            self.limiter.record(sent, held.client.rate)
            version_compat.count("workflows.requests", sent, **tags)

    def _block(self, fault: RateLimited) -> None:
        seconds = self.limiter.record_rejected(fault)
        self.blocked = str(fault)
        if seconds > MIN_LOGGED_BLOCK_SECONDS and not self._block_is_logged:
            self._block_is_logged = True
            log.warning("Polling %s is rate-limited, will go on in %.0f s: %s", self.server, seconds, fault)

    def _unblock(self) -> None:
        self.limiter.record_success()
        self.blocked = ""
        self._block_is_logged = False

    def close(self) -> None:
        """End the threads; one that still waits for a response ends after it."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


class SharedConnection:
    """
    Looks one Airflow connection up for all polls over it, and holds their hooks.

    :param conn_id: Id of the connection.
    :param channels: The channels of this event loop, by server and sign-in.
    """

    def __init__(self, conn_id: str, channels: dict[object, Channel]):
        self.conn_id = conn_id
        self.users = 0  # polls
        self.channel: Channel | None = None
        self._channels = channels
        self._found: FoundConnection | None = None
        self._found_at = float("-inf")
        self._looked_up_at = float("-inf")
        self._hooks: dict[Hashable, HeldHook] = {}
        self._looking_up = asyncio.Lock()

    async def call(
        self,
        key: Hashable,
        open_hook: Callable[[], WorkflowsHook],
        function: Callable[[Any], Result],
        tags: dict[str, str],
    ) -> Result:
        """
        Call a function with a hook; after a rejected sign-in once more, if the connection has changed meanwhile.

        :param key: What tells the connection's hooks apart.
        :param open_hook: Makes the hook, without looking the connection up.
        """
        held, channel = await self._ready(key, open_hook)
        try:
            return await channel.call(held, function, tags)
        except AuthenticationError:
            if time.monotonic() - self._looked_up_at < MIN_LOOK_UP_SECONDS:
                raise
            self._found_at = float("-inf")
            renewed, channel = await self._ready(key, open_hook)
            if renewed is held:
                raise
        return await channel.call(renewed, function, tags)

    async def _ready(self, key: Hashable, open_hook: Callable[[], WorkflowsHook]) -> tuple[HeldHook, Channel]:
        # Importing the HTTP client is no work for the event loop; a hook that is there already is not made again.
        new = None if key in self._hooks else await asyncio.get_running_loop().run_in_executor(None, open_hook)
        async with self._looking_up:
            await self._look_up()
            assert self._found is not None
            if key not in self._hooks:
                hook = new or open_hook()
                await hook.prepare(self._found)
                self._hooks[key] = HeldHook(hook)
                self._join(hook)
            assert self.channel is not None
            return self._hooks[key], self.channel

    async def _look_up(self) -> None:
        """Look the connection up at most every quarter of an hour: in a triggerer that is expensive."""
        from airflow_provider_workflows.hooks.base import find_connection  # which imports the HTTP client

        age = time.monotonic() - self._found_at
        if self._found is not None and age < CONNECTION_TTL_SECONDS:
            return
        self._looked_up_at = time.monotonic()
        try:
            found = await find_connection(self.conn_id)
        except WorkflowsError as fault:
            # What works still is good enough while a secrets backend is away, which looks like no connection.
            if self._found is None or CONNECTION_TTL_SECONDS + MAX_STALE_SECONDS < age < float("inf"):
                raise
            log.warning("Polling goes on with connection %r as it was. %s", self.conn_id, fault)
            return
        self._found_at = time.monotonic()
        if self.channel is not None:
            self.channel.limiter.reset()
        if not found.is_same_as(self._found):
            self._found = found
            self._drop_hooks()

    def _join(self, hook: WorkflowsHook) -> None:
        """Take the channel of the hook's server and sign-in, and its sockets."""
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
        for held in hooks.values():
            held.drop()

    def requests_remaining(self, key: Hashable) -> int | None:
        """Return how many requests the server said were left, or None."""
        held = self._hooks.get(key)
        return None if held is None or held.client.rate is None else held.client.rate.remaining

    def close(self) -> None:
        self._drop_hooks()
        self._leave()


async def in_new_thread(call: Callable[..., Result], *args: Any) -> Result:
    """Run a blocking call in a thread of its own, so that it delays no other call and no other call delays it."""
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
    """What belongs to one event loop: a triggerer has one for life, ``dag.test()`` makes one for each trigger."""

    polls: dict[tuple[Hashable, ...], Any] = field(default_factory=dict)
    connections: dict[str, SharedConnection] = field(default_factory=dict)
    channels: dict[object, Channel] = field(default_factory=dict)
