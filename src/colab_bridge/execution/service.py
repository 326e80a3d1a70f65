"""Runs from request to final status, whoever watches."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import anyio
import anyio.abc
import anyio.to_thread
from pydantic import ValidationError

from colab_bridge._util.ids import new_id
from colab_bridge.config.paths import Paths
from colab_bridge.errors import ColabBridgeError, ConflictError, RuntimeLostError, UserError
from colab_bridge.execution.estimates import code_key
from colab_bridge.execution.events import Event, run_events
from colab_bridge.execution.jobs_observer import RunObserver
from colab_bridge.execution.jobs_queue import queued_requests, with_queue
from colab_bridge.execution.notebook_file import NotebookFile, cell_source
from colab_bridge.execution.notebook_run import NotebookRun, NotebookSettings
from colab_bridge.execution.outcome import Outcome
from colab_bridge.execution.plan import inject_parameters, plan_cells
from colab_bridge.execution.preparation import Preparation, prepare_kernel, prepare_notebook
from colab_bridge.execution.produced import changed_files, snapshot
from colab_bridge.execution.program import run_program
from colab_bridge.execution.rebuild import rebuild_notebook
from colab_bridge.execution.request import NotebookRequest, RunRequest
from colab_bridge.kernels.hub import HubKernel
from colab_bridge.model.records import KernelPurpose, KernelRecord, Run, RunKind, RunStatus
from colab_bridge.ports.clock import Clock
from colab_bridge.ports.remote_queue import RemoteQueue
from colab_bridge.sessions.kernels import KernelPool
from colab_bridge.sessions.service import SessionService
from colab_bridge.store.store import Store
from colab_bridge.wire.message import RawMessage

__all__ = ["CANCEL_GRACE_S", "RunService"]

log = logging.getLogger(__name__)

#: As long as the command line waits before it offers to end a kernel that ignores an interrupt.
CANCEL_GRACE_S = 5.0


@dataclasses.dataclass(slots=True)
class _Active:
    """What is known of a run only while it runs."""

    killed: bool = False
    input_parent: dict[str, Any] | None = None
    done: anyio.Event = dataclasses.field(default_factory=anyio.Event)


class RunService:
    """Starts runs, follows them to their end, and shows them.

    Args:
        store: Where runs are remembered.
        sessions: Where sessions come from.
        pool: Where kernels come from.
        paths: Our folders.
        clock: Time source.
        tasks: Owner of the runs' tasks.

    Attributes:
        queue: Where the next cells of detached notebooks lie ready while no daemon is there; None without.
    """

    def __init__(
        self,
        store: Store,
        sessions: SessionService,
        pool: KernelPool,
        paths: Paths,
        clock: Clock,
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._pool = pool
        self._paths = paths
        self._clock = clock
        self._tasks = tasks
        self._active: dict[str, _Active] = {}
        self._starting: set[Path] = set()
        self._kernel_locks: dict[str, anyio.Lock] = {}
        self._request_locks: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._observers: list[RunObserver] = []
        self.queue: RemoteQueue | None = None

    def observe(self, observer: RunObserver) -> None:
        """Have an observer told of every run from now on."""
        self._observers.append(observer)

    # -- showing ---------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> Run:
        """Return a run by id; ``last`` means the newest.

        Raises:
            UserError: there is none.
        """
        if run_id == "last":
            newest = self._store.runs(limit=1)
            if newest:
                return newest[0]
        run = self._store.run(run_id)
        if run is None:
            raise UserError(f"no run has the id '{run_id[:60]}'", hint="colab-bridge logs --list", code="CB-USER-040")
        return run

    def runs(self, *, session: str | None = None, project: str | None = None, limit: int = 50) -> list[Run]:
        """Return runs, newest first."""
        return self._store.runs(session=session, project=project, limit=limit)

    def events(self, run_id: str, *, after: int = 0, follow: bool = True) -> AsyncIterator[list[Event]]:
        """Iterate over the events of a run in batches; see ``docs/design/daemon-api.md``."""
        run = self.run(run_id)
        hub = self._hub_or_none(run.kernel)
        # Nothing comes any more for a run that has ended, on whatever its kernel does now.
        follow = follow and not run.status.final
        return run_events(run, hub, self._paths.records_dir, after=after, follow=follow)

    def _hub_or_none(self, kernel_id: str) -> HubKernel | None:
        try:
            return self._pool.hub(kernel_id)
        except RuntimeLostError:
            return None

    # -- starting --------------------------------------------------------------------------------------------

    async def start(self, request: RunRequest, *, schedule: str = "") -> Run:
        """Start a run and return as soon as it is on its kernel.

        Args:
            request: What to run.
            schedule: Id of the schedule that starts it; empty without one.

        Raises:
            ColabBridgeError: it cannot be started; nothing was run then.
        """
        if request.run_id is None:
            with self._claim(request.notebook):
                return await self._start(request, schedule)
        async with self._request_locks.setdefault(request.run_id, anyio.Lock()):
            # The caller did not hear of us the first time: it is the same run.
            if known := self._store.run(request.run_id):
                return known
            with self._claim(request.notebook):
                return await self._start(request, schedule)

    @contextlib.contextmanager
    def _claim(self, part: NotebookRequest | None) -> Iterator[None]:
        """Keep a second run off a notebook until the first one is listed as running."""
        if part is None:
            yield
            return
        target = Path(part.output_path or part.path)
        running = (run for run in self._store.runs(status=RunStatus.RUNNING, limit=1000) if run.id in self._active)
        other = next((run.id for run in running if run.kind is RunKind.NOTEBOOK and _target_of(run) == target), None)
        if other is not None or target in self._starting:
            raise ConflictError(
                f"{target.name} is being run already ({other or 'it starts'})",
                hint=f"watch it with: colab-bridge attach {other or 'last'}",
                code="CB-CONFLICT-001",
            )
        self._starting.add(target)
        try:
            yield
        finally:
            self._starting.discard(target)

    async def _start(self, request: RunRequest, schedule: str) -> Run:
        file = await self._load(request.notebook) if request.notebook else None
        session = await self._sessions.ensure(request.wish())
        async with self._kernel_locks.setdefault(session.name, anyio.Lock()):
            prepared = await prepare_kernel(self._pool, session, request, file)
        hub = self._pool.hub(prepared.kernel.id)
        settings = self._sessions.settings(request.project, request.env)
        run = Run(
            id=request.run_id or new_id("run"),
            session=session.name,
            kernel=prepared.kernel.id,
            kind=request.kind,
            title=request.title(),
            spec={
                **request.stored(),
                "run_cwd": prepared.cwd,
                "save_interval_s": settings.notebook.save_interval_s,
                "collapse_progress": settings.notebook.collapse_progress,
                "announce": settings.notify.model_dump(include={"when", "after_s", "desktop"}),
                "account": session.account,
                "local": session.provider == "local" and not session.options.get("isolated"),
                **(_notebook_keys(request.project, file, prepared.cells) if file else {}),
                **({"schedule": schedule} if schedule else {}),
            },
            status=RunStatus.RUNNING,
            first_seq=hub.record.next_seq - 1,
            created_at=self._clock.time(),
            progress={"cells": prepared.cells, "done": 0} if file else {},
        )
        self._store.put_run(run, session.project)
        self._announce(hub, run, prepared)
        self._begin(run, request, file, hub, resumed=False)
        return run

    async def _load(self, part: NotebookRequest) -> NotebookFile:
        path, target = Path(part.path), Path(part.output_path) if part.output_path else None
        file = await anyio.to_thread.run_sync(NotebookFile.load, path, target)
        await anyio.to_thread.run_sync(file.check_writable)
        inject_parameters(file.content, part.parameters)
        plan_cells(file.cells, resume=part.resume, only=part.cells)
        return file

    def _announce(self, hub: HubKernel, run: Run, prepared: Preparation) -> None:
        hub.note({"type": "started", "run": run.id, "kernel": run.kernel, "cells": len(prepared.cells)})
        for text in prepared.notices:
            hub.note({"type": "notice", "run": run.id, "level": "warning", "text": text})

    def _begin(
        self, run: Run, request: RunRequest, file: NotebookFile | None, hub: HubKernel, *, resumed: bool
    ) -> None:
        self._active[run.id] = _Active()
        for observer in self._observers:
            observer.began(run, resumed=resumed)
        self._tasks.start_soon(self._drive, run, request, file, hub)

    async def recover(self, kernels: list[KernelRecord]) -> None:
        """Go on with the runs that an earlier daemon left unfinished.

        Args:
            kernels: Kernels that live.
        """
        living = {kernel.id for kernel in kernels}
        for run in self._store.runs(status=RunStatus.RUNNING, limit=1000):
            try:
                await self._go_on(run, living)
            except (ColabBridgeError, ValidationError, OSError) as error:
                log.warning("run not taken up", extra={"run": run.id, "reason": str(error)[:200]})
                reason = error.message if isinstance(error, ColabBridgeError) else type(error).__name__
                self._finish_offline(run, reason)
        used = {run.kernel for run in self._store.runs(status=RunStatus.RUNNING, limit=1000)}
        for kernel in kernels:
            # Made for a program by a daemon that died before the program was on it.
            if kernel.purpose is KernelPurpose.SCRIPT and kernel.id not in used:
                with contextlib.suppress(ColabBridgeError):
                    await self._pool.delete(kernel.id)

    async def _go_on(self, run: Run, living: set[str]) -> None:
        request = RunRequest.model_validate({k: v for k, v in run.spec.items() if k in RunRequest.model_fields})
        if run.kernel not in living:
            await self._bury(run, request)
            return
        file = None
        if request.notebook:
            file = await anyio.to_thread.run_sync(prepare_notebook, request.notebook)
            file.restore_order([str(key) for key in run.spec.get("cell_keys") or file.cell_keys()])
        self._begin(run, request, file, self._pool.hub(run.kernel), resumed=True)

    async def _bury(self, run: Run, request: RunRequest) -> None:
        """End a run whose kernel did not survive, with everything that was recorded of it in the notebook."""
        self._finish_offline(run, "the kernel was gone when the daemon came back")
        if request.notebook:
            with contextlib.suppress(ColabBridgeError, OSError):
                await rebuild_notebook(self._paths.records_dir, self.run(run.id), None)

    def _finish_offline(self, run: Run, reason: str) -> None:
        ended = dataclasses.replace(
            run, status=RunStatus.LOST, exit_code=69, finished_at=self._clock.time(), output_may_be_lost=reason
        )
        self._store.put_run(ended)
        self._tell_end(ended, Outcome(status=RunStatus.LOST, exit_code=69, ename="KernelLost", evalue=reason))

    def _tell_end(self, run: Run, outcome: Outcome) -> None:
        for observer in self._observers:
            observer.ended(run, outcome)

    # -- driving ---------------------------------------------------------------------------------------------

    async def _drive(self, run: Run, request: RunRequest, file: NotebookFile | None, hub: HubKernel) -> None:
        """Task root of one run."""
        active = self._active[run.id]
        started = self._clock.monotonic()
        try:
            if file is not None:
                outcome = await self._notebook(run, request, file, hub)
            else:
                sink = self._sink(run.id)
                outcome = await run_program(hub, run, request, run.spec.get("run_cwd"), sink)
        except RuntimeLostError as error:
            outcome = Outcome(status=RunStatus.LOST, exit_code=69, ename="KernelLost", evalue=error.message)
        except ColabBridgeError as error:
            outcome = Outcome(status=RunStatus.ERROR, exit_code=1, ename=type(error).__name__, evalue=error.message)
        except Exception as error:
            log.exception("run failed", extra={"run": run.id})
            outcome = Outcome(status=RunStatus.ERROR, exit_code=70, ename="InternalError", evalue=str(error)[:200])
        if active.killed:
            outcome = dataclasses.replace(outcome, status=RunStatus.INTERRUPTED, exit_code=130)
        # Of a run that was taken up, only the clock on the wall knows how long it took.
        self._finish(run, hub, outcome, max(self._clock.monotonic() - started, self._clock.time() - run.created_at))
        self._active.pop(run.id, None)
        active.done.set()
        try:
            await self._after(run, request, outcome)
        except Exception:
            log.exception("kernel of a run not removed", extra={"run": run.id})

    async def _notebook(self, run: Run, request: RunRequest, file: NotebookFile, hub: HubKernel) -> Outcome:
        part = request.notebook
        settings = NotebookSettings(
            allow_stdin=request.allow_stdin,
            keep_going=bool(part and part.keep_going),
            save_interval_s=float(run.spec.get("save_interval_s", 2.0)),
            collapse_progress=bool(run.spec.get("collapse_progress", True)),
        )
        folder = file.path.parent
        before = await anyio.to_thread.run_sync(snapshot, folder) if run.spec.get("local") else None
        notebook = NotebookRun(hub, run, file, settings, self._clock, self._sink(run.id), self._checkpoint(run.id))
        requests = queued_requests(
            run.id,
            file,
            list(run.progress.get("cells", []))[int(run.progress.get("done", 0)) :],
            allow_stdin=settings.allow_stdin,
            keep_going=settings.keep_going,
        )
        queue = self.queue if request.detached else None
        outcome = await with_queue(queue, run, requests, notebook.execute, keep_going=settings.keep_going)
        after = await anyio.to_thread.run_sync(snapshot, folder) if before is not None else None
        made = tuple(str(folder / name) for name in changed_files(before, after))
        return dataclasses.replace(outcome, outputs=tuple(dict.fromkeys((*outcome.outputs, *made))))

    def _checkpoint(self, run_id: str) -> Callable[[dict[str, Any]], None]:
        def checkpoint(progress: dict[str, Any]) -> None:
            # Without it a daemon that takes over reads more of the record: no reason to stop the notebook.
            with contextlib.suppress(ColabBridgeError):
                self._store.put_run(dataclasses.replace(self.run(run_id), progress=progress))

        return checkpoint

    def _sink(self, run_id: str) -> Callable[[RawMessage], None]:
        active = self._active[run_id]

        def sink(message: RawMessage) -> None:
            if message.msg_type == "input_request":
                active.input_parent = message.header_fields()
            elif message.msg_type == "execute_reply":
                active.input_parent = None  # whatever it asked, nobody waits for the answer any more
            for observer in self._observers:
                observer.message(run_id, message)

        return sink

    def _finish(self, run: Run, hub: HubKernel, outcome: Outcome, duration_s: float) -> None:
        try:
            known = self.run(run.id)
            ended = dataclasses.replace(
                known,
                status=outcome.status,
                exit_code=outcome.exit_code,
                finished_at=self._clock.time(),
                output_may_be_lost=outcome.lost or (outcome.evalue if outcome.status is RunStatus.LOST else ""),
                progress={**known.progress, "result": {"error": outcome.error(), "outputs": list(outcome.outputs)}},
            )
            self._store.put_run(ended)
            self._tell_end(ended, outcome)
        except ColabBridgeError as error:
            # Viewers see the end in the record; a later daemon reads it there and stores it.
            log.error("end of a run not stored", extra={"run": run.id, "reason": error.message})  # noqa: TRY400  # no defect
        hub.note(
            {
                "type": "finished",
                "run": run.id,
                "status": str(outcome.status),
                "exit_code": outcome.exit_code,
                "duration_s": round(duration_s, 3),
                "error": outcome.error(),
                "outputs": list(outcome.outputs),
            }
        )

    async def _after(self, run: Run, request: RunRequest, outcome: Outcome) -> None:
        """Remove a kernel that nobody can need any more."""
        kernel = next((kernel for kernel in self._pool.kernels() if kernel.id == run.kernel), None)
        if kernel is None or kernel.purpose in (KernelPurpose.MAIN, KernelPurpose.FRONTEND):
            return
        keep = request.notebook is not None and (request.notebook.keep_kernel or outcome.status is not RunStatus.OK)
        if not keep or outcome.status is RunStatus.LOST:
            with contextlib.suppress(ColabBridgeError):
                await self._pool.delete(run.kernel)

    # -- acting on a run -------------------------------------------------------------------------------------

    def _running(self, run_id: str) -> tuple[Run, _Active]:
        run = self.run(run_id)
        active = self._active.get(run.id)
        if active is None:
            raise ConflictError(
                f"run {run.id} has ended ({run.status})", hint=f"colab-bridge logs {run.id}", code="CB-CONFLICT-002"
            )
        return run, active

    async def interrupt(self, run_id: str) -> None:
        """Interrupt a run; it goes on when its code catches the interrupt."""
        run, _ = self._running(run_id)
        await self._pool.interrupt(run.kernel)

    async def kill(self, run_id: str, *, restart: bool) -> None:
        """End the kernel of a run, with all its variables, and start it anew if asked."""
        run, active = self._running(run_id)
        active.killed = True
        try:
            await (self._pool.restart(run.kernel) if restart else self._pool.delete(run.kernel))
        except ColabBridgeError:
            active.killed = False  # it goes on, and ends with a status of its own
            raise
        with anyio.move_on_after(10):
            await active.done.wait()

    async def cancel(self, run_id: str, *, grace_s: float = CANCEL_GRACE_S) -> str:
        """End a run for good: interrupt it, and end its kernel when it has not ended then.

        Args:
            run_id: The run.
            grace_s: Seconds that it has after the interrupt.

        Returns:
            ``interrupted``, or ``killed`` when it took the end of its kernel.
        """
        run, active = self._running(run_id)
        with contextlib.suppress(ColabBridgeError), anyio.move_on_after(grace_s):
            await self._pool.interrupt(run.kernel)
            await active.done.wait()
        if not active.done.is_set():
            await self.kill(run.id, restart=False)
            return "killed"
        kernel = next((kernel for kernel in self._pool.kernels() if kernel.id == run.kernel), None)
        if kernel is not None and kernel.purpose in (KernelPurpose.SCRIPT, KernelPurpose.NOTEBOOK):
            with contextlib.suppress(ColabBridgeError):
                await self._pool.delete(run.kernel)
        return "interrupted"

    def waits_for_input(self, run_id: str) -> bool:
        """Whether a run waits for an answer to a question."""
        active = self._active.get(run_id)
        return active is not None and active.input_parent is not None

    def answer(self, run_id: str, value: str, *, eof: bool) -> None:
        """Answer the input request that a run waits for.

        Raises:
            ConflictError: it does not wait for input.
        """
        run, active = self._running(run_id)
        if active.input_parent is None:
            raise ConflictError(f"run {run.id} does not wait for input", hint="try again", code="CB-CONFLICT-003")
        content = {"status": "ok", "value": "\x04" if eof else value}
        parent, active.input_parent = active.input_parent, None
        for observer in self._observers:
            observer.answered(run.id)
        self._pool.hub(run.kernel).submit(
            RawMessage.build("stdin", "input_reply", content, msg_id=new_id("in"), session=run.id, parent=parent)
        )

    async def save(self, run_id: str, path: str | None) -> Path:
        """Write what the record holds of a notebook run into the notebook, or into another file.

        Returns:
            The file that was written.
        """
        run = self.run(run_id)
        if run.kind is not RunKind.NOTEBOOK:
            raise UserError(f"run {run.id} is no notebook run", hint=f"colab-bridge logs {run.id}", code="CB-USER-041")
        target = Path(path) if path else None
        return await rebuild_notebook(self._paths.records_dir, run, target, self._hub_or_none(run.kernel))


def _notebook_keys(project: str, file: NotebookFile, cells: list[int]) -> dict[str, Any]:
    """Return what tells the cells of a notebook apart, and by what the times of those to run are known."""
    return {
        "cell_keys": file.cell_keys(),
        "code_keys": [code_key(project, cell_source(file.cells[position])) for position in cells],
    }


def _target_of(run: Run) -> Path:
    part = run.spec.get("notebook") or {}
    return Path(str(part.get("output_path") or part.get("path") or ""))
