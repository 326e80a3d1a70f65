"""Notebooks that go to Drive, run, and come back to both places. Drive is played: it cannot be reached here."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import anyio
import pytest

from colab_bridge.drive.client import DriveFile
from colab_bridge.errors import ConflictError, TransientError, UserError
from colab_bridge.execution.deployments import Deployments
from colab_bridge.execution.outcome import Outcome
from colab_bridge.execution.request import NotebookRequest, RunRequest
from colab_bridge.model.records import Run, RunKind, RunStatus
from colab_bridge.store.store import Store


class Drive:
    """Keeps what is put, by key."""

    def __init__(self) -> None:
        self.files: dict[str, list[bytes]] = {}
        self.shared: list[str] = []
        self.fails = False

    async def put_notebook(self, key: str, name: str, content: bytes) -> DriveFile:
        if self.fails:
            raise TransientError("Drive is away", hint="try again")
        versions = self.files.setdefault(key, [])
        versions.append(content)
        return DriveFile(id=f"id-{key[:4]}", name=name, link="https://drive/x", created=len(versions) == 1)

    async def share(self, file_id: str, emails: Sequence[str], *, role: str = "reader") -> list[str]:
        self.shared += [f"{email}:{role}" for email in emails]
        return list(emails)


class Scene:
    """Deployments over a real store, with runs that end when the test says so."""

    def __init__(self, store: Store, folder: Path, tasks: anyio.abc.TaskGroup) -> None:
        self.store, self.tasks = store, tasks
        self.drive = Drive()
        self.told: list[str] = []
        self.accounts: list[str] = []
        self.project = folder
        self.notebook = folder / "a.ipynb"
        self.notebook.write_text("before")
        self.restart()

    def restart(self) -> None:
        self.deployments = Deployments(
            self.store,
            self._start,
            self._drive_of,
            lambda request: str(request.options.get("account", "")),
            lambda session, file_id: f"https://colab/{session}/{file_id}",
            self.tasks,
            self.told.append,
        )

    def _drive_of(self, account: str) -> Drive:
        self.accounts.append(account)
        return self.drive

    async def _start(self, request: RunRequest) -> Run:
        run = Run(
            id="run-1",
            session="s",
            kernel="k",
            kind=RunKind.NOTEBOOK,
            title="a",
            spec=request.stored(),
            status=RunStatus.RUNNING,
            created_at=1.0,
        )
        self.store.put_run(run, request.project)
        return run

    def request(self) -> RunRequest:
        return RunRequest(
            kind=RunKind.NOTEBOOK,
            project=str(self.project),
            cwd=str(self.project),
            notebook=NotebookRequest(path=str(self.notebook)),
        )

    def end(self, run: Run) -> Run:
        ended = dataclasses.replace(run, status=RunStatus.OK, exit_code=0)
        self.store.put_run(ended)
        return ended


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    store = Store.open(tmp_path / "state.db")
    async with anyio.create_task_group() as tasks:
        yield Scene(store, tmp_path, tasks)
        tasks.cancel_scope.cancel()
    store.close()


async def test_the_notebook_is_in_drive_and_shared_before_it_runs(scene: Scene) -> None:
    deployed = await scene.deployments.deploy(scene.request(), share_with=["ada@x.org"], role="writer")
    assert list(scene.drive.files.values()) == [[b"before"]]
    assert scene.drive.shared == ["ada@x.org:writer"]
    assert deployed.link == f"https://colab/s/{deployed.file.id}"


async def test_after_the_run_drive_has_the_outputs_too(scene: Scene) -> None:
    deployed = await scene.deployments.deploy(scene.request())
    scene.notebook.write_text("after")
    run = scene.end(deployed.run)
    scene.deployments.ended(run, Outcome(status=RunStatus.OK, exit_code=0))
    with anyio.fail_after(5):
        state = await scene.deployments.written("run-1")
    assert (state.written, state.problem) == (True, "")
    assert list(scene.drive.files.values()) == [[b"before", b"after"]]


async def test_a_second_deployment_updates_the_same_file(scene: Scene) -> None:
    first = await scene.deployments.deploy(scene.request())
    second = await scene.deployments.deploy(scene.request())
    assert (first.file.created, second.file.created) == (True, False)
    assert first.file.id == second.file.id


async def test_nothing_runs_when_drive_takes_nothing(scene: Scene) -> None:
    scene.drive.fails = True
    with pytest.raises(TransientError):
        await scene.deployments.deploy(scene.request())
    assert scene.store.run("run-1") is None


async def test_outputs_that_do_not_reach_drive_are_said(scene: Scene) -> None:
    deployed = await scene.deployments.deploy(scene.request())
    scene.drive.fails = True
    scene.deployments.ended(scene.end(deployed.run), Outcome(status=RunStatus.OK, exit_code=0))
    with anyio.fail_after(5):
        state = await scene.deployments.written("run-1")
    assert not state.written
    assert "Drive is away" in state.problem
    assert scene.told


async def test_a_daemon_that_comes_later_writes_the_outputs(scene: Scene) -> None:
    deployed = await scene.deployments.deploy(scene.request())
    scene.notebook.write_text("after")
    scene.end(deployed.run)
    scene.restart()
    scene.deployments.recover()
    with anyio.fail_after(5):
        assert (await scene.deployments.written("run-1")).written
    scene.deployments.recover()
    assert list(scene.drive.files.values()) == [[b"before", b"after"]]


async def test_a_run_that_has_not_ended_is_not_waited_for(scene: Scene) -> None:
    await scene.deployments.deploy(scene.request())
    with pytest.raises(ConflictError):
        await scene.deployments.written("run-1")


async def test_a_script_cannot_be_deployed(scene: Scene) -> None:
    request = RunRequest(kind=RunKind.CODE, code="1", project=str(scene.project), cwd=str(scene.project))
    with pytest.raises(UserError):
        await scene.deployments.deploy(request)


async def test_another_run_is_no_deployment(scene: Scene) -> None:
    with pytest.raises(UserError):
        await scene.deployments.written("run-2")


async def test_outputs_go_to_the_account_that_published_also_after_a_restart(scene: Scene) -> None:
    deployed = await scene.deployments.deploy(scene.request().model_copy(update={"options": {"account": "b@x.org"}}))
    scene.end(deployed.run)
    scene.restart()
    scene.deployments.recover()
    with anyio.fail_after(5):
        assert (await scene.deployments.written("run-1")).written
    assert scene.accounts == ["b@x.org", "b@x.org"]
