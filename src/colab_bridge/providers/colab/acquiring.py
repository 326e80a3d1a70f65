"""How a runtime is asked for: a state and what was seen in, a new state and the next step out. Pure.

The rules that the machine keeps, whatever is answered:

* One request has one UUID, under which Google gives at most one runtime. Before each question (POST) it is looked
  (GET) whether the runtime is there already, because an answer may have been lost on its way.
* A question whose answer was lost is not asked again before the service had time to finish it.
* A card that was not asked for is released, never run on.
* A blocked account, a used-up quota and a sign-in that is refused end it at once.

::

    LOOK --ticket--> ASK --granted--> judge --as asked--> DONE
     ^  \\--granted--> judge             |  \\--wrong card--> RELEASE --> next rung
     |                                  +-- no capacity, not entitled --> next rung
     +------------- WAIT <--------------+-- no answer, failure -------> look again
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from colab_bridge.errors import ColabBridgeError, QuotaError
from colab_bridge.model.hardware import Hardware
from colab_bridge.providers.colab.classify import PASSING, Failure, Verdict, to_error
from colab_bridge.providers.colab.values import Assignment, Grant, Ticket

__all__ = [
    "Action",
    "Ask",
    "Count",
    "Counted",
    "Done",
    "Event",
    "Fail",
    "Look",
    "Release",
    "Released",
    "State",
    "Wait",
    "Waited",
    "begin",
    "judge_grant",
    "step",
]

#: Seconds that trouble with the service or the line may last before a request is given up.
TROUBLE_S: Final = 180.0
#: Seconds in which a question without an answer may still be carried out. Creation has a limit of 180 s at the service,
#: but a machine is bound to its request long before it is ready.
SETTLE_S: Final = 45.0
#: The same after an answer that says that the service failed.
SETTLE_AFTER_ERROR_S: Final = 8.0
_FIRST_WAIT_S = 1.0
_MOST_TROUBLE_WAIT_S = 15.0
#: Between two rounds through the ladder while a machine is waited for; each is tried a few hundred times a day at most.
_FIRST_ROUND_S = 10.0
_MOST_ROUND_S = 120.0


# -- what was seen -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counted:
    """How many runtimes the account has; None when that could not be found out."""

    runtimes: int | None


@dataclass(frozen=True, slots=True)
class Released:
    """A runtime was given back, or why not."""

    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Waited:
    """The pause is over."""


Event = Ticket | Assignment | Failure | Counted | Released | Waited


# -- what to do ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """See whether the request has a runtime already."""

    hardware: Hardware
    attempt: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for it, with the ticket that the look gave."""

    hardware: Hardware
    attempt: int
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Wait:
    """Pause, then go on; ``why`` is for people, empty when it is short."""

    seconds: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """Find out how many runtimes the account has."""


@dataclass(frozen=True, slots=True)
class Release:
    """Give back a machine that was not asked for."""

    assignment: Assignment
    why: str


@dataclass(frozen=True, slots=True)
class Done:
    """The machine is ours; ``note`` tells what differs from the wish, empty when nothing does."""

    assignment: Assignment
    hardware: Hardware
    note: str = ""


@dataclass(frozen=True, slots=True)
class Fail:
    """It cannot be had. ``unsettled``: a question is still open, so a runtime may yet appear."""

    error: ColabBridgeError
    unsettled: bool = False


Action = Look | Ask | Wait | Count | Release | Done | Fail


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a request stands.

    Attributes:
        ladder: What to try, best first.
        wait_s: Seconds that a free machine may be waited for; 0 for not at all.
        began_at: Seconds of a monotonic clock.
        rung: Index into the ladder.
        attempt: Tries that had a definite answer.
        excluded: Rungs that this account cannot have.
        failures: The latest refusal of each rung, for the message at the end.
        rounds: Times that the whole ladder was refused.
        troubles: Failures of line or service since the last definite answer to a question.
        trouble_since: When they began; None without one.
        open_since: When a question was sent whose answer was lost; None without one.
        settle_s: How long that one may still be carried out.
        last: The action whose result is awaited.
    """

    ladder: tuple[Hardware, ...]
    wait_s: float = 0.0
    began_at: float = 0.0
    rung: int = 0
    attempt: int = 0
    excluded: frozenset[int] = frozenset()
    failures: dict[int, Failure] = field(default_factory=dict)
    rounds: int = 0
    troubles: int = 0
    trouble_since: float | None = None
    open_since: float | None = None
    settle_s: float = 0.0
    last: Action | None = None

    @property
    def hardware(self) -> Hardware:
        """What is tried now."""
        return self.ladder[self.rung]


def begin(ladder: Sequence[Hardware], *, wait_s: float, now: float) -> tuple[State, Action]:
    """Return the first state and the first step.

    Args:
        ladder: What to try, best first; not empty.
        wait_s: Seconds that a free machine may be waited for.
        now: Seconds of a monotonic clock.
    """
    return _do(State(ladder=tuple(ladder), wait_s=wait_s, began_at=now), Look(ladder[0], 0))


def step(state: State, event: Event, *, now: float, jitter: float) -> tuple[State, Action]:
    """Decide what comes next.

    Args:
        state: From the step before.
        event: What came of that step's action.
        now: Seconds of a monotonic clock.
        jitter: Random number from 0 to 1, which spreads the pauses of many clients.
    """
    if isinstance(event, Assignment):
        return _granted(state, event)
    if isinstance(event, Waited):
        return _look(state)
    if isinstance(event, Ticket):
        return _ticket(state, event, now, jitter)
    if isinstance(event, Counted):
        return _counted(state, event, now, jitter)
    if isinstance(event, Released):
        return _released(state, event, now, jitter)
    return _failed(state, event, now, jitter)


def _do(state: State, action: Action) -> tuple[State, Action]:
    return replace(state, last=action), action


def _look(state: State) -> tuple[State, Action]:
    return _do(state, Look(state.hardware, state.attempt))


def _ticket(state: State, ticket: Ticket, now: float, jitter: float) -> tuple[State, Action]:
    if state.open_since is not None and now - state.open_since < state.settle_s:
        # The service answers again, yet what was asked may still be under way.
        seconds = min(_pause(state.troubles, _FIRST_WAIT_S, _MOST_TROUBLE_WAIT_S, jitter), state.settle_s)
        return _do(replace(state, troubles=state.troubles + 1), Wait(seconds))
    return _do(replace(state, open_since=None), Ask(state.hardware, state.attempt, ticket))


def _granted(state: State, assignment: Assignment) -> tuple[State, Action]:
    state = replace(state, open_since=None, troubles=0, trouble_since=None)
    wanted, grant = state.hardware, judge_grant(state.hardware, assignment.hardware)
    for rung, hardware in enumerate(state.ladder):
        # A lost answer may have been that of another rung.
        if grant.verdict != "wrong" or rung in state.excluded:
            break
        other = judge_grant(hardware, assignment.hardware)
        if other.verdict != "wrong":
            wanted, grant = hardware, other
    if grant.verdict == "wrong":
        return _do(state, Release(assignment, grant.sentence))
    return _do(state, Done(assignment, assignment.hardware or wanted, grant.sentence))


def judge_grant(wanted: Hardware, got: Hardware | None) -> Grant:
    """Compare what was asked for with what the service says that it gave; what it does not say cannot be wrong."""
    if got is None:
        return Grant(verdict="as asked")
    if (got.kind, got.accelerator) != (wanted.kind, wanted.accelerator):
        return Grant(verdict="wrong", sentence=f"asked for {_name(wanted)}, but Colab gave {_name(got)}")
    if wanted.high_memory and not got.high_memory:
        return Grant(verdict="other shape", sentence=f"{_name(got)} came with standard memory, not with more")
    return Grant(verdict="as asked")


def _name(hardware: Hardware) -> str:
    return hardware.accelerator or hardware.kind.upper()


def _released(state: State, event: Released, now: float, jitter: float) -> tuple[State, Action]:
    assert isinstance(state.last, Release)  # the driver answers what it was told to do
    wrong = state.last
    if event.failure is not None:
        error = to_error(
            event.failure,
            subject=f"{wrong.why}; it could not be released",
            hint=f"colab-bridge stop {wrong.assignment.id}",
        )
        return _do(state, Fail(error, unsettled=True))
    failures = {**state.failures, state.rung: Failure(verdict=Verdict.CAPACITY, detail=f"{wrong.why}; it was released")}
    return _next_rung(replace(state, failures=failures, attempt=state.attempt + 1), now, jitter)


def _failed(state: State, failure: Failure, now: float, jitter: float) -> tuple[State, Action]:
    asked = isinstance(state.last, Ask)
    if failure.verdict in PASSING:
        return _trouble(state, failure, now, jitter, asked=asked)
    if not asked:
        return _do(state, Fail(to_error(failure), unsettled=state.open_since is not None))
    failures = {**state.failures, state.rung: failure}
    state = replace(state, attempt=state.attempt + 1, failures=failures, troubles=0, trouble_since=None)
    if failure.verdict is Verdict.CAPACITY:
        return _next_rung(state, now, jitter)
    if failure.verdict is Verdict.NOT_ENTITLED:
        return _next_rung(replace(state, excluded=state.excluded | {state.rung}), now, jitter)
    if failure.verdict is Verdict.TOO_MANY:
        return _do(state, Count())
    return _do(state, Fail(to_error(failure, subject=_name(state.hardware))))


def _trouble(state: State, failure: Failure, now: float, jitter: float, *, asked: bool) -> tuple[State, Action]:
    since = now if state.trouble_since is None else state.trouble_since
    may_be_done = asked and failure.verdict in (Verdict.UNCERTAIN, Verdict.SERVER_ERROR)
    if may_be_done:
        settle_s = SETTLE_S if failure.verdict is Verdict.UNCERTAIN else SETTLE_AFTER_ERROR_S
        state = replace(state, open_since=now, settle_s=settle_s)
    if now - since >= TROUBLE_S:
        return _do(state, Fail(to_error(failure), unsettled=state.open_since is not None))
    seconds = max(
        _pause(state.troubles, _FIRST_WAIT_S, _MOST_TROUBLE_WAIT_S, jitter), min(failure.retry_after_s or 0.0, 60.0)
    )
    why = "" if state.troubles < 2 else f"{to_error(failure).message}; trying again in {seconds:.0f} s"
    return _do(replace(state, troubles=state.troubles + 1, trouble_since=since), Wait(seconds, why))


def _counted(state: State, event: Counted, now: float, jitter: float) -> tuple[State, Action]:
    if event.runtimes == 0:
        # There is nothing to end: the free tier refuses a card in this way after much use.
        refused = Failure(verdict=Verdict.QUOTA_TIME, detail="Colab answers as if there were too many runtimes")
        return _next_rung(replace(state, failures={**state.failures, state.rung: refused}), now, jitter)
    return _round_over(state, now, jitter, _too_many(event.runtimes))


def _too_many(runtimes: int | None) -> ColabBridgeError:
    has = f"it has {runtimes} already" if runtimes else "how many it has is not known"
    return QuotaError(
        f"Colab gives this account no further runtime; {has}",
        hint="see them with: colab-bridge ps --all; end one with: colab-bridge stop ID",
        code="CB-COLAB-002",
    )


def _next_rung(state: State, now: float, jitter: float) -> tuple[State, Action]:
    for rung in range(state.rung + 1, len(state.ladder)):
        if rung not in state.excluded:
            return _look(replace(state, rung=rung))
    return _round_over(state, now, jitter, _refusal(state))


def _refusal(state: State) -> ColabBridgeError:
    """Return one error for the whole ladder: that of the rung which a later try could still get."""
    names = ", ".join(_name(hardware) for hardware in state.ladder)
    by_weight = (Verdict.CAPACITY, Verdict.QUOTA_TIME, Verdict.TOO_MANY, Verdict.NOT_ENTITLED)
    found = sorted(state.failures.values(), key=lambda failure: by_weight.index(failure.verdict))
    return to_error(found[0], subject=names)


def _round_over(state: State, now: float, jitter: float, error: ColabBridgeError) -> tuple[State, Action]:
    """Wait and begin again at the best rung, where that may help and the time for it is not over."""
    left_s = state.began_at + state.wait_s - now
    open_rungs = [rung for rung in range(len(state.ladder)) if rung not in state.excluded]
    if left_s <= 0 or not open_rungs:
        return _do(state, Fail(error))
    seconds = min(_pause(state.rounds, _FIRST_ROUND_S, _MOST_ROUND_S, jitter), left_s)
    names = ", ".join(_name(state.ladder[rung]) for rung in open_rungs)
    why = f"{error.message}; trying {names} again in {_span(seconds)}, for {_span(left_s)} more"
    return _do(replace(state, rung=open_rungs[0], rounds=state.rounds + 1), Wait(seconds, why))


def _pause(number: int, first_s: float, most_s: float, jitter: float) -> float:
    """Return a pause that doubles up to a limit; a quarter of it is chance."""
    return min(first_s * 2.0 ** min(number, 10), most_s) * (0.75 + 0.25 * jitter)


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
