"""Shells of a runtime through the channel: real pseudo-terminals, the channel in memory."""

from __future__ import annotations

import os
import re
from pathlib import Path

import anyio
import pytest

from agent_pair import PATIENCE_S, Handler, Pair, joined
from colab_bridge.agent.terminal.service import TerminalService
from colab_bridge.kernels.agent_errors import AgentError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _plain_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHELL", "/bin/sh")
    monkeypatch.setenv("PS1", "$ ")
    monkeypatch.setenv("HOME", str(tmp_path))


def attach(pair: Pair, name: str = "main", **params: object) -> Handler:
    handler = Handler()
    pair.open("terminal.attach", handler, shell=name, **{"cols": 80, "rows": 24, **params})
    return handler


def shown(handler: Handler) -> str:
    return b"".join(piece.payload for piece in handler.pieces).decode(errors="replace")


async def until(handler: Handler, text: str) -> None:
    with anyio.fail_after(PATIENCE_S):
        while text not in shown(handler):
            await handler.until("data", len(handler.pieces) + 1)


def type_(handler: Handler, text: str) -> None:
    assert handler.stream is not None
    handler.stream.send({}, text.encode())


async def end(pair: Pair, name: str = "main") -> None:
    await pair.call("terminal.end", shell=name)


async def test_what_is_typed_runs_and_what_it_says_is_shown() -> None:
    async with joined(TerminalService()) as pair:
        terminal = attach(pair)
        type_(terminal, "echo $((6*7))-answer\n")
        await until(terminal, "42-answer")
        await end(pair)


async def test_programs_see_a_terminal_of_the_size_that_was_asked_for_and_its_changes() -> None:
    async with joined(TerminalService()) as pair:
        terminal = attach(pair, cols=101, rows=33)
        type_(terminal, "stty size; tty\n")
        await until(terminal, "33 101")
        await until(terminal, "/dev/pts/")
        assert terminal.stream is not None
        terminal.stream.send({"resize": [90, 20]})
        type_(terminal, "stty size\n")
        await until(terminal, "20 90")
        await end(pair)


async def test_a_shell_goes_on_when_nobody_looks_and_shows_what_was_on_it() -> None:
    async with joined(TerminalService()) as pair:
        first = attach(pair)
        type_(first, "V=kept; echo before-$V\n")
        await until(first, "before-kept")
        assert first.stream is not None
        first.stream.close()
        second = attach(pair)
        await until(second, "before-kept")
        type_(second, "echo after-$V\n")
        await until(second, "after-kept")
        await end(pair)


async def test_a_shell_lives_through_a_cut_link() -> None:
    async with joined(TerminalService()) as pair:
        terminal = attach(pair)
        type_(terminal, "echo one-$((1+1))\n")
        await until(terminal, "one-2")
        await pair.cut()
        type_(terminal, "echo two-$((2+2))\n")
        await pair.connect()
        await until(terminal, "two-4")
        await end(pair)


async def test_two_terminals_with_names_of_their_own_do_not_disturb_each_other() -> None:
    async with joined(TerminalService()) as pair:
        first, second = attach(pair, "a"), attach(pair, "b")
        type_(first, "X=1; echo a-$X\n")
        type_(second, "echo b-[$X]\n")
        await until(first, "a-1")
        await until(second, "b-[]")
        shells = (await pair.call("terminal.list"))[0]["shells"]
        assert [shell["name"] for shell in shells] == ["a", "b"]
        await end(pair, "a")
        await end(pair, "b")


async def test_who_takes_a_shell_over_is_told_to_who_had_it() -> None:
    async with joined(TerminalService()) as pair:
        first = attach(pair)
        type_(first, "echo here-$((1+0))\n")
        await until(first, "here-1")
        attach(pair)
        await first.until("closed")
        assert first.end is not None
        assert first.end[0] == "taken"
        await end(pair)


async def test_the_end_of_a_shell_tells_its_status() -> None:
    async with joined(TerminalService()) as pair:
        terminal = attach(pair)
        type_(terminal, "exit 3\n")
        await terminal.until("closed")
        assert terminal.end == ("exited", "3")
        assert (await pair.call("terminal.list"))[0] == {"shells": []}


async def test_an_interrupt_reaches_the_program_in_the_shell() -> None:
    async with joined(TerminalService()) as pair:
        terminal = attach(pair)
        type_(terminal, "sh -c 'echo go-$((0+1)); exec sleep 600'\n")  # it is in the foreground when it speaks
        await until(terminal, "go-1")
        type_(terminal, "\x03")
        await until(terminal, "^C")
        type_(terminal, "echo free-$((0+2))\n")
        await until(terminal, "free-2")
        await end(pair)


async def test_a_flood_waits_for_whoever_reads_slowly_and_is_whole() -> None:
    async with joined(TerminalService()) as pair:
        terminal = attach(pair)
        type_(terminal, "echo; seq 1 60000; echo fl''ood-end\n")
        await until(terminal, "flood-end")
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown(terminal))
        numbers = [line for line in plain.split("\n") if line.isdigit()]
        assert numbers == [str(number) for number in range(1, 60_001)]
        await end(pair)


async def test_ending_a_shell_ends_what_runs_in_it() -> None:
    async with joined(TerminalService()) as pair:
        terminal = attach(pair)
        type_(terminal, "echo pid-$$-; exec sleep 600\n")
        await until(terminal, "-\r\n")
        pid = int(shown(terminal).split("pid-")[-1].split("-")[0])
        await end(pair)
        await terminal.until("closed")
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("name", ["", "a/b", "x" * 61, None, 7])
async def test_a_name_that_is_none_is_refused(name: object) -> None:
    async with joined(TerminalService()) as pair:
        terminal = attach(pair, name)  # type: ignore[arg-type]
        await terminal.until("closed")
        assert terminal.end is not None
        assert terminal.end[0] == "bad_request"


async def test_a_shell_that_is_not_there_cannot_be_ended() -> None:
    async with joined(TerminalService()) as pair:
        with pytest.raises(AgentError):
            await end(pair)
