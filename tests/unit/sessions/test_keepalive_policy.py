"""When a runtime is kept and when it is given back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.sessions.keepalive import Facts, Limits, decide
from colab_bridge.sessions.meter import Meter, shares

LIMITS = Limits()
MINUTE, HOUR = 60.0, 3600.0


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("running", "acted_ago", "ran_ago", "pinged_ago", "do", "state"),
    [
        (True, 0, 0, None, "ping", "in use"),
        (True, 0, 0, 100, "wait", "in use"),
        (True, 0, 0, 240, "ping", "in use"),
        (False, 30 * MINUTE, 40 * MINUTE, 240, "ping", "idle"),
        (False, 61 * MINUTE, 61 * MINUTE, 240, "release", "released"),
        (False, 90 * MINUTE, 5 * MINUTE, 240, "ping", "idle"),
        (True, 90 * MINUTE, 90 * MINUTE, 240, "ping", "in use"),
        (True, 24 * HOUR, 0, 240, "wait", "left"),
        (False, 24 * HOUR, 10 * MINUTE, 240, "wait", "left"),
    ],
)
def test_a_machine_is_kept_while_it_is_used_and_released_when_it_is_forgotten(
    running: bool, acted_ago: float, ran_ago: float, pinged_ago: float | None, do: str, state: str
) -> None:
    now = 1e6
    facts = Facts(
        running=running,
        acted_at=now - acted_ago,
        ran_at=now - ran_ago,
        pinged_at=None if pinged_ago is None else now - pinged_ago,
    )
    found = decide(facts, LIMITS, now)
    assert (found.do, found.state) == (do, state)


def test_a_used_up_budget_ends_even_what_runs() -> None:
    facts = Facts(running=True, acted_at=0, ran_at=0, spent=5.01)
    found = decide(facts, Limits(budget=5), 10.0)
    assert found.do == "release"
    assert "budget of 5 compute units is used up (5.01)" in found.why


def test_without_an_idle_limit_nobody_pings_a_forgotten_machine_for_ever() -> None:
    facts = Facts(running=False, acted_at=0, ran_at=0)
    assert decide(facts, Limits(idle_s=0), 2 * HOUR).do == "wait"
    assert decide(facts, Limits(idle_s=0), 2 * HOUR).release_at is None


def test_it_is_said_when_an_idle_machine_will_be_released() -> None:
    assert decide(Facts(running=False, acted_at=100, ran_at=50, pinged_at=0), LIMITS, 200).release_at == 100 + HOUR
    assert decide(Facts(running=True, acted_at=100, ran_at=50), LIMITS, 200).release_at is None


@settings(deadline=None)
@given(
    running=st.booleans(),
    acted=st.floats(0, 1e6),
    ran=st.floats(0, 1e6),
    pinged=st.none() | st.floats(0, 1e6),
    more=st.floats(0, 1e6),
)
def test_a_ping_is_only_sent_for_use_within_the_limits_and_never_more_often_than_allowed(
    running: bool, acted: float, ran: float, pinged: float | None, more: float
) -> None:
    now = max(acted, ran, pinged or 0.0) + more
    found = decide(Facts(running=running, acted_at=acted, ran_at=ran, pinged_at=pinged), LIMITS, now)
    if found.do == "ping":
        assert running or now - max(acted, ran) < LIMITS.keep_s
        assert now - acted < LIMITS.most_s
        assert pinged is None or now - pinged >= LIMITS.every_s
    if found.do == "release":
        assert not running


def test_the_rate_of_an_account_is_divided_by_what_machines_are_known_to_cost() -> None:
    assert shares(3.0, {"a": "T4"}, 0, {}) == {"a": 3.0}
    assert shares(3.0, {"a": "T4", "b": ""}, 0, {"T4": 2.0, "": 0.5}) == {"a": 2.4, "b": 0.6}
    assert shares(3.0, {"a": "T4"}, 1, {"T4": 2.0}) == {"a": 2.0}
    assert shares(3.0, {"a": "T4"}, 1, {}) == {"a": 1.5}
    assert shares(3.0, {}, 2, {}) == {}


def test_units_are_added_up_over_time_and_kept_over_a_restart(tmp_path: Path) -> None:
    clock = Hand()
    meter = Meter(tmp_path / "usage.json", clock)
    assert meter.spent("a") is None
    meter.note("a", 2.0)
    clock.now += 1800
    assert meter.spent("a") == pytest.approx(1.0)
    meter.note("a", 4.0)
    meter.save()
    clock.now += 900
    again = Meter(tmp_path / "usage.json", clock)
    assert again.spent("a") == pytest.approx(2.0)
    assert again.rate("a") == 4.0
    again.forget("a")
    assert Meter(tmp_path / "usage.json", clock).spent("a") is None


def test_a_run_that_goes_on_over_a_restart_counts_from_its_beginning(tmp_path: Path) -> None:
    clock = Hand()
    meter = Meter(tmp_path / "usage.json", clock)
    meter.note("a", 2.0)
    clock.now += 1800
    meter.begin("run-1", "a")
    clock.now += 1800
    again = Meter(tmp_path / "usage.json", clock)
    again.begin("run-1", "a")  # the daemon that takes it over says so too
    clock.now += 1800
    assert again.run_units("run-1") == pytest.approx(2.0)
    assert again.end("run-1") == pytest.approx(2.0)
    assert again.run_units("run-1") is None
    assert Meter(tmp_path / "usage.json", clock).end("run-1") is None


def test_nothing_is_known_of_a_run_whose_session_was_never_measured(tmp_path: Path) -> None:
    meter = Meter(tmp_path / "usage.json", Hand())
    meter.begin("run-1", "a")
    assert meter.end("run-1") is None
    assert meter.spent("a") is None


def test_a_clock_that_goes_back_or_jumps_makes_no_use(tmp_path: Path) -> None:
    clock = Hand()
    meter = Meter(tmp_path / "usage.json", clock)
    meter.note("a", 1.0)
    clock.now -= 7200
    assert meter.spent("a") == 0.0
    clock.now += 30 * 86_400
    assert meter.spent("a") == pytest.approx(24.0)


def test_figures_that_cannot_be_read_begin_anew(tmp_path: Path) -> None:
    (tmp_path / "usage.json").write_text('{"v": 1, "sessions": {"a": 7}}')
    assert Meter(tmp_path / "usage.json", Hand()).spent("a") is None
