"""What hardware options mean, and what is said while a session starts."""

from __future__ import annotations

import anyio
import pytest

from colab_bridge.config.settings import Settings
from colab_bridge.errors import TransientError, UserError
from colab_bridge.sessions.starts import StartReports, caller_is, unless_caller_leaves
from colab_bridge.sessions.targets import choose_target, same_wish


def settings(**values: object) -> Settings:
    return Settings.model_validate(values)


GPU = {"gpu": "T4"}


@pytest.mark.parametrize(
    ("values", "provider", "runtime"),
    [
        ({}, "colab", "colab"),
        ({"runtime": "box", "runtimes": {"box": {"url": "http://h:1"}}}, "colab", "colab"),
        ({"runtime": "mine", "runtimes": {"mine": {"provider": "colab", "high_mem": True}}}, "colab", "mine"),
        ({"runtime": "other", "runtimes": {"other": {"provider": "plugin"}}}, "plugin", "other"),
        ({"provider": "colab"}, "colab", "colab"),
    ],
)
def test_hardware_means_colab_unless_the_default_runtime_may_have_it(
    values: dict[str, object], provider: str, runtime: str
) -> None:
    target = choose_target(settings(**values), options=GPU)
    assert (target.provider, target.runtime, target.options["gpu"]) == (provider, runtime, "T4")


def test_hardware_for_a_named_runtime_stays_there() -> None:
    configured = settings(runtimes={"mine": {"provider": "colab", "gpu": "A100", "wait_s": 60.0}})
    assert choose_target(configured, runtime="mine").options == {"gpu": "A100", "wait_s": 60.0}
    assert choose_target(configured, runtime="mine", options=GPU).options["gpu"] == "T4"


def test_a_project_decides_which_account_pays() -> None:
    assert choose_target(settings(account="me@example.com"), options=GPU).options["account"] == "me@example.com"
    explicit = {**GPU, "account": "you@example.com"}
    assert choose_target(settings(account="me@example.com"), options=explicit).options["account"] == "you@example.com"
    assert "account" not in choose_target(settings(account="me@example.com")).options


def test_without_hardware_the_default_stays_local() -> None:
    assert choose_target(settings(), options={"budget": 5.0}).provider == "local"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"gpu": "T4", "runtime": "colab"}, {"gpu": "T4", "wait_s": 60.0}, True),
        ({"gpu": "T4", "budget": 5.0}, {"gpu": "T4", "idle_minutes": 10.0}, True),
        ({"gpu": "T4"}, {"gpu": "A100"}, False),
        ({"gpu": "T4"}, {"gpu": "T4", "account": "a@b"}, False),
    ],
)
def test_how_something_is_asked_for_is_no_part_of_what_is_asked_for(
    one: dict[str, object], other: dict[str, object], same: bool
) -> None:
    assert same_wish(one, other) is same


@pytest.mark.parametrize("runtime", [{"gpu": "T5"}, {"tpu": "T4"}, {"wait_s": -1.0}, {"api": "v3"}])
def test_a_runtime_with_a_card_that_does_not_exist_is_refused_by_the_settings(runtime: dict[str, object]) -> None:
    with pytest.raises((UserError, ValueError)):
        settings(runtimes={"mine": {"provider": "colab", **runtime}})


class Hand:
    """A clock that is moved by hand."""

    now = 100.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def test_lines_of_a_start_are_for_who_waits_for_it_and_not_for_who_comes_later() -> None:
    clock = Hand()
    starts = StartReports(clock)
    with starts.begin("/p") as report:
        report("one")
        clock.now += 5
        report("two")
        assert [line.text for line in starts.lines("/p", 0, 10)] == ["one", "two"]
        assert [line.text for line in starts.lines("/p", 1, 10)] == ["two"]
    assert [line.text for line in starts.lines("/p", 0, 10)] == ["one", "two"]  # the last ones are read after the end
    assert [line.text for line in starts.lines("/p", 0, 1)] == ["two"]
    assert starts.lines("/other", 0, 10) == []
    clock.now += 60
    with starts.begin("/p"):
        assert starts.lines("/p", 0, 1000) == []


@pytest.mark.anyio
def test_the_first_line_is_not_missed_though_the_question_was_on_its_way_for_a_moment() -> None:
    clock = Hand()
    starts = StartReports(clock)
    with starts.begin("/p") as report:
        report("account")
        clock.now += 0.5 + 0.3  # half a second of waiting, and the way of the question
        assert [line.text for line in starts.lines("/p", 0, 0.5)] == ["account"]


async def test_who_hangs_up_ends_the_wait_and_who_stays_gets_the_result() -> None:
    async def machine() -> str:
        return "machine"

    gone = anyio.Event()
    with caller_is(gone):
        assert await unless_caller_leaves(machine) == "machine"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_hang_up, gone)
            with pytest.raises(TransientError, match="has gone"):
                await unless_caller_leaves(anyio.sleep_forever)
    assert await unless_caller_leaves(machine) == "machine"


async def _hang_up(gone: anyio.Event) -> None:
    gone.set()


@pytest.mark.anyio
async def test_an_error_comes_out_as_it_was() -> None:
    async def fail() -> None:
        raise UserError("no", hint="yes")

    with caller_is(anyio.Event()), pytest.raises(UserError, match="no"):
        await unless_caller_leaves(fail)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
