"""What a kernel's hub calls around each execution: changes up before it, results down after it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from colab_bridge.errors import ColabBridgeError, ConflictError, TransientError
from colab_bridge.kernels.hub import HubKernel
from colab_bridge.kernels.record import EntryKind
from colab_bridge.model.records import KernelRecord
from colab_bridge.ports.barrier import BarrierRefused
from colab_bridge.sync.controller import SyncController
from colab_bridge.sync.failures import FailureKind, SyncFailure, listed
from colab_bridge.sync.missing import left_out_hint, missing_paths, words_of
from colab_bridge.sync.report import SyncReport, run_line
from colab_bridge.sync_core.summary import hold_lines
from colab_bridge.wire.jupyter_ws import decode_v1
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["SETUP_PREFIX", "KernelBarrier"]

log = logging.getLogger(__name__)

#: An error stands right before the end of its execution; more than this of the record is never searched for it.
_SEARCHED_ENTRIES = 64
#: A person has switched the sync off, or this folder can never be synced: code that waits for it would never run.
_RUN_ANYWAY = frozenset({FailureKind.PAUSED, FailureKind.UNUSABLE})
#: Ids of our own silent requests begin so; nothing of theirs travels.
SETUP_PREFIX = "setup-"
#: What stands in every message that tells of a file that is not there.
_SIGNS = (b"No such file", b"FileNotFoundError")


class KernelBarrier:
    """The barrier of one kernel.

    Args:
        kernel: The kernel.
        hub: Its hub.
        controller: Gives the session's controller; None where its folders are not synced.
        allow_stale: Tells whether a run (its id; empty for a request of a front end) may start although the folders
            differ.
    """

    def __init__(
        self,
        kernel: KernelRecord,
        hub: HubKernel,
        controller: Callable[[], Awaitable[SyncController | None]],
        allow_stale: Callable[[str], bool],
    ) -> None:
        self._kernel = kernel
        self._hub = hub
        self._controller = controller
        self._allow_stale = allow_stale
        self._ups: list[SyncReport] = []
        self._cursor = 0
        self._silent: set[str] = set()
        self._reports: dict[str, list[SyncReport]] = {}
        self._told: set[str] = set()

    async def before(self, request: RawMessage) -> None:
        """See :class:`~colab_bridge.ports.barrier.Barrier`."""
        if request.content_fields().get("silent") is True:
            self._silent.add(request.msg_id)
            return
        run = _run_of(request.msg_id)
        try:
            controller = await self._controller()
            if controller is None:
                return
            if controller.paused:
                self._tell_once(run, "warning", "the sync is paused: code runs with the files that are there")
                return
            self._ups = [*controller.take_untold(), await controller.sync("pre")]
            controller.run_happened()
        except SyncFailure as failure:
            self._refuse_or_warn(run, failure)
        except TransientError as error:
            self._refuse_or_warn(run, SyncFailure(FailureKind.OFFLINE, error.message, hint=error.hint))
        except ConflictError as error:
            self._refuse_or_warn(run, SyncFailure(FailureKind.HALTED, error.message, hint=error.hint))
        except ColabBridgeError as error:
            self._tell_once(run, "warning", f"{error.message} ({error.hint})")
        self._cursor = self._hub.record.next_seq - 1

    def _refuse_or_warn(self, run: str, failure: SyncFailure) -> None:
        if failure.kind not in _RUN_ANYWAY and not self._allow_stale(run):
            hint = f"{failure.hint}; to run with the files that are there: --allow-stale"
            raise BarrierRefused(f"not run, the files are not in step: {failure.text}", hint) from failure
        self._tell_once(run, "warning", f"the files on the runtime may be old: {failure.text} ({failure.hint})")

    async def after(self, request_header: Mapping[str, Any]) -> None:
        """See :class:`~colab_bridge.ports.barrier.Barrier`."""
        msg_id = str(request_header.get("msg_id", ""))
        if msg_id in self._silent or msg_id.startswith(SETUP_PREFIX):
            self._silent.discard(msg_id)
            return
        run = _run_of(msg_id)
        ups, self._ups = self._ups, []
        try:
            controller = await self._controller()
            if controller is None or controller.paused:
                return
            controller.run_happened()
            report = await controller.sync("post")
            ups += controller.take_untold()
        except ColabBridgeError as error:
            self._tell_once(run, "warning", f"{error.message} ({error.hint})")
            return
        except SyncFailure as failure:
            self._tell(run, "warning", f"results are not here yet: {failure.text} ({failure.hint})")
            return
        self._reports.setdefault(run, []).extend([*ups, report])
        self._say(run, [*ups, report])
        if report.deferred:
            controller.fetch_later()
        await self._help_with_missing(run, controller, msg_id)

    def run_ended(self, run: str, hushed: Collection[str]) -> None:
        """Say in one line what travelled for a run, when it ends."""
        if line := run_line(self._reports.pop(run, ()), hushed):
            self._tell(run, "sync", line)
        self._reports.clear()

    # -- words -------------------------------------------------------------------------------------------------------

    def _say(self, run: str, reports: Sequence[SyncReport]) -> None:
        last = reports[-1]
        for hold in last.holds:
            if hold.id not in self._told:
                self._told.add(hold.id)
                first, *commands = (line.strip() for line in hold_lines(hold))
                self._tell(run, "warning", f"{first}; {'   or: '.join(commands)}" if commands else first)
        for notice in (notice for report in reports for notice in report.notices):
            if notice.kind == "conflict":
                self._tell(run, "warning", f"{notice.path}: {notice.sentence}; see: {notice.command}")
        self._say_what_stays(run, reports)
        if last.deferred:
            names = listed(item.path for item in last.deferred)
            size = sum(item.size for item in last.deferred) / 2**20
            self._tell(run, "sync", f"coming down in the background: {names} ({size:.0f} MiB)")
        if last.unstable:
            self._tell(run, "info", f"still open for writing on the runtime: {listed(last.unstable)}")

    def _say_what_stays(self, run: str, reports: Sequence[SyncReport]) -> None:
        """Name results that are too large to come down by themselves, each once."""
        large = {n.path: n for report in reports for n in report.notices if n.kind == "stays-there"}
        new = [notice for path, notice in large.items() if path not in self._told]
        if new:
            self._told.update(notice.path for notice in new)
            names = listed(notice.path for notice in new)
            self._tell(run, "warning", f"{names}: {new[0].sentence}; take it along: {new[0].command}")

    def _tell(self, run: str, level: str, text: str) -> None:
        self._hub.note({"type": "notice", "run": run, "level": level, "text": text})

    def _tell_once(self, run: str, level: str, text: str) -> None:
        if (key := f"{run}/{text}") not in self._told:
            self._told.add(key)
            self._tell(run, level, text)

    async def _help_with_missing(self, run: str, controller: SyncController, msg_id: str) -> None:
        """Name the command that takes a file along, where code failed on one that exists here and stayed here."""
        for path in self._missing(msg_id):
            found = await controller.local.do(left_out_hint, controller, self._kernel.cwd, path)
            if found is not None and (key := f"{run}/{found.text}") not in self._told:
                self._told.add(key)
                self._hub.note({"type": "notice", "run": run, "level": "warning", "text": found.text, "fix": found.fix})

    def _missing(self, msg_id: str) -> list[str]:
        start = max(self._cursor, self._hub.record.next_seq - 1 - _SEARCHED_ENTRIES)
        found: list[str] = []
        for entry in self._hub.record.read(start):
            if entry.kind is not EntryKind.DOWN or not any(sign in entry.body for sign in _SIGNS):
                continue
            try:
                message = decode_v1(entry.body)
                if message.parent_id == msg_id:
                    found += missing_paths(words_of(message))
            except MessageError:
                log.debug("unreadable entry passed over")
        return found


def _run_of(msg_id: str) -> str:
    return msg_id.rpartition(".")[0] if msg_id.startswith("run-") else ""
