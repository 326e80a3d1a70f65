"""The sync on a plain Jupyter server: a workspace of its own, the barrier, and links that break."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import pytest

from daemon_home import DaemonHome, Seen
from sync_pair import tree_of
from sync_rig import SyncRig

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


async def test_code_works_in_a_workspace_of_its_own_with_the_same_relative_paths(rig: SyncRig) -> None:
    (rig.project / "data").mkdir()
    (rig.project / "data" / "in.txt").write_text("42")
    seen = await rig.code("import os; open('out.txt', 'w').write(open('data/in.txt').read()); print(os.getcwd())")
    assert seen.status == "ok", seen.events
    assert seen.text().strip() == str(rig.workspace)
    assert (rig.project / "out.txt").read_text() == "42"
    (line,) = [notice["text"] for notice in seen.of("notice") if notice["level"] == "sync"]
    assert line == "1 up, 1 down: out.txt, data/in.txt"


@pytest.mark.rows("J01")
async def test_a_barrier_is_one_round_trip(rig: SyncRig) -> None:
    operations = (await rig.call("post", "sync/bench"))["operations"]
    assert {row["operation"]: (row["round_trips"], row["sent"], row["received"]) for row in operations} == {
        "pre": (1, 0, 0),
        "post": (1, 0, 0),
        "sync": (1, 0, 0),
    }


async def test_code_does_not_run_with_old_files_while_the_runtime_cannot_be_reached(rig: SyncRig) -> None:
    (rig.project / "needed.txt").write_text("new")
    rig.relay.blackhole(refuse_new=True)
    try:
        seen = await rig.code("print('ran')")
    finally:
        rig.relay.restore()
    assert (seen.status, seen.text()) == ("error", "")
    assert "not in step" in str(seen.finished["error"])
    again = await rig.code("print(open('needed.txt').read())")
    assert again.text() == "new\n", again.events


@pytest.mark.rows("J06", "J07")
async def test_what_a_run_writes_and_deletes_is_so_here_when_it_ends(rig: SyncRig) -> None:
    (rig.project / "doomed.txt").write_text("old")
    code = "import os\nfor n in range(3): open(f'result{n}.txt', 'w').write(str(n))\nos.remove('doomed.txt')"
    seen = await rig.code(code)
    assert seen.status == "ok", seen.events
    assert [(rig.project / f"result{n}.txt").read_text() for n in range(3)] == ["0", "1", "2"]
    assert not (rig.project / "doomed.txt").exists()
    entries = (await rig.call("get", "sync/trash"))["items"]
    assert "doomed.txt" in {entry["path"] for entry in entries}


@pytest.mark.rows("J10")
async def test_results_of_a_kernel_that_dies_come_down(rig: SyncRig) -> None:
    seen = await rig.code("open('last words.txt', 'w').write('written'); import os; os._exit(1)")
    assert seen.status != "ok"
    await _until_here(rig, "last words.txt")
    assert (rig.project / "last words.txt").read_text() == "written"


@pytest.mark.rows("J11")
async def test_results_of_a_run_that_is_stopped_come_down(rig: SyncRig) -> None:
    # A run that stops itself ends as one that was interrupted by hand.
    seen = await rig.code("open('half.txt', 'w').write('half'); import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    assert seen.status == "interrupted", seen.events
    assert (rig.project / "half.txt").read_text() == "half"


@pytest.mark.rows("J13")
async def test_code_runs_once_though_the_link_breaks_around_its_barrier(rig: SyncRig) -> None:
    for number in range(4):
        (rig.project / "input.txt").write_text(str(number))

        async def cut(after_s: float) -> None:
            await anyio.sleep(after_s)
            rig.relay.reset()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cut, 0.02 * number)
            seen = await rig.code("open('count.txt', 'a').write(open('input.txt').read())")
        if seen.status != "ok":
            # Not run at all: the barrier could not be passed, and says so.
            assert "not in step" in str(seen.finished["error"]), seen.events
            await rig.code("open('count.txt', 'a').write(open('input.txt').read())")
    await _until_synced(rig)
    assert (rig.project / "count.txt").read_text() == "0123"


async def _until_here(rig: SyncRig, name: str) -> None:
    with anyio.fail_after(30):
        while not (rig.project / name).exists():
            await rig.call("post", "sync", {})


async def test_a_large_file_arrives_byte_equal_both_ways_over_a_link_that_is_cut_again_and_again(rig: SyncRig) -> None:
    content = random.Random(7).randbytes(48 << 20)
    (rig.project / "large.bin").write_bytes(content)

    async def cut() -> None:
        for _ in range(5):
            await anyio.sleep(0.4)
            rig.relay.reset()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cut)
        await _until_synced(rig)
    assert (rig.workspace / "large.bin").read_bytes() == content
    changed = content[: 20 << 20] + random.Random(8).randbytes(30 << 20)
    (rig.workspace / "large.bin").write_bytes(changed)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cut)
        await _until_synced(rig)
    assert (rig.project / "large.bin").read_bytes() == changed


async def _until_synced(rig: SyncRig) -> None:
    from colab_bridge.errors import TransientError

    for _ in range(12):
        try:
            report = await rig.call("post", "sync", {})
        except TransientError:
            continue
        if not report["deferred"] and not report["failed"]:
            return
    raise AssertionError("not in step after 12 tries")


@pytest.mark.rows("K02")
async def test_a_workspace_that_was_lost_with_its_machine_deletes_nothing_at_home(rig: SyncRig) -> None:
    before = sorted(path.name for path in rig.project.iterdir())
    workspace = rig.workspace
    workspace.rename(rig.home.folder / "lost")
    workspace.mkdir()
    await rig.call("post", "sync", {})
    assert sorted(path.name for path in rig.project.iterdir()) == before
    assert (workspace / "needed.txt").read_text() == "new"


@pytest.mark.rows("K14")
async def test_a_second_machine_with_a_project_of_that_name_is_refused_in_one_line_and_changes_nothing(
    rig: SyncRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = DaemonHome(tmp_path)
    monkeypatch.setenv("COLAB_BRIDGE_HOME", str(other.home))
    (other.project / "needed.txt").write_text("of somebody else")
    before = tree_of(rig.workspace)

    def try_it() -> Seen:
        body = {"project": str(other.project), "name": "second", "provider": "jupyter", "options": {"url": rig.url}}
        other.client().post("/v1/sessions", body, timeout_s=60)
        return other.code("open('from second.txt', 'w')", session="second")

    try:
        seen = await anyio.to_thread.run_sync(try_it)
        assert seen.status == "error"
        assert "the workspace on the runtime is in use by" in str(seen.finished["error"])
        assert tree_of(rig.workspace) == before
        assert tree_of(other.project) == {"needed.txt": "of somebody else"}
    finally:
        await anyio.to_thread.run_sync(other.close)


async def test_single_files_resume_where_a_cut_has_ended_them(rig: SyncRig) -> None:
    content = random.Random(9).randbytes(12 << 20)
    (rig.home.folder / "extra.bin").write_bytes(content)
    client = rig.home.client()

    def upload() -> bool:
        body = {"local": str(rig.home.folder / "extra.bin"), "remote": "/" + str(rig.root / "extra.bin").lstrip("/")}
        with client.stream("POST", f"/v1/sessions/{rig.session}/files/upload", body) as events:
            return [event["type"] for event in events][-1] == "done"

    async def cut() -> None:
        await anyio.sleep(0.2)
        rig.relay.reset()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cut)
        for _ in range(5):
            if await anyio.to_thread.run_sync(upload):
                break
    assert (rig.root / "extra.bin").read_bytes() == content
