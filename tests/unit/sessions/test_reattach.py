"""Which kernel a front end gets, and what becomes of one that it left."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.sessions.frontends import policy_of
from colab_bridge.sessions.reattach import (
    Candidate,
    Departure,
    Reattach,
    StartDecision,
    after_departure,
    on_start,
    same_front_end,
)

NOTEBOOK = {"notebook": "/p/a.ipynb"}


def candidate(kernel: str = "k1", **changes: Any) -> Candidate:
    values: dict[str, Any] = {"identity": NOTEBOOK, "busy": False, "attached": False, "vanished_at": 100.0, **changes}
    return Candidate(kernel=kernel, **values)


def start(setting: Reattach, *candidates: Candidate, now: float = 200.0, identity: Any = None) -> StartDecision:
    return on_start(setting, identity or NOTEBOOK, candidates, now=now, restart_window_s=5.0)


@pytest.mark.parametrize(
    ("setting", "busy", "expected"),
    [
        (Reattach.BUSY, False, Departure.REMOVE),
        (Reattach.BUSY, True, Departure.KEEP_UNTIL_IDLE),
        (Reattach.NEVER, False, Departure.REMOVE),
        (Reattach.NEVER, True, Departure.KEEP_UNTIL_IDLE),
        (Reattach.ALWAYS, False, Departure.KEEP),
        (Reattach.ALWAYS, True, Departure.KEEP),
    ],
)
def test_what_becomes_of_a_kernel_that_was_left(setting: Reattach, busy: bool, expected: Departure) -> None:
    assert after_departure(setting, busy=busy) is expected


@pytest.mark.parametrize(
    ("setting", "busy", "reuse"),
    [
        (Reattach.BUSY, True, "k1"),
        (Reattach.BUSY, False, None),
        (Reattach.ALWAYS, True, "k1"),
        (Reattach.ALWAYS, False, "k1"),
        (Reattach.NEVER, True, None),
        (Reattach.NEVER, False, None),
    ],
)
def test_which_kernel_a_later_start_gets(setting: Reattach, busy: bool, reuse: str | None) -> None:
    assert start(setting, candidate(busy=busy)) == StartDecision(reuse=reuse)


@pytest.mark.parametrize("setting", list(Reattach))
@pytest.mark.parametrize("busy", [True, False])
def test_a_start_within_seconds_is_a_restart_whatever_the_setting(setting: Reattach, busy: bool) -> None:
    decision = start(setting, candidate(busy=busy), now=105.0)
    assert decision == StartDecision(remove=("k1",), restarted=True)


def test_a_kernel_that_somebody_uses_is_left_alone() -> None:
    assert start(Reattach.ALWAYS, candidate(attached=True, vanished_at=None)) == StartDecision()


def test_a_kernel_that_nobody_ever_left_is_left_alone() -> None:
    assert start(Reattach.ALWAYS, candidate(vanished_at=None)) == StartDecision()


def test_a_busy_kernel_is_preferred_to_an_idle_one() -> None:
    both = [candidate("idle", vanished_at=150.0), candidate("busy", busy=True, vanished_at=110.0)]
    assert start(Reattach.ALWAYS, *both).reuse == "busy"


def test_two_nameless_notebooks_of_one_folder_are_not_mixed_up() -> None:
    nameless = {"front_end": "vscode", "cwd": "/p", "spec": "python3"}
    both = [candidate("a", identity=nameless, busy=True), candidate("b", identity=nameless, busy=True)]
    assert start(Reattach.BUSY, *both, identity=nameless) == StartDecision()
    assert start(Reattach.BUSY, both[0], identity=nameless).reuse == "a"


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ({"notebook": "/a"}, {"notebook": "/a"}, True),
        ({"notebook": "/a"}, {"notebook": "/b"}, False),
        ({"notebook": "/a", "connection_file": "c"}, {"notebook": "/b", "connection_file": "c"}, False),
        ({"connection_file": "c"}, {"connection_file": "c"}, True),
        ({"notebook": "/a", "connection_file": "c"}, {"connection_file": "c"}, True),
        ({"connection_file": "c"}, {"connection_file": "d"}, False),
        ({"connection_file": ""}, {"connection_file": ""}, False),
        ({}, {}, False),
        (
            {"front_end": "vscode", "cwd": "/p", "spec": "s"},
            {"front_end": "vscode", "cwd": "/p", "spec": "s"},
            True,
        ),
        (
            {"front_end": "vscode", "cwd": "/p", "spec": "s"},
            {"front_end": "vscode", "cwd": "/q", "spec": "s"},
            False,
        ),
        ({"front_end": "lab", "cwd": "/p"}, {"front_end": "vscode", "cwd": "/p"}, False),
    ],
)
def test_which_starts_belong_to_one_front_end(old: dict[str, str], new: dict[str, str], same: bool) -> None:
    assert same_front_end(old, new) is same


values = (
    st.none() | st.sampled_from(["/a", "/b", "vscode", "c", ""]) | st.integers() | st.lists(st.integers(), max_size=1)
)
identities = st.dictionaries(
    st.sampled_from(["notebook", "connection_file", "front_end", "cwd", "spec", "reattach", "restart_window_s"]), values
)
candidates = st.lists(
    st.builds(
        Candidate,
        kernel=st.uuids().map(str),
        identity=identities,
        busy=st.booleans(),
        attached=st.booleans(),
        vanished_at=st.none() | st.floats(0, 300),
    ),
    max_size=6,
)


@given(st.sampled_from(list(Reattach)), identities, candidates, st.floats(0, 400), st.floats(0, 60))
def test_no_decision_touches_a_kernel_that_is_used_or_of_another_front_end(
    setting: Reattach, identity: dict[str, Any], found: list[Candidate], now: float, window: float
) -> None:
    decision = on_start(setting, identity, found, now=now, restart_window_s=window)
    touched = {*decision.remove, *([decision.reuse] if decision.reuse else [])}
    for one in found:
        if one.kernel in touched:
            assert not one.attached
            assert one.vanished_at is not None
            assert same_front_end(one.identity, identity)
    assert len(touched) <= 1
    assert decision.restarted == bool(decision.remove)


@given(st.sampled_from(list(Reattach)), identities, candidates, st.floats(0, 400))
def test_the_order_of_the_kernels_does_not_decide(
    setting: Reattach, identity: dict[str, Any], found: list[Candidate], now: float
) -> None:
    left = [one.vanished_at for one in found]
    if len(set(left)) == len(left):
        one = on_start(setting, identity, found, now=now, restart_window_s=5.0)
        assert one == on_start(setting, identity, found[::-1], now=now, restart_window_s=5.0)


@given(identities)
def test_the_policy_of_any_identity_is_one_that_exists(identity: dict[str, Any]) -> None:
    setting, window = policy_of(identity)
    assert setting in Reattach
    assert isinstance(window, float)
