"""Notebooks that are published in Drive, run on a runtime, and written back to both places."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.abc
import anyio.to_thread

from colab_bridge.drive.client import DriveFile
from colab_bridge.errors import ColabBridgeError, ConflictError, UserError
from colab_bridge.execution.outcome import Outcome
from colab_bridge.execution.request import RunRequest
from colab_bridge.model.records import Run, RunKind
from colab_bridge.store.store import Store
from colab_bridge.wire.message import RawMessage

__all__ = ["Deployed", "Deployments", "DriveAccess", "Written"]

log = logging.getLogger(__name__)

#: Member of a run's stored request that makes it a deployment.
_MEMBER: Final = "deploy"
#: How far back a new daemon looks for runs whose outputs have not reached Drive.
_LOOKED_AT: Final = 200
_WRITE_WAIT_S: Final = 120.0


class DriveAccess(Protocol):
    """Puts notebooks into Drive; see :class:`~colab_bridge.drive.client.DriveClient`."""

    async def put_notebook(self, key: str, name: str, content: bytes) -> DriveFile:
        """Make or update the notebook that is kept under a key."""
        ...

    async def share(self, file_id: str, emails: Sequence[str], *, role: str = "reader") -> list[str]:
        """Let people see a file; returns the addresses that could not before."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """A deployment that has begun.

    Attributes:
        run: The run of the notebook.
        file: The notebook in Drive.
        shared: Addresses that can see it since now.
        link: Page that opens it on its runtime; its page in Drive where the runtime has none.
    """

    run: Run
    file: DriveFile
    shared: tuple[str, ...]
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of the outputs of a deployment.

    Attributes:
        file_id: The notebook in Drive.
        written: Whether Drive has the notebook with its outputs.
        problem: Why not, one line; empty when it has, or while it is not over.
    """

    file_id: str
    written: bool
    problem: str = ""


class Deployments:
    """Deploys notebooks; implements :class:`~colab_bridge.execution.jobs_observer.RunObserver`.

    Args:
        store: Where runs are remembered.
        start: Starts a run.
        drive: Returns the way to Drive for an account; the one in use when its name is empty.
        account_of: Returns the account that a run is for; empty for the one in use.
        link_of: Returns the page that opens a notebook of Drive on the runtime of a session, or empty; by session
            name and file id.
        tasks: Owner of the uploads.
        tell: Takes one sentence for people when outputs do not reach Drive.
    """

    def __init__(
        self,
        store: Store,
        start: Callable[[RunRequest], Awaitable[Run]],
        drive: Callable[[str], DriveAccess],
        account_of: Callable[[RunRequest], str],
        link_of: Callable[[str, str], str],
        tasks: anyio.abc.TaskGroup,
        tell: Callable[[str], None],
    ) -> None:
        self._store = store
        self._start = start
        self._drive = drive
        self._account_of = account_of
        self._link_of = link_of
        self._tasks = tasks
        self._tell = tell
        self._writing: dict[str, anyio.Event] = {}

    async def deploy(self, request: RunRequest, *, share_with: Sequence[str] = (), role: str = "reader") -> Deployed:
        """Publish a notebook, share it, and start its run.

        Args:
            request: A run of a notebook, in place or into another file.
            share_with: E-mail addresses.
            role: What they may do: ``reader``, ``commenter`` or ``writer``.

        Raises:
            ColabBridgeError: it cannot be published or started; then nothing runs.
        """
        part = request.notebook
        if part is None:
            raise UserError("only a notebook can be deployed", hint="name an .ipynb file")
        key = _key(request.project, part.output_path or part.path)
        name = Path(part.output_path or part.path).name
        account = self._account_of(request)
        drive = self._drive(account)
        file = await drive.put_notebook(key, name, await _content(Path(part.path)))
        shared = await drive.share(file.id, share_with, role=role) if share_with else []
        member = {"file_id": file.id, "key": key, "name": name, "link": file.link, "account": account}
        run = await self._start(request.model_copy(update={_MEMBER: member}))
        link = self._link_of(run.session, file.id) or file.link
        return Deployed(run=run, file=file, shared=tuple(shared), link=link)

    async def written(self, run_id: str) -> Written:
        """Wait until the outputs of a run that has ended are in Drive, for a bounded time.

        Raises:
            UserError: the run is none of a deployment.
            ConflictError: it has not ended.
        """
        run = self._deployment(run_id)
        if not run.status.final:
            raise ConflictError(f"run {run_id} has not ended", hint=f"colab-bridge attach {run_id}")
        if (event := self._writing.get(run_id)) is not None:
            with anyio.move_on_after(_WRITE_WAIT_S):
                await event.wait()
        member = self._deployment(run_id).spec[_MEMBER]
        return Written(
            file_id=str(member.get("file_id", "")),
            written=member.get("written") is True,
            problem=str(member.get("problem", "")),
        )

    def recover(self) -> None:
        """Write the outputs of runs that ended when no daemon could write them."""
        for run in self._store.runs(limit=_LOOKED_AT):
            member = run.spec.get(_MEMBER)
            if member and run.status.final and "written" not in member and run.id not in self._writing:
                self._begin_writing(run)

    def _deployment(self, run_id: str) -> Run:
        run = self._store.run(run_id)
        if run is None or not run.spec.get(_MEMBER):
            raise UserError(f"'{run_id[:60]}' is no run of a deployment", hint="colab-bridge deploy NOTEBOOK")
        return run

    # -- RunObserver -----------------------------------------------------------------------------------------

    def began(self, run: Run, *, resumed: bool) -> None:
        """Nothing to do."""

    def message(self, run_id: str, message: RawMessage) -> None:
        """Nothing to do."""

    def answered(self, run_id: str) -> None:
        """Nothing to do."""

    def ended(self, run: Run, outcome: Outcome) -> None:
        """Write the outputs of a deployment to Drive."""
        if run.kind is RunKind.NOTEBOOK and run.spec.get(_MEMBER):
            self._begin_writing(run)

    def _begin_writing(self, run: Run) -> None:
        self._writing[run.id] = anyio.Event()
        self._tasks.start_soon(self._write, run)

    async def _write(self, run: Run) -> None:
        """Task root: bring the notebook with its outputs to Drive, and note what came of it."""
        member = dict(run.spec[_MEMBER])
        try:
            part = run.spec.get("notebook") or {}
            content = await _content(Path(str(part.get("output_path") or part.get("path") or "")))
            await self._drive(str(member.get("account", ""))).put_notebook(
                str(member["key"]), str(member["name"]), content
            )
            member |= {"written": True, "problem": ""}
        except ColabBridgeError as error:
            member |= {"written": False, "problem": f"{error.message}; {error.hint}"}
            self._tell(f"the outputs of {member.get('name', 'a notebook')} are not in Drive: {error.message}")
        except Exception as error:
            log.exception("outputs not written to Drive", extra={"run": run.id})
            member |= {"written": False, "problem": f"internal error: {type(error).__name__}"}
        finally:
            if (known := self._store.run(run.id)) is not None and "written" in member:
                self._store.put_run(dataclasses.replace(known, spec={**known.spec, _MEMBER: member}))
            self._writing.pop(run.id).set()


async def _content(path: Path) -> bytes:
    try:
        return await anyio.to_thread.run_sync(path.read_bytes)
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error.strerror}", hint="check the file") from error


def _key(project: str, path: str) -> str:
    """Return the name by which a notebook is found again in Drive: the same for the same place on this machine."""
    return hashlib.sha256(f"{project}\0{path}".encode("utf-8", "surrogatepass")).hexdigest()[:40]
