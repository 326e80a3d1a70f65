"""``colab-bridge repl``: type code line by line into the session's kernel."""

from __future__ import annotations

import codeop
import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.failure import INTERRUPTED_STATUS
from colab_bridge.cli.root import target_options
from colab_bridge.cli.start_run import start_run
from colab_bridge.cli.target import Target
from colab_bridge.errors import ColabBridgeError, UserError

__all__ = ["Entry", "repl"]

_HISTORY_LINES = 2000


@click.command()
@target_options
@click.pass_obj
def repl(invocation: Invocation, /, **options: str | bool | None) -> int:
    """Type code line by line; it runs in the same kernel as `exec`, so variables are shared.

    A block ends with an empty line. Ctrl-C interrupts, Ctrl-D leaves; the kernel and its variables stay.
    """
    target = Target(**options)  # type: ignore[arg-type]  # the options are the fields, see target_options
    invocation.console.hint("Ctrl-D leaves; variables stay for the next `repl` or `exec`")
    with _history(invocation):
        return _loop(invocation, target)


def _loop(invocation: Invocation, target: Target) -> int:
    status = 0
    while True:
        try:
            code = _read_entry(invocation)
        except KeyboardInterrupt:
            invocation.console.err("\n" if invocation.console.err_tty else "")
            continue
        if code is None:
            invocation.console.err("\n" if invocation.console.interactive else "")
            return 0 if invocation.console.interactive else status
        try:
            status = start_run(invocation, target, {"kind": "code", "code": code})
        except UserError:
            raise
        except ColabBridgeError as error:
            invocation.console.note(f"colab-bridge: {error.message}")
            invocation.console.note(f"  {error.hint}")
            status = error.exit_status
        if status == INTERRUPTED_STATUS and not invocation.console.interactive:
            return 0 if invocation.console.interactive else status


def _read_entry(invocation: Invocation) -> str | None:
    """Read one complete piece of code; None at the end of the input."""
    entry = Entry()
    while True:
        line = _read_line(invocation, "... " if entry.lines else ">>> ")
        if line is None:
            return "\n".join(entry.lines) if entry.lines else None
        if entry.add(line):
            if any(text.strip() for text in entry.lines):
                return "\n".join(entry.lines)
            entry = Entry()


def _read_line(invocation: Invocation, prompt: str) -> str | None:
    if invocation.console.in_tty and invocation.console.out_tty:
        try:
            return input(prompt)
        except EOFError:
            return None
    if invocation.console.interactive:
        invocation.console.err(prompt)
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


class Entry:
    """Lines that are typed until they make up something that can be run.

    Attributes:
        lines: What was typed so far.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> bool:
        """Take one more line and return whether the entry is complete."""
        self.lines.append(line)
        if self.lines[0].startswith("%%"):
            return line == ""
        if _is_command(self.lines[0]):
            return True
        if len(self.lines) > 1 and line and line[0] in " \t":
            return False
        try:
            with warnings.catch_warnings():
                # What the compiler has to say is said by the kernel, once.
                warnings.simplefilter("ignore")
                return codeop.compile_command("\n".join(self.lines), "<input>", "single") is not None
        except (SyntaxError, ValueError, OverflowError):
            # Wrong here: the kernel shows it as it always does. It may also be of a newer Python, or another language.
            return True


def _is_command(line: str) -> bool:
    """Whether a line is for IPython: a magic, a shell command, a question."""
    return line.lstrip().startswith(("%", "!", "?")) or line.rstrip().endswith("?")


@contextlib.contextmanager
def _history(invocation: Invocation) -> Iterator[None]:
    """Keep what is typed for the next time, where the system has readline; on Windows the console keeps it."""
    if sys.platform == "win32" or not invocation.console.interactive:
        yield
        return
    else:
        try:
            import readline
        except ImportError:  # an interpreter that was built without it
            yield
            return
        path = invocation.paths.state_dir / "repl_history"
        with contextlib.suppress(OSError):
            readline.read_history_file(path)
        try:
            yield
        finally:
            readline.set_history_length(_HISTORY_LINES)
            _write_history(path, readline.write_history_file)


def _write_history(path: Path, write: Callable[[Path], None]) -> None:
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made first, so that nobody else can ever read it: it holds whatever was typed.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        write(path)
