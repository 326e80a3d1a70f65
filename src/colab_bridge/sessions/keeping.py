"""Keeps the runtimes of accounts as :mod:`.keepalive` decides, and counts what they use. One task of the daemon."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio

from colab_bridge.config.settings import Settings
from colab_bridge.errors import AuthError, ColabBridgeError, RuntimeLostError, TransientError, UserError
from colab_bridge.model.records import KernelPurpose, KernelRecord, Run, Session
from colab_bridge.ports.account import AccountProvider
from colab_bridge.ports.clock import Clock
from colab_bridge.providers.registry import ProviderRegistry
from colab_bridge.sessions.keepalive import Decision, Facts, Limits, decide
from colab_bridge.sessions.meter import Meter, shares
from colab_bridge.wire.message import RawMessage

__all__ = ["RuntimeKeeper"]

log = logging.getLogger(__name__)

#: Seconds between two looks; a budget is kept to that accuracy, and a forgotten machine is found within it.
ROUND_S = 15.0
#: Seconds between two questions for the account's rate, as Google's own extension asks.
BALANCE_S = 60.0
_PING_LIMIT_S = 30.0
#: Refusals in a row after which the user is told.
_TELL_AFTER = 2


@dataclass(slots=True)
class _Kept:
    acted_at: float
    ran_at: float
    pinged_at: float | None = None
    refusals: int = 0
    decision: Decision | None = None
    told: str = ""
    unmetered: bool = False


class RuntimeKeeper:
    """Looks after the runtimes behind which stands an account.

    Args:
        sessions: Returns all sessions.
        providers: Where runtimes come from.
        busy: Tells whether anything executes in a session, by name.
        settings: Returns the settings that count for a project.
        release: Ends a session and its runtime, by name.
        meter: Counts what sessions use.
        clock: Time source.
        tell: Takes one sentence for people.
        keep_units: Keeps what a run has used, by its id.
    """

    def __init__(
        self,
        sessions: Callable[[], list[Session]],
        providers: ProviderRegistry,
        busy: Callable[[str], bool],
        settings: Callable[[str], Settings],
        release: Callable[[str], Awaitable[object]],
        meter: Meter,
        clock: Clock,
        tell: Callable[[str], None],
        keep_units: Callable[[str, float], None],
    ) -> None:
        self._sessions = sessions
        self._providers = providers
        self._busy = busy
        self._settings = settings
        self._release = release
        self.meter = meter
        self._clock = clock
        self._tell = tell
        self._keep_units = keep_units
        self._kept: dict[str, _Kept] = {}
        self._asked_at = -math.inf

    async def run(self, ready: anyio.Event) -> None:
        """Look after all runtimes until cancelled. A defect in one round must not end the next ones.

        Args:
            ready: Set when what runs is known.
        """
        await ready.wait()
        while True:
            try:
                await self.round()
            except Exception:
                log.exception("a round of keeping runtimes failed")
            await anyio.sleep(ROUND_S)

    async def round(self) -> None:
        """Look at each runtime once, and do what is due."""
        held = [each for each in self._sessions() if each.handle is not None and self._account(each) is not None]
        for gone in self._kept.keys() - {session.name for session in held}:
            del self._kept[gone]
            self.meter.forget(gone)
        if not held:
            return
        await self._measure(held)
        async with anyio.create_task_group() as tasks:
            for session in held:
                tasks.start_soon(self._look_after, session)

    # -- what is told to us --------------------------------------------------------------------------------------

    def acted(self, session: str) -> None:
        """Take note that a person did something with a session."""
        self._note(session).acted_at = self._clock.time()

    def state_changed(self, kernel: KernelRecord, _hub: object) -> None:
        """Take note that a kernel of a session begins or ends something."""
        if kernel.session in self._kept:
            self._kept[kernel.session].ran_at = self._clock.time()
            if kernel.purpose is KernelPurpose.FRONTEND:
                self.acted(kernel.session)

    def began(self, run: Run, *, resumed: bool) -> None:
        """Take note of a run: somebody asked for it, and what it uses is counted from here."""
        if not resumed:
            self.acted(run.session)
        if any(each.name == run.session and self._account(each) is not None for each in self._sessions()):
            self.meter.begin(run.id, run.session)

    def message(self, run_id: str, message: RawMessage) -> None:
        """Do nothing: what a run says costs nothing."""

    def answered(self, run_id: str) -> None:
        """Do nothing: the run goes on, which is seen anyway."""

    def ended(self, run: Run, outcome: object) -> None:
        """Take note of the end of a run, and keep what it has used."""
        del outcome
        if (units := self.meter.end(run.id)) is not None:
            self._keep_units(run.id, units)

    # -- what is asked of us -------------------------------------------------------------------------------------

    def run_units(self, run: Run) -> float | None:
        """Return the compute units that a run has used; None when unknown, and where no account pays."""
        return run.units if run.units is not None else self.meter.run_units(run.id)

    def view(self, session: Session) -> dict[str, Any] | None:
        """Return how the runtime of a session is kept, as the API shows it; None where no account stands behind."""
        kept = self._kept.get(session.name)
        if kept is None or kept.decision is None:
            return None
        limits = self._limits(session)
        return {
            "state": kept.decision.state,
            "why": kept.decision.why,
            "pinged_at": kept.pinged_at,
            "release_at": kept.decision.release_at,
            "problem": kept.told,
            "units": self.meter.spent(session.name),
            "rate_hourly": self.meter.rate(session.name),
            "budget": limits.budget or None,
        }

    # -- within --------------------------------------------------------------------------------------------------

    def _account(self, session: Session) -> AccountProvider | None:
        provider = self._providers.get(session.provider)
        return provider if isinstance(provider, AccountProvider) else None

    def _note(self, session: str) -> _Kept:
        now = self._clock.time()
        return self._kept.setdefault(session, _Kept(acted_at=now, ran_at=now))

    def _limits(self, session: Session) -> Limits:
        colab = self._settings(session.project).colab
        budget, idle = session.options.get("budget"), session.options.get("idle_minutes")
        return Limits(
            every_s=colab.keep_alive_s,
            keep_s=colab.keep_alive_minutes * 60,
            idle_s=(float(idle) if idle is not None else colab.idle_minutes) * 60,
            most_s=colab.most_hours * 3600,
            budget=float(budget) if budget is not None else colab.budget,
        )

    async def _measure(self, held: list[Session]) -> None:
        """Ask for the rate of each account once a minute, and note what each session has of it."""
        if self._clock.monotonic() - self._asked_at < BALANCE_S:
            return
        self._asked_at = self._clock.monotonic()
        payers: dict[tuple[str, str], list[Session]] = {}
        for session in held:
            payers.setdefault((session.provider, session.account), []).append(session)
        async with anyio.create_task_group() as tasks:
            for (_, name), sessions in payers.items():
                tasks.start_soon(self._measure_account, name, sessions)
        self.meter.save()

    async def _measure_account(self, name: str, held: list[Session]) -> None:
        account = self._account(held[0])
        assert account is not None  # the caller has looked
        try:
            with anyio.fail_after(_PING_LIMIT_S):
                balance = await account.balance(name)
                rates = (await account.offers(name)).rates if balance.rate_hourly else {}
        except (ColabBridgeError, TimeoutError) as error:
            log.info("balance not known", extra={"why": str(error)})
            return self._unmetered(held)
        if balance.rate_hourly is None:
            return self._unmetered(held)
        others = max(0, (balance.runtimes or len(held)) - len(held))
        kinds = {session.name: _kind(session) for session in held}
        for session, rate in shares(balance.rate_hourly, kinds, others, rates).items():
            self.meter.note(session, rate)
        return None

    def _unmetered(self, held: list[Session]) -> None:
        """Say once of each budget that it cannot be kept; what was known goes on counting at its last rate."""
        for session in held:
            kept, budget = self._note(session.name), self._limits(session).budget
            if budget > 0 and self.meter.rate(session.name) is None and not kept.unmetered:
                kept.unmetered = True
                self._tell(
                    f"session {session.name}: Google does not tell what it uses, so its budget of {budget:g} compute "
                    f"units cannot be kept; end it with: colab-bridge stop {session.name}"
                )

    async def _look_after(self, session: Session) -> None:
        kept, limits, now = self._note(session.name), self._limits(session), self._clock.time()
        running = self._busy(session.name)
        if running:
            kept.ran_at = now
        spent = self.meter.spent(session.name)
        facts = Facts(
            running=running, acted_at=kept.acted_at, ran_at=kept.ran_at, pinged_at=kept.pinged_at, spent=spent
        )
        kept.decision = decide(facts, limits, now)
        if kept.decision.do == "release":
            await self._give_back(session, kept.decision.why)
        elif kept.decision.do == "ping":
            await self._ping(session, kept)

    async def _give_back(self, session: Session, why: str) -> None:
        what = session.handle.label if session.handle else session.provider
        try:
            await self._release(session.name)
        except ColabBridgeError as error:
            self._tell(f"session {session.name}: {why}, but it could not be released: {error.message}; {error.hint}")
            return
        self._tell(f"session {session.name} was ended, because {why}; released: {what}")

    async def _ping(self, session: Session, kept: _Kept) -> None:
        account, handle = self._account(session), session.handle
        if account is None or handle is None:
            return
        try:
            with anyio.fail_after(_PING_LIMIT_S):
                await account.keep_alive(handle)
        except (TransientError, TimeoutError) as error:
            log.info("not pinged", extra={"session": session.name, "why": str(error)})
            return  # at the next round again
        except RuntimeLostError as error:
            self._say(kept, f"session {session.name}: {error.message}")
        except (AuthError, UserError) as error:
            kept.refusals += 1
            if kept.refusals >= _TELL_AFTER:
                self._say(kept, f"session {session.name} cannot be kept alive: {error.message}; {error.hint}")
        except ColabBridgeError as error:
            log.warning("not pinged", extra={"session": session.name, "why": error.message})
        else:
            kept.refusals, kept.told = 0, ""
        kept.pinged_at = self._clock.time()

    def _say(self, kept: _Kept, sentence: str) -> None:
        if kept.told != sentence:
            kept.told = sentence
            self._tell(sentence)


def _kind(session: Session) -> str:
    """Return the kind of a session's machine, in the words in which rates are kept."""
    data = session.handle.data.get("hardware") if session.handle is not None else None
    if not isinstance(data, dict):
        return "?"
    return f"{data.get('accelerator') or ''}{', high memory' if data.get('high_memory') else ''}"
