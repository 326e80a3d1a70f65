"""Follow a run at the terminal: output, questions, Ctrl-C, and the exit status."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from colab_bridge.cli.answers import read_answer
from colab_bridge.cli.console import Console
from colab_bridge.cli.failure import INTERRUPTED_STATUS, broken_pipe
from colab_bridge.cli.interrupts import Interrupts
from colab_bridge.cli.keys import Keys
from colab_bridge.cli.printer import Printer
from colab_bridge.cli.verdict import why_it_goes_on
from colab_bridge.client.connect import revive
from colab_bridge.client.daemon import DaemonClient, Event, segment
from colab_bridge.client.follow import RunFollower
from colab_bridge.errors import ColabBridgeError, ConflictError, TransientError

__all__ = ["watch"]

# After this long without an end, the interrupt is taken as ignored.
IGNORED_AFTER_S = 5.0
# A call must not hold back the prompt for longer than a second; the daemon carries on with it all the same.
_ASK_TIMEOUT_S = 0.9
_TICK_S = 1.0
# While old output is shown again, a question that other output follows was answered long ago.
_REPLAY_WAIT_S = 0.3

_MENU = """\
It still runs, 5 s after the interrupt{why}. Type a letter and Enter:
  k  end its kernel: all variables are lost
  r  restart its kernel: all variables are lost, and it is ready for the next run
  l  leave it running and get the prompt back: nothing is lost
  w  wait on
"""


def watch(
    client: DaemonClient,
    run: str | Mapping[str, Any],
    printer: Printer,
    console: Console,
    *,
    replay: bool = False,
    leave_on_interrupt: bool = False,
    starting: Callable[[], None] = lambda: None,
) -> int:
    """Follow a run to its end.

    Args:
        client: A client of the running daemon.
        run: The id of a run, or a run request that is sent now.
        printer: Shows the events.
        console: The terminal.
        replay: Whether the run began earlier, so that the first events are old ones.
        leave_on_interrupt: Whether Ctrl-C gives the prompt back at once and leaves the run alone, as for a job.
        starting: Called about once a second until the run begins, and when it does.

    Returns:
        The exit status of the program, or 130 when the user has left it running.

    Raises:
        ColabBridgeError: the run could not be started or followed.
    """
    with RunFollower(client, run) as follower, Interrupts() as interrupts:
        watcher = _Watcher(
            follower, interrupts, printer, console, replay=replay, leaves=leave_on_interrupt, starting=starting
        )
        try:
            return watcher.run()
        except KeyboardInterrupt:
            return watcher.leave()
        except BrokenPipeError:
            # The reader of our output has gone. A program in a pipe ends there, so this one does; a job does not.
            if not leave_on_interrupt:
                watcher.interrupt_quietly()
            return broken_pipe()


class _Watcher:
    """The state of one watched run."""

    def __init__(
        self,
        follower: RunFollower,
        interrupts: Interrupts,
        printer: Printer,
        console: Console,
        *,
        replay: bool,
        leaves: bool,
        starting: Callable[[], None],
    ) -> None:
        self._follower = follower
        self._interrupts = interrupts
        self._printer = printer
        self._console = console
        self._replay = replay
        self._leaves = leaves
        self._starting: Callable[[], None] | None = starting
        self._waited = False
        self._status = 1
        self._sent_at: float | None = None  # when the kernel was interrupted
        self._offered = False
        self._keys: Keys | None = None
        self._question: Event | None = None  # one that may have been answered long ago

    def run(self) -> int:
        """Follow the run to its end and return its exit status."""
        while not self._follower.finished:
            event = self._next()
            if self._interrupts.count and self._leaves:
                raise KeyboardInterrupt
            if self._interrupts.count and self._sent_at is None:
                self._first_interrupt()
                if event is not None and event["type"] == "input_request":
                    continue  # nobody waits for this answer any more
            if event is not None:
                self._handle(event)
            else:
                self._idle()
            self._ladder()
        self._printer.end()
        return self._status

    def _next(self) -> Event | None:
        sources: list[socket.socket | int] = [self._interrupts.wake, *(self._keys.sources if self._keys else ())]
        event = self._follower.poll(self._patience(), sources)
        self._interrupts.drain()
        return event

    def _patience(self) -> float:
        if self._question is not None:
            return _REPLAY_WAIT_S
        if self._keys is not None and self._keys.interval_s is not None:
            return self._keys.interval_s
        return _TICK_S

    def _handle(self, event: Event) -> None:
        if self._starting is not None and self._waited:
            self._starting()
        self._starting = None
        if event["type"] == "input_request":
            if self._replay:
                self._question = event
            else:
                self._answer(event)
            return
        self._question = None
        self._printer.show(event)
        if event["type"] == "finished":
            self._status = _exit_status(event)

    def _idle(self) -> None:
        if self._starting is not None:
            self._waited = True
            self._starting()
        if self._question is not None:
            question, self._question, self._replay = self._question, None, False
            self._answer(question)
            return
        self._printer.tick()

    def _ladder(self) -> None:
        """Take the next step when the interrupt is ignored; also in the middle of a flood of output."""
        self._read_choice()
        if self._sent_at is not None and not self._offered and time.monotonic() - self._sent_at >= IGNORED_AFTER_S:
            self._offer()

    # -- questions of the program ----------------------------------------------------------------------------

    def _answer(self, event: Event) -> None:
        try:
            with self._interrupts.raising():
                prompt, password = str(event.get("prompt", "")), bool(event.get("password"))
                value, ended = read_answer(self._console, prompt, password=password, wait=self._interrupts.wait_for)
        except KeyboardInterrupt:
            self._console.err("\n")
            if self._leaves:
                raise
            # The first Ctrl-C while a line is read: for the program, which waits in input().
            self._first_interrupt()
            return
        try:
            self._post("input", {"value": value, "eof": ended}, timeout_s=30.0)
        except ConflictError as error:
            self._console.note(error.message)

    def _post(self, action: str, body: Mapping[str, Any], *, timeout_s: float) -> None:
        path = f"/v1/runs/{segment(self._follower.run_id or '')}/{action}"
        try:
            self._follower.client.post(path, body, timeout_s=timeout_s)
        except TransientError as error:
            if error.code != "CB-TRANSIENT-DAEMON":
                raise
            revive().post(path, body, timeout_s=timeout_s)

    # -- Ctrl-C ----------------------------------------------------------------------------------------------

    def _first_interrupt(self) -> None:
        if self._follower.run_id is None:
            if not self._offered:
                self._offered = True
                self._console.hint("it has not begun yet; Ctrl-C again to give the prompt back")
            return
        self._offered = False
        self._sent_at = time.monotonic()
        self.interrupt_quietly()

    def interrupt_quietly(self) -> None:
        """Interrupt the program; no answer within a second is no reason to wait."""
        if self._follower.run_id is not None:
            with contextlib.suppress(ColabBridgeError):
                self._post("interrupt", {}, timeout_s=_ASK_TIMEOUT_S)

    def _offer(self) -> None:
        self._offered = True
        why = why_it_goes_on(self._follower.client, self._follower.run_id or "", _ASK_TIMEOUT_S)
        if self._console.interactive:
            self._keys = Keys()
            self._console.err(_MENU.format(why=f": {why}" if why else ""))
            return
        run = self._follower.run_id
        reason = f" ({why})" if why else ""
        kill = f"colab-bridge interrupt {run} --kill"
        self._console.note(f"it ignores the interrupt{reason}; its kernel can be ended: {kill}")
        self._console.note(f"Ctrl-C again leaves it running; come back with: colab-bridge attach {run}")

    def _read_choice(self) -> None:
        if self._keys is None:
            return
        choice = self._keys.read()[:1]
        if choice in ("k", "r"):
            self._keys = None
            self._console.note("ending its kernel ..." if choice == "k" else "restarting its kernel ...")
            with contextlib.suppress(TransientError):
                self._post("kill", {"restart": choice == "r"}, timeout_s=_ASK_TIMEOUT_S)
        elif choice == "l":
            raise KeyboardInterrupt
        elif choice == "w":
            self._keys = None
            self._sent_at = None
            self._interrupts.reset()
            self._console.note("waiting; Ctrl-C interrupts it again")

    def leave(self) -> int:
        """Say what still runs and how to come back."""
        run = self._follower.run_id
        self._printer.end()
        if run is None:
            self._console.note("left before it had begun; a machine that was waited for is given up")
        else:
            self._console.note(f"{run} still runs. Come back: colab-bridge attach {run}")
            if self._leaves:
                self._console.note(f"Stop it: colab-bridge job cancel {run}")
                return INTERRUPTED_STATUS
            self._console.note(
                f"Stop it: colab-bridge interrupt {run}   End its kernel: colab-bridge interrupt {run} --kill"
            )
        return INTERRUPTED_STATUS


def _exit_status(event: Event) -> int:
    code = event.get("exit_code")
    if isinstance(code, int):
        return code & 0xFF
    return 0 if event.get("status") == "ok" else 1
