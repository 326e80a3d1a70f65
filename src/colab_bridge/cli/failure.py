"""From any exception to at most three lines on stderr and an exit status."""

from __future__ import annotations

import errno
import os
import sys

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.group import UnknownCommandError
from colab_bridge.errors import ColabBridgeError, InternalError, UserError

__all__ = ["INTERRUPTED_STATUS", "broken_pipe", "report"]

INTERRUPTED_STATUS = 130
# What a shell reports for a program that SIGPIPE has ended.
BROKEN_PIPE_STATUS = 141
# A full disk, a used-up quota, a file that has become too large, a device that fails.
_OUTPUT_ERRORS = frozenset({errno.ENOSPC, errno.EFBIG, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC)})


def report(error: BaseException, invocation: Invocation) -> int:
    """Tell the user about an exception that ended the command.

    Args:
        error: Whatever was raised.
        invocation: The call that failed.

    Returns:
        The exit status.
    """
    if isinstance(error, BrokenPipeError):
        return broken_pipe()
    if isinstance(error, SystemExit):  # click ends so when its own output meets a closed pipe
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, (KeyboardInterrupt, click.Abort, EOFError)):
        invocation.console.err("\n" if invocation.console.err_tty else "")
        return INTERRUPTED_STATUS
    if isinstance(error, click.exceptions.Exit):
        return int(error.exit_code)
    known = _known(error, invocation)
    _print(known, invocation)
    return known.exit_status


def _known(error: BaseException, invocation: Invocation) -> ColabBridgeError:
    if isinstance(error, ColabBridgeError):
        return error
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, OSError) and error.filename is not None:
        return UserError(
            f"{error.filename}: {error.strerror or error}",
            hint="Check the path and its permissions.",
            code="CB-USER-OS",
        )
    if isinstance(error, OSError) and error.errno in _OUTPUT_ERRORS:
        drop_stdout()
        return UserError(
            f"the output cannot be written: {error.strerror}",
            hint="Make room, or write it elsewhere.",
            code="CB-USER-OS",
        )
    return _crash(error, invocation)


def _usage(error: click.ClickException) -> UserError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "colab-bridge"
    message = error.format_message().rstrip(".").replace("\n\t", " ").replace("\n", " ")
    hint = error.hint if isinstance(error, UnknownCommandError) else f"see: {path} --help"
    return UserError(message, hint=hint, code="CB-USER-USAGE")


def _print(error: ColabBridgeError, invocation: Invocation) -> None:
    console = invocation.console
    if invocation.as_json:
        console.json({"error": error.to_problem()})
    console.note(f"colab-bridge: {error.message}")
    if error.hint:
        console.note(f"  {error.hint}")


def _crash(error: BaseException, invocation: Invocation) -> InternalError:
    """Keep the traceback where only the user can read it, and name the file."""
    import tempfile  # these are here because only a defect of ours needs them
    import time
    import traceback

    name = time.strftime("crash-%Y%m%d-%H%M%S-") + f"{os.getpid()}.log"
    text = "".join(traceback.format_exception(error))
    message = f"internal error: {type(error).__name__}: {error}".replace("\n", " ")[:300]
    try:
        folder = invocation.paths.state_dir
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except (OSError, ColabBridgeError):
        descriptor, temporary = tempfile.mkstemp(prefix="colab-bridge-", suffix=".log")
        where = temporary
    else:
        where = str(path)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return InternalError(message, hint=f"This is a defect of Colab Bridge; please report it with {where}")


def broken_pipe() -> int:
    """Make sure that nothing is said about a reader who has gone, and return the exit status for it."""
    drop_stdout()
    return BROKEN_PIPE_STATUS


def drop_stdout() -> None:
    """Send the rest of stdout nowhere: Python flushes it once more at its end, which must not fail with a message."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
