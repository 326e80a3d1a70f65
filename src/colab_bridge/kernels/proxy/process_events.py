"""What the operating system tells this process: signals, and the end of whoever started it. Plus stderr and threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TypeVar

if sys.platform == "win32":
    import ctypes

__all__ = ["SignalPipe", "in_thread", "parent_gone", "say"]

T = TypeVar("T")

# SIGBREAK is Ctrl-Break on Windows, SIGHUP a closed terminal elsewhere.
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
_PARENT_POLL_S = 1.0
_INFINITE = 0xFFFFFFFF  # Windows API
_WAIT_OBJECT_0 = 0


def say(text: str) -> None:
    """Write a line to stderr, which front ends keep in their logs; they may be gone, which is no reason to fail."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"[colab-bridge] {text}\n")
        sys.stderr.flush()


class SignalPipe:
    """Turns signals into calls in the event loop, in the same way on every system.

    From its creation on no signal ends the process; those that come before :meth:`listen` are kept. The event loop's
    own ``add_signal_handler`` does not exist on Windows, where a handler also would not wake a waiting ``select``.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for name in _SIGNALS:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), _ignore)

    def listen(self, handler: Callable[[signal.Signals], None]) -> None:
        """Call ``handler`` from the running event loop for every signal."""

        def readable() -> None:
            with contextlib.suppress(BlockingIOError):
                for number in self._reader.recv(64):
                    handler(signal.Signals(number))

        asyncio.get_running_loop().add_reader(self._reader.fileno(), readable)

    def close(self) -> None:
        """Stop carrying signals, which are ignored from now on; the event loop must have ended."""
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: the wake-up descriptor has carried the signal already."""


def in_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Run a blocking call in a thread that never delays the end of the process.

    Args:
        function: Without arguments; its result or exception becomes that of the future.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only if T allows it

    def work() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - task root; it is raised where the future is awaited
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(deliver, result, failure)

    threading.Thread(target=work, daemon=True).start()
    return future


async def parent_gone(environ: Mapping[str, str], *, watch: bool) -> None:
    """Wait until the front end that started us has ended.

    Args:
        environ: ``JPY_PARENT_PID`` as set by jupyter_client: on POSIX its process id, on Windows an inherited handle.
        watch: Also watch without that variable; for front ends that do not set it.
    """
    named = environ.get("JPY_PARENT_PID", "")
    known = named.isascii() and named.isdigit() and int(named) > 0
    if not known and not watch:
        await asyncio.get_running_loop().create_future()
    elif sys.platform == "win32":
        await _windows_handle_signalled(int(named) if known else 0)
    else:
        await _posix_parent_changed(int(named) if known else os.getppid())


async def _posix_parent_changed(pid: int) -> None:
    # No system call waits for the end of a parent on all of POSIX, so this looks once a second.
    if pid == os.getppid():
        while os.getppid() == pid:  # noqa: ASYNC110
            await asyncio.sleep(_PARENT_POLL_S)
        return
    # Started through a wrapper (conda run and the like): the named process is an ancestor.
    while _posix_runs(pid):  # noqa: ASYNC110
        await asyncio.sleep(_PARENT_POLL_S)


def _posix_runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


async def _windows_handle_signalled(handle: int) -> None:
    # Without a usable handle nothing can be known; the front end then has to end us itself, as it does with any kernel.
    if handle == 0 or await in_thread(lambda: _wait_for_handle(handle)) != _WAIT_OBJECT_0:
        await asyncio.get_running_loop().create_future()


if sys.platform == "win32":

    def _wait_for_handle(handle: int) -> int:
        kernel32 = ctypes.WinDLL("kernel32")
        kernel32.WaitForSingleObject.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
        kernel32.WaitForSingleObject.restype = ctypes.c_uint32
        return int(kernel32.WaitForSingleObject(handle, _INFINITE))

else:

    def _wait_for_handle(handle: int) -> int:
        raise NotImplementedError(f"handle {handle} on a system without handles")
