"""Answers to ``input()`` and ``getpass()`` of a program that runs elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO

from colab_bridge.cli.console import Console

__all__ = ["read_answer"]


def read_answer(console: Console, prompt: str, *, password: bool, wait: Callable[[TextIO], None]) -> tuple[str, bool]:
    """Get one line for the program: from the person at the terminal, or the next line of a pipe.

    Args:
        console: The terminal.
        prompt: What the program asks.
        password: Whether the answer must not be seen; a pipe is read all the same.
        wait: Returns when a terminal has a line, or raises what ends the wait.

    Returns:
        The line without its end, and whether the input has ended.
    """
    if password and console.in_tty:
        import getpass  # here because few programs ask for passwords

        console.clear_progress()
        try:
            return getpass.getpass(prompt, stream=sys.stderr), False
        except EOFError:
            return "", True
    if prompt:
        console.err(prompt)
    if sys.stdin is not None and console.in_tty:
        wait(sys.stdin)
    line = sys.stdin.readline() if sys.stdin is not None else ""
    if not line:
        return "", True
    return line.rstrip("\n").removesuffix("\r"), False
