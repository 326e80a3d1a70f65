"""Ctrl-C at a real terminal."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from cli_support import Desk, desk_in, eventually

if sys.platform == "win32":
    pytest.skip("pseudo terminals are for POSIX", allow_module_level=True)

import pexpect

STUBBORN = """
import time
print('ready', flush=True)
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print('ignored', flush=True)
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_in(tmp_path_factory.mktemp("desk")) as made:
        made.out("exec", "1")
        yield made


@pytest.fixture
def terminal(desk: Desk) -> Iterator[Any]:
    children: list[Any] = []

    def type_command(*argv: str) -> Any:
        command, *rest = desk.argv(*argv)
        child = pexpect.spawn(command, rest, env=desk.environ, cwd=str(desk.project), encoding="utf-8", timeout=20)
        children.append(child)
        return child

    yield type_command
    for child in children:
        child.close(force=True)
    for run in desk.document("status")["runs"]:
        desk.run("interrupt", run["id"], "--kill")


def ended(child: Any) -> int:
    child.expect(pexpect.EOF)
    child.close()
    return int(child.exitstatus)


def test_the_first_ctrl_c_interrupts_within_a_second_and_keeps_the_variables(desk: Desk, terminal: Any) -> None:
    child = terminal("exec", "import time\nkept = 5\nprint('ready', flush=True)\ntime.sleep(60)")
    child.expect("ready")
    begun = time.monotonic()
    child.sendintr()
    child.expect("KeyboardInterrupt")
    assert time.monotonic() - begun < 1
    assert ended(child) == 130
    assert desk.out("exec", "kept") == "5\n"


def test_the_second_ctrl_c_gives_the_prompt_back_and_says_what_still_runs(desk: Desk, terminal: Any) -> None:
    child = terminal("exec", STUBBORN)
    child.expect("ready")
    child.sendintr()
    child.expect("ignored")
    begun = time.monotonic()
    child.sendintr()
    child.expect(r"(run-\S+) still runs.*colab-bridge attach run-")
    run = child.match.group(1)
    assert ended(child) == 130
    assert time.monotonic() - begun < 1
    assert run in [running["id"] for running in desk.document("status")["runs"]]


def test_an_ignored_interrupt_offers_the_next_steps_with_what_they_lose(desk: Desk, terminal: Any) -> None:
    child = terminal("exec", STUBBORN)
    child.expect("ready")
    begun = time.monotonic()
    child.sendintr()
    child.expect("does not listen meanwhile")
    child.expect("all variables are lost")
    assert 4 < time.monotonic() - begun < 8
    child.expect("leave it running")
    child.sendline("k")
    assert ended(child) == 130
    assert desk.document("status")["runs"] == []


def test_a_run_can_be_left_and_come_back_to(desk: Desk, terminal: Any) -> None:
    child = terminal("exec", STUBBORN)
    child.expect("ready")
    child.sendintr()
    child.expect("wait on")
    child.sendline("l")
    child.expect("still runs")
    assert ended(child) == 130
    again = terminal("attach")
    again.expect("ready")
    again.expect("ignored")
    again.sendintr()
    again.expect("ignored")


def test_waiting_on_makes_the_next_ctrl_c_a_first_one(desk: Desk, terminal: Any) -> None:
    child = terminal("exec", STUBBORN)
    child.expect("ready")
    child.sendintr()
    child.expect("wait on")
    child.sendline("w")
    child.expect("waiting")
    child.sendintr()
    child.expect("ignored")
    assert child.isalive()


def test_a_question_of_the_program_can_be_interrupted(desk: Desk, terminal: Any) -> None:
    child = terminal("exec", "answer = input('name? ')")
    child.expect(r"name\? ")
    child.sendintr()
    child.expect("KeyboardInterrupt")
    assert ended(child) == 130


def test_a_password_is_not_shown(desk: Desk, terminal: Any) -> None:
    child = terminal("exec", "import getpass; print(len(getpass.getpass('word? ')))")
    child.expect(r"word\? ")
    eventually(lambda: not child.getecho(), "the echo is switched off")
    child.sendline("hidden-word")
    child.expect("11")
    assert "hidden-word" not in child.before
    assert ended(child) == 0


def test_a_repl_survives_ctrl_c_and_ends_with_ctrl_d(desk: Desk, terminal: Any) -> None:
    child = terminal("repl")
    child.expect(">>> ")
    child.sendline("for i in range(2):")
    child.expect(r"\.\.\. ")
    child.sendline("    print('round', i)")
    child.expect(r"\.\.\. ")
    child.sendline("")
    child.expect("round 1")
    child.expect(">>> ")
    child.sendline("import time; print('on'); time.sleep(60)")
    child.expect("on\r\n")
    child.sendintr()
    child.expect("KeyboardInterrupt")
    child.expect(">>> ")
    # Python's readline shows the prompt an instant before it waits; a Ctrl-C of that instant is met with the next key.
    eventually(lambda: psutil.Process(child.pid).status() == psutil.STATUS_SLEEPING, "it waits for a line")
    child.sendintr()
    child.sendline("")
    child.expect(">>> ")
    child.sendline("print('still', 'here')")
    child.expect("still here")
    child.expect(">>> ")
    child.sendeof()
    assert ended(child) == 0


def test_without_a_terminal_a_line_says_what_to_type(desk: Desk) -> None:
    process = desk.popen("exec", STUBBORN)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert "--kill" in process.stderr.readline()
    assert "colab-bridge attach run-" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130
    process.stdout.close()
    process.stderr.close()
    (run,) = desk.document("status")["runs"]
    assert desk.run("interrupt", run["id"], "--kill").returncode == 0


def test_a_notebook_at_a_terminal_shows_the_cell_in_hand(desk: Desk, terminal: Any) -> None:
    desk.notebook("slow.ipynb", "import time; time.sleep(2.2)", "1")
    child = terminal("run", "slow.ipynb")
    child.expect(r"\[1/2\] import time.* 1 s")
    child.expect(r"\[1/2\] .*ok")
    child.expect(r"\[2/2\] .*ok")
    child.expect("done after")
    assert ended(child) == 0
