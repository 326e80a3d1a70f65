"""The ways in to runtimes: kept in memory, renewed before they end, one renewal for all who want one.

A proxy token lives for an hour, whatever becomes of the runtime. So a refused token says nothing about the runtime:
only a listing that was answered does, and only the second one without it, some seconds after the first.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio

from colab_bridge.errors import ColabBridgeError, RuntimeLostError, TransientError
from colab_bridge.model.runtime import Endpoint, Secret
from colab_bridge.ports.clock import Clock
from colab_bridge.providers.colab.classify import PASSING, Failure, Verdict, to_error
from colab_bridge.providers.colab.foreign import jwt_claims
from colab_bridge.providers.colab.http import CLIENT_AGENT, CallFailedError
from colab_bridge.providers.colab.values import Assignment, Proxy

__all__ = ["PROXY_HEADER", "Ways", "endpoint_of"]

log = logging.getLogger(__name__)

PROXY_HEADER = "X-Colab-Runtime-Proxy-Token"
#: Seconds before its end at which a token is renewed; Google's own extension takes the same. For tokens that live
#: shorter than usual it is a fifth of their life.
_MARGIN_S = 300.0
_MARGIN_PART = 0.2
#: Seconds between the two listings that must lack a runtime before it counts as gone.
GONE_AFTER_S = 10.0
#: Seconds after which a listing that failed in passing is asked for again: it changes nothing, and a run waits for it.
_AGAIN_S = (0.5, 2.0)


def endpoint_of(proxy: Proxy, now: float) -> Endpoint:
    """Return the way in that a proxy gives.

    Args:
        proxy: From an answer.
        now: Unix seconds at which it came.
    """
    expires_at = now + proxy.ttl_s
    # What the token says about itself counts where it is earlier and makes sense by our clock.
    stated = jwt_claims(proxy.token.reveal()).number("exp")
    if stated is not None and now < stated < expires_at:
        expires_at = stated
    headers = {PROXY_HEADER: proxy.token, "X-Colab-Client-Agent": Secret(CLIENT_AGENT)}
    return Endpoint(base_url=proxy.url, headers=headers, expires_at=expires_at)


@dataclass(slots=True)
class _Way:
    endpoint: Endpoint
    renew_at: float


class Ways:
    """The ways in to the runtimes of one account over one control plane.

    Args:
        listing: Returns every runtime of the account, each with a new way in.
        clock: Time source.
        gone_after_s: Seconds between two listings that prove a loss.
        pause: Waits some seconds.
    """

    def __init__(
        self,
        listing: Callable[[], Awaitable[list[Assignment]]],
        clock: Clock,
        *,
        gone_after_s: float = GONE_AFTER_S,
        pause: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._listing = listing
        self._clock = clock
        self._gone_after_s = gone_after_s
        self._pause = pause
        self._ways: dict[str, _Way] = {}
        self._missing_since: dict[str, float] = {}
        self._renewing = anyio.Lock()

    def note(self, assignments: Sequence[Assignment]) -> None:
        """Keep the ways in that an answer has brought."""
        now = self._clock.time()
        for assignment in assignments:
            self._missing_since.pop(assignment.id, None)
            if assignment.proxy is not None:
                endpoint = endpoint_of(assignment.proxy, now)
                life_s = (endpoint.expires_at or now) - now
                margin_s = min(_MARGIN_S, life_s * _MARGIN_PART)
                self._ways[assignment.id] = _Way(endpoint, renew_at=now + life_s - margin_s)

    def forget(self, runtime: str) -> None:
        """Drop what is known about a runtime that was released."""
        self._ways.pop(runtime, None)
        self._missing_since.pop(runtime, None)

    async def get(self, runtime: str, stale: Endpoint | None = None) -> Endpoint:
        """Return a way in to a runtime.

        Args:
            runtime: Its id.
            stale: One that the runtime's proxy has just refused.

        Raises:
            RuntimeLostError: two listings lack the runtime.
            TransientError: whether it lives cannot be found out now.
            AuthError: the sign-in is refused.
        """
        if (known := self._usable(runtime, stale)) is not None:
            return known
        left_s = await self._renew(runtime, stale)
        if left_s > 0:
            await self._pause(left_s)
            left_s = await self._renew(runtime, stale)
        if runtime not in self._missing_since:
            return self._found(runtime)
        log.info("runtime gone", extra={"runtime": runtime})
        self._ways.pop(runtime, None)
        raise RuntimeLostError(
            f"the Colab runtime {runtime} is gone; Google lists it no more",
            hint="run the command again to get a new one; its variables are lost",
            code="CB-COLAB-020",
        )

    async def _renew(self, runtime: str, stale: Endpoint | None) -> float:
        """Renew all ways in, and return how many seconds must pass until a missing runtime counts as gone."""
        async with self._renewing:
            # Somebody else may have renewed it while we waited.
            if self._usable(runtime, stale) is not None:
                return 0.0
            try:
                found = await self.list_now()
            except TransientError:
                way = self._ways.get(runtime)
                if way is not None and stale is None and self._clock.time() < (way.endpoint.expires_at or 0.0):
                    return 0.0  # it still opens the door for some minutes
                raise
            if any(assignment.id == runtime for assignment in found):
                return 0.0
            now = self._clock.monotonic()
            return self._missing_since.setdefault(runtime, now) + self._gone_after_s - now

    def _usable(self, runtime: str, stale: Endpoint | None) -> Endpoint | None:
        way = self._ways.get(runtime)
        if way is None or self._clock.time() >= way.renew_at:
            return None
        if stale is not None and dict(stale.headers) == dict(way.endpoint.headers):
            return None
        return way.endpoint

    def _found(self, runtime: str) -> Endpoint:
        way = self._ways.get(runtime)
        if way is None or self._clock.time() >= (way.endpoint.expires_at or 0.0):
            raise TransientError(
                f"Colab lists the runtime {runtime}, but gives no way in to it",
                hint="try again in a minute; or open it in a browser: colab-bridge url --open",
                code="CB-COLAB-021",
            )
        return way.endpoint

    async def list_now(self) -> list[Assignment]:
        """Ask for all runtimes, keep the new ways in, and note which known ones are missing.

        Raises:
            ColabBridgeError: there was no answer; what is known stays as it is.
        """
        found = await self._listed()
        self.note(found)
        now = self._clock.monotonic()
        for runtime in self._ways.keys() - {assignment.id for assignment in found}:
            self._missing_since.setdefault(runtime, now)
        return found

    async def _listed(self) -> list[Assignment]:
        pauses = list(_AGAIN_S)
        while True:
            try:
                return await self._listing()
            except CallFailedError as error:
                if not pauses or not _soon_over(error.failure):
                    raise _unknown(error) from error
                log.info("listing failed, asked again", extra={"verdict": str(error.failure.verdict)})
                pause_s = pauses.pop(0)
                if error.failure.silent:
                    pauses.clear()  # a second silence has lasted long enough for whoever waits
            await self._pause(pause_s)


def _soon_over(failure: Failure) -> bool:
    # A list is there always, so that a 404 for it comes from something that stands before the service for a moment.
    return failure.verdict in PASSING | {Verdict.NOT_FOUND} and (failure.retry_after_s or 0.0) <= _AGAIN_S[-1]


def _unknown(error: CallFailedError) -> ColabBridgeError:
    failure = error.failure
    found = to_error(failure)
    if failure.verdict not in PASSING:
        return found
    return TransientError(
        f"whether the runtime lives is not known: {found.message}",
        hint=found.hint,
        code=found.code,
        retry_after_s=failure.retry_after_s,
    )
