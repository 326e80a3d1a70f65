"""One request followed to its end, its events, and a notebook run whose kernel a test plays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from colab_bridge.errors import RuntimeLostError, UserError
from colab_bridge.execution.assembler import NotebookAssembler, cell_of, request_id
from colab_bridge.execution.events import run_events
from colab_bridge.execution.executor import ExecutionResult, execute, submit_execution
from colab_bridge.execution.notebook_file import NotebookFile
from colab_bridge.execution.notebook_run import NotebookRun, NotebookSettings
from colab_bridge.execution.outcome import Outcome
from colab_bridge.execution.rebuild import rebuild_notebook
from colab_bridge.kernels.record import MessageRecord
from colab_bridge.model.records import Run, RunKind, RunStatus
from colab_bridge.wire.message import RawMessage
from scripted_upstream import ManualClock, Scene, busy, from_kernel, idle, reply, request, stream

Answer = Callable[[RawMessage], list[RawMessage]]


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path / "records" / "kernel-1")
    made.connect()
    return made


def run_of(path: Path | None = None, **changes: Any) -> Run:
    spec = {"notebook": {"path": str(path)}} if path else {}
    values: dict[str, Any] = {"spec": spec, "status": RunStatus.RUNNING, **changes}
    return Run(id="run-1", session="s", kernel="kernel-1", kind=RunKind.NOTEBOOK, title="t", **values)


# -- one request -----------------------------------------------------------------------------------------------


async def follow(scene: Scene, *messages: RawMessage, code: str = "1") -> tuple[ExecutionResult, list[str]]:
    submit_execution(scene.hub, "run-1.0", code, session="run-1", after=0, allow_stdin=True)
    scene.say(*messages)
    seen: list[str] = []
    with anyio.fail_after(5):
        result = await execute(scene.hub, "run-1.0", 0, lambda message: seen.append(message.msg_type))
    return result, seen


async def test_an_execution_ends_with_its_reply_and_its_idle_in_either_order(scene: Scene) -> None:
    result, seen = await follow(scene, busy("run-1.0"), stream("run-1.0", "x"), idle("run-1.0"), reply("run-1.0"))
    assert (result.status, result.last_seq) == ("ok", 5)
    assert seen == ["status", "stream", "status", "execute_reply"]


async def test_messages_of_other_requests_are_none_of_its_business(scene: Scene) -> None:
    _, seen = await follow(scene, stream("run-2.0", "x"), stream("", "y"), reply("run-1.0"), idle("run-1.0"))
    assert seen == ["execute_reply", "status"]


async def test_late_outputs_of_an_earlier_cell_are_passed_on(scene: Scene) -> None:
    submit_execution(scene.hub, "run-1.1", "2", session="run-1", after=0, allow_stdin=True)
    scene.say(stream("run-1.0", "late"), reply("run-1.1"), idle("run-1.1"))
    seen: list[str] = []
    with anyio.fail_after(5):
        await execute(scene.hub, "run-1.1", 0, lambda message: seen.append(message.parent_id))
    assert seen == ["run-1.0", "run-1.1", "run-1.1"]


async def test_a_request_that_its_own_output_pushed_out_of_the_record_is_not_sent_again(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r", segment_bytes=4096, max_bytes=8192)
    first = Scene(tmp_path / "r", record=record)
    first.connect()
    submit_execution(first.hub, "run-1.0", "1", session="run-1", after=0, allow_stdin=True)
    first.say(*(stream("run-1.0", "x" * 2000) for _ in range(20)))
    assert record.first_seq > 1
    record.close()

    again = Scene(tmp_path / "r", record=MessageRecord.open(tmp_path / "r", segment_bytes=4096, max_bytes=8192))
    again.hub.adopt(after=0, server_says_busy=True)
    again.connect()
    submit_execution(again.hub, "run-1.0", "1", session="run-1", after=0, allow_stdin=True)
    assert "run-1.0" not in [message.msg_id for message in again.upstream.sent]
    assert again.hub.busy


async def test_a_failure_brings_its_name(scene: Scene) -> None:
    failed = reply("run-1.0", "error", ename="KeyError", evalue="'a'", traceback=[])
    result, _ = await follow(scene, failed, idle("run-1.0"))
    assert (result.status, result.ename, result.evalue) == ("error", "KeyError", "'a'")


@pytest.mark.parametrize("status", [None, 5, "nonsense", []])
async def test_a_status_that_makes_no_sense_is_a_failure(scene: Scene, status: Any) -> None:
    result, _ = await follow(scene, reply("run-1.0", status), idle("run-1.0"))
    assert result.status == "error"


async def test_expressions_that_make_no_sense_are_left_out(scene: Scene) -> None:
    found = {"a": {"data": {"text/plain": "3"}}, "b": {"data": 5}, "c": None, "d": {"data": {"text/plain": [1]}}}
    result, _ = await follow(scene, reply("run-1.0", user_expressions=found), idle("run-1.0"))
    assert result.expressions == {"a": "3"}


async def test_a_declared_loss_is_in_the_result(scene: Scene) -> None:
    scene.events.gap("the buffer was full")
    result, _ = await follow(scene, reply("run-1.0"), idle("run-1.0"))
    assert result.lost == "the buffer was full"


async def test_entries_that_have_left_the_record_are_a_declared_loss(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r", segment_bytes=2_000, max_bytes=6_000)
    scene = Scene(tmp_path / "r", record=record)
    scene.connect()
    for _ in range(40):
        scene.say(stream("run-1.0", "x" * 200))
    result, _ = await follow(scene, reply("run-1.0"), idle("run-1.0"))
    assert "not in the record any more" in result.lost


async def test_a_death_of_the_kernel_ends_the_wait(scene: Scene) -> None:
    with pytest.raises(RuntimeLostError, match="died"):
        await follow(scene, from_kernel("iopub", "status", {"execution_state": "dead"}, ""))


async def test_a_kernel_that_is_taken_away_ends_the_wait(scene: Scene) -> None:
    async with anyio.create_task_group() as tasks:

        async def take_away() -> None:
            await anyio.wait_all_tasks_blocked()
            scene.hub.close()

        tasks.start_soon(take_away)
        with pytest.raises(RuntimeLostError, match="shut down"):
            await follow(scene)


async def test_a_message_that_a_viewer_cannot_read_does_not_end_the_wait(scene: Scene) -> None:
    broken = stream("run-1.0", "x")
    broken.content = b"nonsense"
    result, _ = await follow(scene, broken, reply("run-1.0"), idle("run-1.0"))
    assert result.status == "ok"


@pytest.mark.parametrize(
    ("msg_id", "position"),
    [("run-1.3", 3), ("run-1.", None), ("run-1.-1", None), ("run-2.3", None), ("run-1.12345678", None), ("3", None)],
)
def test_a_request_tells_its_cell(msg_id: str, position: int | None) -> None:
    assert cell_of("run-1", msg_id) == position
    assert cell_of("run-1", request_id("run-1", 3)) == 3


# -- events ----------------------------------------------------------------------------------------------------


async def events(scene: Scene, run: Run, *, hub: bool = True, after: int = 0, follow: bool = False) -> list[Any]:
    found: list[Any] = []
    with anyio.fail_after(5):
        source = run_events(run, scene.hub if hub else None, scene.record.folder.parent, after=after, follow=follow)
        async for batch in source:
            found += batch
    return found


async def test_a_viewer_sees_one_run_up_to_its_end_and_no_other(scene: Scene) -> None:
    scene.hub.note({"type": "started", "run": "run-1", "cells": 1})
    scene.say(stream("run-1.0", "mine"), stream("run-2.0", "other"), stream("run-1", "no cell"))
    scene.hub.note({"type": "notice", "run": "run-2", "level": "info", "text": "other"})
    scene.events.gap("for all")
    scene.hub.note({"type": "finished", "run": "run-1", "status": "ok"})
    scene.say(stream("run-1.0", "after the end"))
    found = await events(scene, run_of(), follow=True)
    assert [(event["type"], event.get("text")) for event in found] == [
        ("started", None),
        ("stream", "mine"),
        ("lost", "for all"),
        ("finished", None),
    ]
    assert [event["seq"] for event in found] == [1, 2, 6, 7]


async def test_a_viewer_goes_on_behind_the_last_number(scene: Scene) -> None:
    scene.say(stream("run-1.0", "1"), stream("run-1.0", "2"))
    assert [event["text"] for event in await events(scene, run_of(), after=1)] == ["2"]


async def test_the_record_of_a_kernel_that_is_gone_can_be_read(scene: Scene) -> None:
    scene.say(stream("run-1.0", "1"))
    scene.hub.close()
    assert [event["text"] for event in await events(scene, run_of(), hub=False)] == ["1"]


async def test_a_record_that_is_gone_has_no_events(scene: Scene) -> None:
    gone = Run(id="run-1", session="s", kernel="kernel-9", kind=RunKind.CODE, title="")
    assert await events(scene, gone, hub=False) == []


# -- a notebook ------------------------------------------------------------------------------------------------


def write(path: Path, *sources: str) -> Path:
    cells = [
        {"cell_type": "code", "id": f"c{n}", "source": s, "metadata": {}, "outputs": [], "execution_count": None}
        for n, s in enumerate(sources)
    ]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def texts(path: Path) -> dict[str, str]:
    cells = json.loads(path.read_bytes())["cells"]
    return {cell["id"]: "".join("".join(o.get("text", "")) for o in cell["outputs"]) for cell in cells}


def echo(message: RawMessage) -> list[RawMessage]:
    """Play a kernel that prints the source of a cell; ``fail`` fails and ``die`` kills it."""
    cell, source = message.msg_id, message.content_fields()["code"]
    if source == "die":
        return [stream(cell, "last words"), from_kernel("iopub", "status", {"execution_state": "dead"}, "")]
    if source == "fail":
        return [stream(cell, "oh"), reply(cell, "error", ename="E", evalue="v", traceback=[]), idle(cell)]
    return [busy(cell), stream(cell, source), reply(cell), idle(cell)]


async def play(
    scene: Scene, file: NotebookFile, run: Run, answer: Answer = echo, **settings: Any
) -> tuple[Outcome, list[dict[str, Any]]]:
    scene.upstream.on_send = lambda message: scene.say(*answer(message))
    kept: list[dict[str, Any]] = []
    options = NotebookSettings(**{"save_interval_s": 0.01, **settings})
    with anyio.fail_after(10):
        notebook = NotebookRun(scene.hub, run, file, options, ManualClock(), lambda _message: None, kept.append)
        return await notebook.execute(), kept


async def test_every_cell_gets_its_own_outputs(scene: Scene, tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "a", "b")
    outcome, kept = await play(scene, NotebookFile.load(path), run_of(path, progress={"cells": [0, 1]}))
    assert (outcome.status, texts(path)) == (RunStatus.OK, {"c0": "a", "c1": "b"})
    assert [progress["done"] for progress in kept] == [1, 2]
    assert outcome.outputs == (str(path),)


async def test_a_run_stops_at_the_first_failure(scene: Scene, tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "a", "fail", "c")
    outcome, _ = await play(scene, NotebookFile.load(path), run_of(path, progress={"cells": [0, 1, 2]}))
    assert (outcome.status, outcome.exit_code, outcome.ename) == (RunStatus.ERROR, 1, "E")
    assert texts(path) == {"c0": "a", "c1": "oh", "c2": ""}


async def test_a_run_may_go_on_after_a_failure_and_still_fails(scene: Scene, tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "fail", "b")
    outcome, _ = await play(scene, NotebookFile.load(path), run_of(path, progress={"cells": [0, 1]}), keep_going=True)
    assert (outcome.status, texts(path)["c1"]) == (RunStatus.ERROR, "b")


async def test_a_death_keeps_the_last_words(scene: Scene, tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "a", "die")
    outcome, _ = await play(scene, NotebookFile.load(path), run_of(path, progress={"cells": [0, 1]}))
    assert (outcome.status, texts(path)) == (RunStatus.LOST, {"c0": "a", "c1": "last words"})


async def test_a_thread_of_an_earlier_cell_prints_into_that_cell(scene: Scene, tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "a", "b")

    def answer(message: RawMessage) -> list[RawMessage]:
        late = [stream("run-1.0", " late")] if message.msg_id == "run-1.1" else []
        return [*late, *echo(message)]

    await play(scene, NotebookFile.load(path), run_of(path, progress={"cells": [0, 1]}), answer)
    assert texts(path) == {"c0": "a late", "c1": "b"}


async def test_a_kernel_that_names_a_cell_of_nobody_changes_no_cell(scene: Scene, tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "a", "b")

    def answer(message: RawMessage) -> list[RawMessage]:
        return [stream("run-1.1", "wrong"), stream("run-1.99", "none"), *echo(message)]

    outcome, _ = await play(scene, NotebookFile.load(path), run_of(path, progress={"cells": [0]}), answer)
    assert (outcome.status, texts(path)) == (RunStatus.OK, {"c0": "a", "c1": ""})


async def interrupted_copy(scene: Scene, tmp_path: Path, *sources: str) -> tuple[Path, Path, list[dict[str, Any]]]:
    """Run the first cell into a copy, then stop as if the daemon had been killed."""
    path, target = write(tmp_path / "n.ipynb", *sources), tmp_path / "out.ipynb"
    _, kept = await play(scene, NotebookFile.load(path, target), run_of(path, progress={"cells": [0]}))
    return path, target, kept


async def test_a_later_daemon_keeps_the_outputs_of_done_cells_in_a_copy(scene: Scene, tmp_path: Path) -> None:
    path, target, kept = await interrupted_copy(scene, tmp_path, "a", "b")
    progress = {**kept[-1], "cells": [0, 1]}
    await play(scene, NotebookFile.load(path, target), run_of(path, progress=progress))
    assert texts(target) == {"c0": "a", "c1": "b"}
    assert [m.msg_id for m in scene.upstream.sent] == ["run-1.0", "run-1.1"]


async def test_a_later_daemon_does_not_go_on_after_a_failure(scene: Scene, tmp_path: Path) -> None:
    path, target, kept = await interrupted_copy(scene, tmp_path, "fail", "b")
    progress = {**kept[-1], "cells": [0, 1]}
    outcome, _ = await play(scene, NotebookFile.load(path, target), run_of(path, progress=progress))
    assert (outcome.status, outcome.ename, texts(target)) == (RunStatus.ERROR, "E", {"c0": "oh", "c1": ""})


async def test_a_display_of_a_done_cell_is_updated_by_a_later_daemon(scene: Scene, tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "a", "b")

    def shows(message: RawMessage) -> list[RawMessage]:
        first = message.msg_id == "run-1.0"
        kind = "display_data" if first else "update_display_data"
        data = {"text/plain": "old" if first else "new"}
        content = {"data": data, "metadata": {}, "transient": {"display_id": "d"}}
        return [from_kernel("iopub", kind, content, message.msg_id), reply(message.msg_id), idle(message.msg_id)]

    _, kept = await play(scene, NotebookFile.load(path), run_of(path, progress={"cells": [0]}), shows)
    progress = {**kept[-1], "cells": [0, 1]}
    await play(scene, NotebookFile.load(path), run_of(path, progress=progress), shows)
    cells = json.loads(path.read_bytes())["cells"]
    assert cells[0]["outputs"][0]["data"] == {"text/plain": ["new"]}


# -- from the record -------------------------------------------------------------------------------------------


async def test_a_rebuilt_notebook_has_what_the_run_wrote(scene: Scene, tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "a", "b")
    await play(scene, NotebookFile.load(path), run_of(path, progress={"cells": [0, 1]}))
    before = path.read_bytes()
    target = await rebuild_notebook(tmp_path / "records", run_of(path), tmp_path / "again.ipynb", scene.hub)
    assert target.read_bytes() == before


async def test_rebuilding_finds_cells_that_have_moved(scene: Scene, tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "a", "b")
    await play(scene, NotebookFile.load(path), run_of(path, progress={"cells": [0, 1]}))
    content = json.loads(path.read_bytes())
    new = {"cell_type": "code", "id": "new", "source": "n", "metadata": {}, "outputs": [], "execution_count": None}
    for cell in content["cells"]:
        cell["outputs"] = []
    content["cells"] = [new, content["cells"][1]]
    path.write_text(json.dumps(content))
    await rebuild_notebook(tmp_path / "records", run_of(path), None, scene.hub)
    assert texts(path) == {"new": "", "c1": "b"}


async def test_a_record_that_is_gone_cannot_be_rebuilt(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "a")
    with pytest.raises(UserError, match="not kept any more"):
        await rebuild_notebook(tmp_path / "records", run_of(path), None)


def test_a_copy_of_the_results_does_not_change_with_later_messages() -> None:
    assembler = NotebookAssembler("run-1", collapse_progress=False)
    assembler.apply(stream("run-1.0", "a"))
    before = assembler.results()
    assembler.apply(stream("run-1.0", "b"))
    assert before[0].outputs[0]["text"] == "a"
    assert request("x").msg_id == "x"
