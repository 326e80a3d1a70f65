"""The task that keeps runtimes of accounts, with an account that is scripted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colab_bridge.config.settings import Settings
from colab_bridge.errors import AuthError, QuotaError, RuntimeLostError, TransientError
from colab_bridge.model.account import AccountRuntime, Balance, Offers, Propagation
from colab_bridge.model.records import Run, RunKind, Session, SessionState
from colab_bridge.model.runtime import Endpoint, RuntimeHandle, RuntimeRequest
from colab_bridge.providers.registry import ProviderRegistry
from colab_bridge.sessions.keeping import RuntimeKeeper
from colab_bridge.sessions.meter import Meter

pytestmark = pytest.mark.anyio
T4 = {"kind": "gpu", "accelerator": "T4", "high_memory": False}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Account:
    """A provider with an account; pings fail as the test says."""

    name = "colab"

    def __init__(self, _folder: Path) -> None:
        self.pings = 0
        self.failure: Exception | None = None
        self.now = Balance(units=100.0, rate_hourly=2.0, runtimes=1)
        self.of: dict[str, Balance] = {}

    async def acquire(self, request: RuntimeRequest) -> RuntimeHandle:
        raise NotImplementedError

    async def attach(self, handle: RuntimeHandle, *, stale: Endpoint | None = None) -> Endpoint:
        raise NotImplementedError

    async def keep_alive(self, handle: RuntimeHandle) -> None:
        self.pings += 1
        if self.failure is not None:
            raise self.failure

    async def release(self, handle: RuntimeHandle) -> None:
        raise NotImplementedError

    def require_same_services(self, env: object) -> None:
        raise NotImplementedError

    async def account(self, account: str = "") -> str:
        return "me@example.com"

    async def runtimes(self, account: str = "") -> list[AccountRuntime]:
        return []

    async def adopt(self, runtime_id: str, account: str = "") -> RuntimeHandle:
        raise NotImplementedError

    async def release_id(self, runtime_id: str, account: str = "") -> None:
        raise NotImplementedError

    async def reconcile(self, in_use: frozenset[str]) -> list[AccountRuntime]:
        return []

    async def offers(self, account: str = "") -> Offers:
        return Offers()

    async def balance(self, account: str = "") -> Balance:
        return self.of.get(account, self.now)

    async def forward(self, handle: RuntimeHandle, port: int) -> Endpoint:
        raise NotImplementedError

    async def propagate(self, handle: RuntimeHandle, kind: str, *, dry_run: bool) -> Propagation:
        raise NotImplementedError

    def browser_url(self, handle: RuntimeHandle, *, file_id: str = "") -> str:
        raise NotImplementedError


class Desk:
    """A keeper with one session and everything that it does."""

    def __init__(self, tmp: Path, **colab: Any) -> None:
        self.clock = Hand()
        self.session = Session(
            name="s",
            project="/p",
            provider="colab",
            handle=RuntimeHandle(provider="colab", id="gpu-1", data={"hardware": T4}, label="Colab T4"),
            state=SessionState.READY,
        )
        self.sessions = [self.session]
        self.busy = False
        self.told: list[str] = []
        self.units: dict[str, float] = {}
        self.refuse_release: Exception | None = None
        providers = ProviderRegistry(tmp, {"colab": Account})
        account = providers.get("colab")
        assert isinstance(account, Account)
        self.account = account
        settings = Settings.model_validate({"colab": colab})
        self.keeper = RuntimeKeeper(
            lambda: self.sessions,
            providers,
            lambda _name: self.busy,
            lambda _project: settings,
            self.release,
            Meter(tmp / "usage.json", self.clock),
            self.clock,
            self.told.append,
            self.units.__setitem__,
        )

    async def release(self, name: str) -> None:
        if self.refuse_release is not None:
            raise self.refuse_release
        self.sessions = [each for each in self.sessions if each.name != name]

    async def minutes(self, count: int, each: Callable[[], None] = lambda: None) -> None:
        for _ in range(count):
            self.clock.now += 60
            each()
            await self.keeper.round()


async def test_a_machine_is_pinged_every_four_minutes_for_an_hour_and_then_released(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.keeper.round()
    await desk.minutes(59)
    assert desk.account.pings == 15
    assert desk.sessions
    await desk.minutes(2)
    assert desk.sessions == []
    assert desk.told == ["session s was ended, because it was idle for 60 min; released: Colab T4"]


async def test_what_runs_is_kept_until_nobody_was_there_for_too_long(tmp_path: Path) -> None:
    desk = Desk(tmp_path, most_hours=2.0)
    desk.busy = True
    await desk.keeper.round()
    await desk.minutes(2 * 60 - 1)
    pings = desk.account.pings
    await desk.minutes(60)
    assert (desk.account.pings, bool(desk.sessions)) == (pings, True)
    view = desk.keeper.view(desk.session)
    assert view is not None
    assert view["state"] == "left"


async def test_who_runs_something_now_and_then_keeps_the_machine(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    run = Run(id="run-1", session="s", kernel="k", kind=RunKind.CODE, title="t")
    await desk.keeper.round()
    for _ in range(10):
        await desk.minutes(30)
        desk.keeper.began(run, resumed=False)
        desk.keeper.ended(run, None)
    assert desk.sessions


async def test_a_budget_ends_the_session_within_a_minute_of_being_used_up(tmp_path: Path) -> None:
    desk = Desk(tmp_path, budget=1.0)
    desk.busy = True
    await desk.keeper.round()
    await desk.minutes(29)
    assert desk.sessions
    await desk.minutes(2)
    assert desk.sessions == []
    assert "budget of 1 compute units is used up" in desk.told[0]


async def test_units_are_counted_for_sessions_and_runs(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.keeper.round()
    await desk.minutes(15)
    run = Run(id="run-1", session="s", kernel="k", kind=RunKind.CODE, title="t")
    desk.keeper.began(run, resumed=False)
    await desk.minutes(30)
    desk.keeper.ended(run, None)
    await desk.minutes(5)
    assert desk.units == {run.id: pytest.approx(1.0)}
    assert desk.keeper.run_units(replace(run, units=1.0)) == 1.0
    view = desk.keeper.view(desk.session)
    assert view is not None
    assert view["units"] == pytest.approx(50 / 60 * 2)


async def test_two_refusals_are_told_once_and_one_is_not(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.account.failure = AuthError("no", hint="sign in")
    await desk.keeper.round()
    assert desk.told == []
    await desk.minutes(20)
    assert desk.told == ["session s cannot be kept alive: no; sign in"]
    desk.account.failure = None
    await desk.minutes(5)
    view = desk.keeper.view(desk.session)
    assert view is not None
    assert view["problem"] == ""


async def test_a_ping_that_could_not_be_sent_is_sent_again_at_the_next_round(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.account.failure = TransientError("no network", hint="wait")
    await desk.keeper.round()
    await desk.minutes(3)
    assert desk.account.pings == 4
    assert desk.told == []


async def test_a_machine_that_is_gone_is_told_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.account.failure = RuntimeLostError("it is gone", hint="run again")
    await desk.keeper.round()
    await desk.minutes(10)
    assert desk.told == ["session s: it is gone"]


async def test_a_release_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.refuse_release = TransientError("Colab does not answer", hint="colab-bridge stop gpu-1")
    await desk.keeper.round()
    await desk.minutes(61)
    assert "could not be released" in desk.told[-1]
    desk.refuse_release = None
    await desk.minutes(1)
    assert desk.sessions == []


async def test_limits_of_a_session_go_before_the_settings(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.sessions = [Session(**{**_fields(desk.session), "options": {"idle_minutes": 5.0}})]
    await desk.keeper.round()
    await desk.minutes(6)
    assert desk.sessions == []


async def test_a_balance_that_is_not_known_stops_nothing_and_of_a_budget_that_is_said_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path, budget=1.0)

    async def unknown(account: str = "") -> Balance:
        raise QuotaError("no", hint="later")

    desk.account.balance = unknown  # type: ignore[method-assign]
    await desk.keeper.round()
    await desk.minutes(30)
    assert desk.account.pings
    view = desk.keeper.view(desk.session)
    assert view is not None
    assert view["units"] is None
    (told,) = desk.told
    assert "its budget of 1 compute units cannot be kept" in told
    assert told.endswith("colab-bridge stop s")


async def test_the_sessions_of_two_accounts_are_measured_by_their_own_rates(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for name, account, rate in (("a", "ada@example.org", 2.0), ("b", "bob@example.org", 12.0)):
        handle = RuntimeHandle(provider="colab", id=f"gpu-{name}", data={"hardware": T4, "account": account})
        desk.sessions.append(Session(**{**_fields(desk.session), "name": name, "handle": handle}))
        desk.account.of[account] = Balance(units=50.0, rate_hourly=rate, runtimes=1)
    await desk.keeper.round()
    await desk.minutes(30)
    spent = {name: round(desk.keeper.meter.spent(name) or 0.0, 2) for name in ("s", "a", "b")}
    assert spent == {"s": 1.0, "a": 1.0, "b": 6.0}


def _fields(session: Session) -> dict[str, Any]:
    return {name: getattr(session, name) for name in session.__slots__}
