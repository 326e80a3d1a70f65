"""The decisions on the way to a runtime, against a service that may do anything."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.errors import AuthError, QuotaError, TransientError, UserError
from colab_bridge.model.hardware import CPU, Hardware, parse_ladder
from colab_bridge.providers.colab import acquiring
from colab_bridge.providers.colab.acquiring import (
    Ask,
    Count,
    Counted,
    Done,
    Fail,
    Look,
    Release,
    Released,
    Wait,
    Waited,
)
from colab_bridge.providers.colab.classify import Failure, Verdict
from colab_bridge.providers.colab.values import Assignment, Ticket

LADDER = parse_ladder("A100,L4,T4", "gpu")
T4 = Hardware(kind="gpu", accelerator="T4")


def machine(hardware: Hardware | None = T4) -> Assignment:
    return Assignment(endpoint="gpu-1", hardware=hardware)


@dataclass
class Walk:
    """Feeds events to the machine and notes what it wants to do."""

    ladder: tuple[Hardware, ...] = LADDER
    wait_s: float = 0.0
    now: float = 1000.0
    seen: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state, self.action = acquiring.begin(self.ladder, wait_s=self.wait_s, now=self.now)

    def feed(self, *events: acquiring.Event) -> acquiring.Action:
        for event in events:
            self.seen.append(self.action)
            if isinstance(self.action, Wait) and isinstance(event, Waited):
                self.now += self.action.seconds
            self.state, self.action = acquiring.step(self.state, event, now=self.now, jitter=0.5)
        return self.action


def failed(verdict: Verdict) -> Failure:
    return Failure(verdict=verdict, call="assign")


def refused(action: acquiring.Action) -> Fail:
    assert isinstance(action, Fail)
    return action


def test_a_look_comes_before_the_question_and_what_is_granted_is_taken() -> None:
    walk = Walk((T4,))
    assert walk.action == Look(T4, 0)
    assert walk.feed(Ticket()) == Ask(T4, 0, Ticket())
    assert walk.feed(machine()) == Done(machine(), T4)


def test_a_runtime_that_is_there_already_is_taken_without_a_question() -> None:
    assert Walk((T4,)).feed(machine()) == Done(machine(), T4)


def test_no_capacity_leads_down_the_ladder_with_a_look_before_each_question() -> None:
    walk = Walk()
    assert walk.feed(Ticket(), failed(Verdict.CAPACITY)) == Look(LADDER[1], 1)
    assert walk.feed(Ticket(), failed(Verdict.CAPACITY)) == Look(T4, 2)
    assert walk.feed(Ticket(), machine()) == Done(machine(), T4)


def test_a_ladder_without_capacity_names_all_of_it_and_how_to_wait() -> None:
    walk = Walk()
    for _ in LADDER:
        walk.feed(Ticket(), failed(Verdict.CAPACITY))
    error = refused(walk.action).error
    assert isinstance(error, QuotaError)
    assert error.message.startswith("A100, L4, T4:")
    assert "--wait" in error.hint


def test_waiting_starts_again_at_the_best_rung_until_the_time_is_over() -> None:
    walk = Walk(wait_s=300.0)
    rounds = 0
    while not isinstance(walk.action, Fail):
        for _ in LADDER:
            walk.feed(Ticket(), failed(Verdict.CAPACITY))
        if isinstance(walk.action, Wait):
            assert "A100, L4, T4" in walk.action.why
            assert isinstance(walk.feed(Waited()), Look)
            assert walk.state.rung == 0
            rounds += 1
    assert rounds >= 3
    assert walk.now - 1000.0 <= 300.0


def test_a_card_that_the_account_may_not_have_is_not_asked_for_again() -> None:
    walk = Walk(wait_s=100.0)
    walk.feed(Ticket(), failed(Verdict.NOT_ENTITLED))
    walk.feed(Ticket(), failed(Verdict.CAPACITY), Ticket(), failed(Verdict.CAPACITY))
    assert isinstance(walk.action, Wait)
    assert "A100" not in walk.action.why.partition("trying ")[2]
    assert walk.feed(Waited()) == Look(LADDER[1], 3)


def test_when_no_rung_may_be_had_it_ends_at_once_although_there_is_time() -> None:
    walk = Walk((T4,), wait_s=1000.0)
    error = refused(walk.feed(Ticket(), failed(Verdict.NOT_ENTITLED))).error
    assert isinstance(error, UserError)
    assert error.code == "CB-COLAB-003"


@pytest.mark.parametrize("verdict", [Verdict.DENYLISTED, Verdict.QUOTA_KIND, Verdict.QUOTA_TIME, Verdict.SCOPE])
def test_what_no_other_card_changes_ends_it_at_once(verdict: Verdict) -> None:
    walk = Walk(wait_s=3600.0)
    assert isinstance(walk.feed(Ticket(), failed(verdict)), Fail)


def test_412_with_runtimes_on_the_account_says_how_many() -> None:
    walk = Walk()
    assert walk.feed(Ticket(), failed(Verdict.TOO_MANY)) == Count()
    error = refused(walk.feed(Counted(3))).error
    assert "it has 3 already" in error.message
    assert "colab-bridge stop" in error.hint


def test_412_without_any_runtime_is_a_refusal_for_usage_and_the_next_card_is_tried() -> None:
    walk = Walk()
    assert walk.feed(Ticket(), failed(Verdict.TOO_MANY), Counted(0)) == Look(LADDER[1], 1)
    walk = Walk((T4,))
    error = refused(walk.feed(Ticket(), failed(Verdict.TOO_MANY), Counted(0))).error
    assert error.code == "CB-COLAB-006"


def test_after_a_lost_answer_it_is_looked_again_and_what_was_made_is_adopted() -> None:
    walk = Walk((T4,))
    action = walk.feed(Ticket(), failed(Verdict.UNCERTAIN))
    assert isinstance(action, Wait)
    assert walk.feed(Waited()) == Look(T4, 0)
    assert walk.feed(machine()) == Done(machine(), T4)


def test_after_a_lost_answer_no_second_question_is_put_before_the_first_had_time() -> None:
    walk = Walk((T4,))
    walk.feed(Ticket(), failed(Verdict.UNCERTAIN))
    asked_at = walk.now
    while not isinstance(walk.action, Ask):
        walk.feed(Waited() if isinstance(walk.action, Wait) else Ticket())
    assert walk.now - asked_at >= acquiring.SETTLE_S


def test_a_service_that_never_answers_is_given_up_after_some_minutes_and_the_open_question_is_told() -> None:
    walk = Walk((T4,))
    walk.feed(Ticket(), failed(Verdict.UNCERTAIN))
    while not isinstance(walk.action, Fail):
        walk.feed(Waited() if isinstance(walk.action, Wait) else failed(Verdict.UNREACHABLE))
    assert walk.action.unsettled
    assert isinstance(walk.action.error, TransientError)
    assert walk.now - 1000.0 <= acquiring.TROUBLE_S + 20


def test_another_card_than_asked_for_is_released_and_the_next_one_tried() -> None:
    walk = Walk((LADDER[0], T4))
    wrong = machine(Hardware(kind="gpu", accelerator="L4"))
    action = walk.feed(Ticket(), wrong)
    assert isinstance(action, Release)
    assert action.why == "asked for A100, but Colab gave L4"
    assert walk.feed(Released()) == Look(T4, 1)


def test_a_wrong_card_on_the_last_rung_is_reported_and_nothing_runs() -> None:
    walk = Walk((LADDER[0],))
    error = refused(walk.feed(Ticket(), machine(T4), Released())).error
    assert "asked for A100, but Colab gave T4; it was released" in error.message


def test_a_wrong_card_that_cannot_be_released_is_named_with_the_command_that_ends_it() -> None:
    fail = refused(Walk((LADDER[0],)).feed(Ticket(), machine(T4), Released(failed(Verdict.SERVER_ERROR))))
    assert fail.error.hint == "colab-bridge stop gpu-1"
    assert fail.unsettled


def test_a_card_of_another_rung_that_a_lost_answer_brought_is_taken() -> None:
    assert Walk().feed(machine()) == Done(machine(), T4)


def test_less_memory_than_asked_for_is_said_and_kept() -> None:
    wanted = Hardware(kind="gpu", accelerator="T4", high_memory=True)
    action = Walk((wanted,)).feed(Ticket(), machine(T4))
    assert isinstance(action, Done)
    assert "standard memory" in action.note


def test_hardware_that_is_not_told_is_not_called_wrong() -> None:
    assert Walk((T4,)).feed(Ticket(), machine(None)) == Done(machine(None), T4)


# -- any service ----------------------------------------------------------------------------------------------------

CARDS = [CPU, T4, *LADDER[:2], None]


@dataclass
class Service:
    """A service that binds one runtime at most to the request, and whose answers may be lost on their way."""

    chance: random.Random
    bound: Assignment | None = None
    under_way: tuple[float, Assignment] | None = None
    made: int = 0
    asked: int = 0
    looked_since_ask: bool = True
    denied: bool = False

    def look(self, now: float) -> acquiring.Event:
        self.looked_since_ask = True
        if self.under_way is not None and now >= self.under_way[0]:
            self.bound, self.under_way = self.under_way[1], None
        if self.chance.random() < 0.3:
            return failed(self.chance.choice([Verdict.UNREACHABLE, Verdict.UNCERTAIN, Verdict.SERVER_ERROR]))
        return self.bound or Ticket()

    def ask(self, now: float, wanted: Hardware) -> acquiring.Event:
        assert self.looked_since_ask, "a question without a look before it"
        assert not self.denied, "a blocked account was asked again"
        assert self.bound is None, "asked although there is a runtime"
        assert self.under_way is None, "asked although one is under way"
        self.looked_since_ask = False
        self.asked += 1
        outcome = self.chance.random()
        if outcome < 0.35:
            self.made += 1
            given = wanted if self.chance.random() < 0.7 else self.chance.choice(CARDS)
            runtime = Assignment(endpoint=f"gpu-{self.made}", hardware=given)
            if outcome < 0.12:
                self.under_way = (now + self.chance.random() * (acquiring.SETTLE_S - 10), runtime)
                return failed(Verdict.UNCERTAIN)
            self.bound = runtime
            return runtime if outcome < 0.25 else failed(Verdict.UNCERTAIN)
        verdict = self.chance.choice([each for each in Verdict if each is not Verdict.UNCERTAIN])
        self.denied = verdict is Verdict.DENYLISTED
        return failed(verdict)

    def release(self, runtime: Assignment) -> acquiring.Event:
        assert runtime == self.bound
        if self.chance.random() < 0.2:
            return Released(failed(Verdict.SERVER_ERROR))
        self.bound = None
        return Released()


@settings(max_examples=400, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    ladder=st.lists(st.sampled_from([CPU, *LADDER]), min_size=1, max_size=4, unique=True),
    wait_s=st.sampled_from([0.0, 30.0, 1800.0]),
)
def test_whatever_the_service_does_one_request_ends_with_at_most_one_runtime(
    seed: int, ladder: list[Hardware], wait_s: float
) -> None:
    chance = random.Random(seed)
    service, now = Service(chance), 0.0
    state, action = acquiring.begin(ladder, wait_s=wait_s, now=now)
    for _ in range(3000):
        if isinstance(action, (Done, Fail)):
            break
        if isinstance(action, Wait):
            assert action.seconds > 0
            now += action.seconds
            event: acquiring.Event = Waited()
        elif isinstance(action, Look):
            event = service.look(now)
        elif isinstance(action, Ask):
            event = service.ask(now, action.hardware)
        elif isinstance(action, Release):
            event = service.release(action.assignment)
        else:
            event = Counted(chance.choice([0, 1, 5, None]))
        now += chance.random() * 2
        state, action = acquiring.step(state, event, now=now, jitter=chance.random())
    assert isinstance(action, (Done, Fail)), "it does not end"
    if isinstance(action, Done):
        assert action.assignment == service.bound
        assert action.hardware in ladder or action.assignment.hardware is None
    elif service.bound or service.under_way:
        assert action.unsettled, "a runtime is left that nobody knows of"
    if service.denied:
        assert isinstance(action, Fail)
        assert isinstance(action.error, AuthError)
