"""The daemon's end of the channel to one agent: connects, resumes, and starts the agent anew when it has gone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import anyio

from colab_bridge.agent.process.preamble import MOST_BYTES, Preamble, PreambleError, parse_line
from colab_bridge.agent.process.wire import read_line
from colab_bridge.errors import ColabBridgeError, TransientError
from colab_bridge.kernels.agent_errors import AgentError, AgentHeldError, AgentUnavailableError, one_line
from colab_bridge.kernels.agent_socket import Dialer, Wire
from colab_bridge.kernels.agent_traffic import LinkStream, LinkStreamHandler, NotifyCallback, Traffic
from colab_bridge.kernels.link_rules import reconnect_delays
from colab_bridge.ports.upstream import LinkState

__all__ = ["AgentLink", "AgentStatus", "LinkStream", "LinkStreamHandler"]

log = logging.getLogger(__name__)

_GREETING_S = 6.0
_HELLO_S = 10.0
_GOODBYE_S = 2.0
#: Seconds until another look at an agent that somebody else holds.
_HELD_S = 15.0
#: Seconds until another try where no agent can be had, and after each broken rule: doubled each time up to the second.
_NONE_FIRST_S = 60.0
_MOST_PAUSE_S = 900.0
_FAULT_FIRST_S = 1.0
#: A connection that lasted this long was a good one: the next wait starts small again.
_STABLE_S = 2.0
_FORGIVE_S = 600.0
_MOST_REPLACED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """How the link to an agent is.

    Attributes:
        mode: Way to the agent: ``tunnel`` (stdin of the doorman kernel, or its own socket), ``control`` (control
            channel of the doorman kernel), ``none`` (no agent on this runtime).
        state: ``CONNECTED`` when calls go through now; ``GONE`` only with mode ``none``.
        text: One line for people, empty when all is well.
        held_by: Label of the other daemon that holds the agent, or empty.
        info: The answer of ``agent.hello``, empty before the first connection.
    """

    mode: Literal["tunnel", "control", "none"]
    state: LinkState
    text: str = ""
    held_by: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)


class AgentLink:
    """Keeps one channel to one agent over any number of connections.

    Args:
        dial: Makes connections to the agent.
        owner: Id of this daemon; the same over its restarts.
        label: ``user@host`` of this daemon, shown to others whom the agent refuses.
        clock: Seconds of a clock that never goes back.
        backoff: Makes an iterator of seconds to wait between tries, started anew after a connection that held.
    """

    def __init__(
        self,
        dial: Dialer,
        owner: str,
        label: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        backoff: Callable[[], Iterator[float]] = reconnect_delays,
    ) -> None:
        self._dial = dial
        self._owner = owner
        self._label = label
        self._clock = clock
        self._backoff = backoff
        self._delays = backoff()
        self._status = AgentStatus(mode=dial.mode, state=LinkState.CONNECTING)
        self._on_status: Callable[[AgentStatus], None] = lambda _status: None
        self._subscribers: list[tuple[str, NotifyCallback]] = []
        self._traffic: Traffic | None = None
        self._error: AgentHeldError | AgentError | None = None
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()
        self._take = False
        self._ended = False
        self._replaced = self._nones = self._faults = self._defects = 0
        self._faulted_at = float("-inf")
        self._hello: asyncio.Task[None] | None = None

    @property
    def status(self) -> AgentStatus:
        """How the link is now."""
        return self._status

    @property
    def error(self) -> AgentHeldError | AgentError | None:
        """Why there is no agent, where that is definite: another daemon holds it, or none can be had."""
        return self._error

    def give_up(self, why: str) -> None:
        """Tell everybody that there is no agent any more.

        Args:
            why: One sentence for people. Whoever calls has ended :meth:`run`.
        """
        self._note_none(AgentUnavailableError(why))

    # -- for its users

    async def run(self, on_status: Callable[[AgentStatus], None]) -> None:
        """Keep the link up until cancelled; the lease is given back then.

        Args:
            on_status: Called on the event loop with each change.
        """
        self._on_status = on_status
        self._ended = False
        try:
            while True:
                pause_s = await self._connect_safely()
                with anyio.move_on_after(pause_s):
                    await self._hurry.wait()
                self._hurry.clear()
        finally:
            self._ended = True
            if self._hello is not None:
                self._hello.cancel()
            if self._traffic is not None:
                self._traffic.close("the daemon has ended the link")
                self._traffic.pump.settle()
                self._traffic.pump.stop()

    async def ready(self, timeout_s: float) -> AgentStatus:
        """Wait for the first definite answer (connected, held by another, or none possible), at most so long.

        Returns:
            The status at that moment.
        """
        with anyio.move_on_after(timeout_s):
            while not self._is_definite():
                await self._wait_change()
        return self._status

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        *,
        deadline_s: float = 10.0,
        bulk: bool = False,
        compress: bool = False,
    ) -> tuple[Mapping[str, Any], bytes]:
        """Call a service of the agent; waits for the link too. Cancelling the task withdraws the call.

        Args:
            method: ``<service>.<verb>``.
            params: JSON object.
            payload: Binary part, at most 2 MiB.
            deadline_s: Seconds until the call ends with the code ``deadline``.
            bulk: Let interactive traffic go first.
            compress: Compress the payload.

        Returns:
            Result and payload.

        Raises:
            AgentError: it failed; ``code_name`` says how.
        """
        begun = self._clock()
        try:
            with anyio.fail_after(deadline_s):
                while not self._may_call():
                    if self._error is not None:
                        code = "held" if isinstance(self._error, AgentHeldError) else "none"
                        raise AgentError(code, self._error.message, hint=self._error.hint)
                    await self._wait_change()
        except TimeoutError:
            raise AgentError("deadline", self._status.text or "there was no connection to the agent in time") from None
        assert self._traffic is not None
        left_s = max(0.001, deadline_s - (self._clock() - begun))
        return await self._traffic.call(method, params, payload, deadline_s=left_s, bulk=bulk, compress=compress)

    def open_stream(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        handler: LinkStreamHandler,
        bulk: bool = False,
        resume_from: int = 1,
        compress: bool = False,
    ) -> LinkStream:
        """Open a stream; may be done before the link is up (16 streams then, 64 later).

        Args:
            name: What the service knows it by.
            params: For the service; a small JSON object.
            handler: Is told what happens.
            bulk: Let interactive traffic go first, in both directions.
            resume_from: Number of the first message wanted: the durable cursor + 1.
            compress: Compress what this side sends.

        Raises:
            AgentError: too many streams are open, or the link has ended.
        """
        if self._ended:
            raise AgentError("closed", "the link to the agent has ended")
        return self._current_traffic().open_stream(
            name, params, handler, bulk=bulk, resume_from=resume_from, compress=compress
        )

    def on_notify(self, prefix: str, callback: NotifyCallback) -> Callable[[], None]:
        """Call ``callback(method, params, payload)`` for notifications whose method starts with ``prefix``.

        Returns:
            Ends that; to be called once.
        """
        entry = (prefix, callback)
        self._subscribers.append(entry)
        return lambda: self._subscribers.remove(entry)

    def take_over(self) -> None:
        """Take the agent from the daemon that holds it, at the next connection, which is made at once."""
        self._take = True
        self._hurry.set()

    def retry_now(self) -> None:
        """Try at once, where the link waits before another try."""
        self._hurry.set()

    # -- one connection after the other

    async def _connect_safely(self) -> float:
        """Do the same as ``_connect_once``, and survive a defect in it: kernels without an agent are worse."""
        try:
            return await self._connect_once()
        except Exception:
            log.exception("the link to the agent failed")
            self._dial.start_over()
            self._tell(LinkState.RECONNECTING, "the link to the agent failed; the daemon's log says how")
            self._defects += 1
            return _doubled(_FAULT_FIRST_S, self._defects)

    async def _connect_once(self) -> float:
        """Make a connection, carry it to its end, and return the seconds to wait before the next one."""
        try:
            wire = await self._dial.dial()
        except AgentUnavailableError as error:
            return self._note_none(error)
        except ColabBridgeError as error:
            self._tell(LinkState.RECONNECTING, error.message)
            return next(self._delays)
        try:
            answer, rest = await self._greet(wire)
        except TransientError as error:
            await wire.aclose()
            self._dial.start_over()
            self._tell(LinkState.RECONNECTING, error.message)
            return next(self._delays)
        except BaseException:
            await wire.aclose()
            raise
        self._nones = 0
        if answer.get("ok") is True:
            return await self._carry(wire, rest)
        await wire.aclose()
        return self._note_refusal(answer)

    async def _greet(self, wire: Wire) -> tuple[dict[str, Any], bytes]:
        preamble = Preamble(owner=self._owner, label=self._label, take=self._take, want=self._dial.content_hash)
        try:
            with anyio.fail_after(_GREETING_S):
                await wire.write(preamble.to_line())
                line, rest = await read_line(wire.read, MOST_BYTES)
        except TimeoutError:
            raise TransientError(f"the agent did not answer within {_GREETING_S:.0f} s") from None
        if not line and not rest:
            raise TransientError(wire.why or "the agent hung up before it answered")
        try:
            return parse_line(line), rest
        except PreambleError as error:
            raise TransientError(f"what answers is no agent: {error}") from error

    async def _carry(self, wire: Wire, rest: bytes) -> float:
        self._replaced = 0
        self._take = False
        self._error = None
        traffic = self._current_traffic()
        begun = self._clock()
        carrying = asyncio.create_task(traffic.pump.carry(wire, rest))
        try:
            reason = await asyncio.shield(carrying)
        except asyncio.CancelledError:
            traffic.close("the daemon has ended the link")
            with anyio.move_on_after(_GOODBYE_S, shield=True):
                await asyncio.wait({carrying})
            carrying.cancel()
            raise
        if self._clock() - begun >= _STABLE_S:
            self._delays = self._backoff()
        return self._note_end(traffic, one_line(reason) or wire.why or "the connection to the agent broke")

    def _current_traffic(self) -> Traffic:
        if self._traffic is None or self._traffic.is_over:
            self._traffic = Traffic(self._clock, self._subscribers, self._linked)
        return self._traffic

    def _linked(self, resumed: bool) -> None:
        if resumed and self._status.info:
            self._tell(LinkState.CONNECTED, _degraded(self._status.info))
            return
        if self._hello is not None:
            self._hello.cancel()
        self._hello = asyncio.create_task(self._ask_hello())
        self._announce()

    async def _ask_hello(self) -> None:
        traffic = self._current_traffic()
        info: Mapping[str, Any] = {}
        try:
            info, _payload = await traffic.call(
                "agent.hello", None, b"", deadline_s=_HELLO_S, bulk=False, compress=False
            )
        except AgentError as error:
            log.info("agent said no hello", extra={"why": error.message})
        if traffic.is_up:
            self._status = replace(self._status, info=info)
            self._tell(LinkState.CONNECTED, _degraded(info))

    # -- what is told

    def _note_none(self, error: AgentUnavailableError) -> float:
        self._error = error
        self._status = AgentStatus(mode="none", state=LinkState.GONE, text=error.message)
        self._announce()
        self._nones += 1
        return _doubled(_NONE_FIRST_S, self._nones)

    def _note_refusal(self, answer: Mapping[str, Any]) -> float:
        code = answer.get("code")
        if code == "held":
            self._error = AgentHeldError(
                one_line(answer.get("owner_label"), 100), _number(answer.get("since")), _number(answer.get("heard"))
            )
            self._tell(LinkState.RECONNECTING, self._error.message, held_by=self._error.holder or "another daemon")
            return _HELD_S
        if code == "replaced":
            self._dial.start_over()
            self._replaced += 1
            self._tell(LinkState.RECONNECTING, "the agent is being replaced by this version")
            return 0.0 if self._replaced <= _MOST_REPLACED else next(self._delays)
        self._tell(
            LinkState.RECONNECTING, f"the agent refuses the connection: {one_line(code, 50) or 'without a reason'}"
        )
        return next(self._delays)

    def _note_end(self, traffic: Traffic, reason: str) -> float:
        if not traffic.fault:
            self._tell(LinkState.RECONNECTING, reason)
            return next(self._delays)
        now = self._clock()
        self._faults = self._faults + 1 if now - self._faulted_at < _FORGIVE_S else 1
        self._faulted_at = now
        self._dial.start_over()
        self._tell(LinkState.RECONNECTING, traffic.fault)
        return _doubled(_FAULT_FIRST_S, self._faults)

    def _tell(self, state: LinkState, text: str, *, held_by: str = "") -> None:
        if state is LinkState.RECONNECTING and not self._status.info and not held_by:
            state = LinkState.CONNECTING
        if not held_by and isinstance(self._error, AgentHeldError) and state is not LinkState.CONNECTED:
            held_by = self._error.holder
        before = self._status
        self._status = replace(before, mode=self._dial.mode, state=state, text=text, held_by=held_by)
        if self._status != before:
            self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self._on_status(self._status)

    async def _wait_change(self) -> None:
        await self._changed.wait()

    def _is_definite(self) -> bool:
        return self._status.state is LinkState.CONNECTED or self._error is not None

    def _may_call(self) -> bool:
        """Whether the channel has had a peer, so that it takes calls also while the connection is being repaired."""
        traffic = self._traffic
        if self._error is not None or traffic is None or traffic.is_over:
            return False
        return traffic.is_up or traffic.has_linked


def _degraded(info: Mapping[str, Any]) -> str:
    sentences = info.get("degraded")
    return "; ".join(one_line(each) for each in sentences[:3])[:400] if isinstance(sentences, list) else ""


def _doubled(first_s: float, times: int) -> float:
    return min(first_s * 2.0 ** min(times - 1, 20), _MOST_PAUSE_S)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
