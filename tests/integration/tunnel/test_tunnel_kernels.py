"""The tunnel service with real kernels: nothing is lost, doubled or reordered, whoever dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from colab_bridge.agent.events import StreamData
from colab_bridge.agent.process.service import CallFailure
from colab_bridge.agent.tunnel import link, upward
from colab_bridge.wire.message import RawMessage
from tunnel_scene import WAIT_S, DaemonEnd, Scene, execute_request, tunnelled

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="starts kernels in sessions")]


def names(notes: list[dict[str, object]]) -> list[object]:
    return [note["type"] for note in notes]


async def settled(end: DaemonEnd) -> None:
    """Bring a kernel to the point where it has executed something."""
    await end.until_done(end.execute("pass"))


async def test_a_cell_is_journalled_with_its_request_first_and_everything_it_says(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        msg_id = end.execute("print('one')\n6*7")
        await end.until_done(msg_id)
        assert [m.msg_id for m in end.ups()] == [msg_id]
        up_number = next(number for number, kind, _body in end.entries if kind == 1)
        first_down = next(n for n, kind, body in end.entries if kind == 0 and msg_id.encode() in body)
        assert up_number < first_down
        assert sorted(m.msg_type for m in end.of(msg_id)) == sorted(
            ["status", "execute_input", "stream", "execute_result", "status", "execute_reply"]
        )
        assert end.stdout(msg_id) == "one\n"
        assert [number for number, _kind, _body in end.entries] == list(range(1, len(end.entries) + 1))
        assert not [m for m in end.downs() if m.msg_type in ("kernel_info_reply", "iopub_welcome")]


async def test_input_and_interrupts_reach_a_busy_kernel(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        asking = end.execute("print('got', input('name? '))")
        await end.until(lambda: "stdin:input_request" in end.briefs())
        (request,) = [m for m in end.downs() if m.msg_type == "input_request"]
        end.up(
            RawMessage.build(
                "stdin", "input_reply", {"value": "Ada"}, msg_id="i1", session="daemon", parent=request.header_fields()
            )
        )
        await end.until_done(asking)
        assert end.stdout(asking) == "got Ada\n"
        looping = end.execute("print('on', flush=True)\nwhile True: pass")
        await end.until(lambda: end.stdout(looping) == "on\n")
        assert (await scene.status())["busy"] is True
        end.up(RawMessage.build("control", "interrupt_request", {}, msg_id="c1", session="daemon"))
        await end.until_done(looping)
        assert [m.content_fields()["ename"] for m in end.of(looping) if m.msg_type == "error"] == ["KeyboardInterrupt"]
        assert (await scene.status())["busy"] is False


async def test_what_a_user_types_reaches_the_kernel_and_no_disk(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        asking = end.execute("import getpass; print(len(getpass.getpass('password: ')))")
        await end.until(lambda: "stdin:input_request" in end.briefs())
        (request,) = [m for m in end.downs() if m.msg_type == "input_request"]
        answer = {"value": "correct-horse-battery"}
        parent = request.header_fields()
        end.up(RawMessage.build("stdin", "input_reply", answer, msg_id="i1", session="daemon", parent=parent))
        await end.until_done(asking)
        assert end.stdout(asking) == "21\n"
        (journalled,) = [m for m in end.ups() if m.msg_type == "input_reply"]
        assert (journalled.msg_id, journalled.content_fields()) == ("i1", {})
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert any(b"getpass" in file.read_bytes() for file in files)
        assert [file for file in files if b"correct-horse-battery" in file.read_bytes()] == []


async def test_a_flood_arrives_complete_though_its_reader_begins_late(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open(reading=False)
        small = end.execute("for i in range(20_000): display({'text/plain': str(i)}, raw=True)")
        large = end.execute(
            "import sys\nfor i in range(50): sys.stdout.write(chr(97+i%26)*1_000_000); sys.stdout.flush()"
        )
        lines = end.execute(
            "for i in range(5000): print('\\n'.join(f'{n:09}' + '.'*90 for n in range(i*100, i*100+100)))"
        )
        last = end.execute("'the last one'")
        # With the window full nothing comes down any more: the journal takes the rest.
        await scene_idle_after(scene, 4)
        assert end.total_bytes < 6 * 1024 * 1024
        end.read_on()
        await end.until_done(last)
        by_request: dict[str, list[RawMessage]] = {}
        for message in end.downs():
            by_request.setdefault(message.parent_id, []).append(message)
        shown = [m.content_fields()["data"]["text/plain"] for m in by_request[small] if m.msg_type == "display_data"]
        assert shown == [str(i) for i in range(20_000)]
        text = "".join(m.content_fields()["text"] for m in by_request[large] if m.msg_type == "stream")
        assert text == "".join(chr(97 + i % 26) * 1_000_000 for i in range(50))
        text = "".join(m.content_fields()["text"] for m in by_request[lines] if m.msg_type == "stream")
        assert text == "".join(f"{i:09}" + "." * 90 + "\n" for i in range(500_000))
        assert [number for number, _kind, _body in end.entries] == list(range(1, len(end.entries) + 1))


async def scene_idle_after(scene: Scene, executions: int) -> None:
    """Wait until the kernel has done with so many executions, without reading."""
    journal = scene.service._kernels[scene.kernel.id]
    for _ in range(2400):
        if journal.journal is not None and journal._requests._lines >= 2 * executions:
            return
        await asyncio.sleep(0.05)  # nothing tells a daemon that does not read
    raise AssertionError("the kernel never got that far")


async def test_a_reply_overtakes_fifty_megabytes_of_output_that_nobody_has_read(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await end.until_done(end.execute("pass"))
        come = asyncio.Event()
        end.stop_reading()
        scene.peer.on_early = lambda: come.set() if len(scene.peer.early) == 3 else None
        flood = end.execute("for n in range(50): print('x' * 999_999, flush=True)")
        end.up(
            RawMessage.build("shell", "complete_request", {"code": "zi", "cursor_pos": 2}, msg_id="typed", session="s")
        )
        await asyncio.wait_for(come.wait(), WAIT_S)
        assert len(end.stdout(flood)) < 5_000_000
        early = sorted((message.parent_id, message.msg_type) for message in scene.peer.early)
        assert early == [("typed", "complete_reply"), ("typed", "status"), ("typed", "status")]
        end.read_on()
        await end.until_done("typed")
        assert len(end.stdout(flood)) == 50_000_000
        assert sorted(message.parts() for message in end.of("typed")) == sorted(m.parts() for m in scene.peer.early)


async def test_nothing_overtakes_where_nothing_waits(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await end.until_done(end.execute("print('x')"))
        end.up(
            RawMessage.build("shell", "complete_request", {"code": "zi", "cursor_pos": 2}, msg_id="typed", session="s")
        )
        await end.until_done("typed")
        assert scene.peer.early == []


async def test_a_request_is_carried_out_once_also_by_the_next_agent(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        code = "import os; n = globals().get('n', 0) + 1; print(n)"
        await end.until_done(end.execute(code, "twice"))
        end.execute(code, "twice")
        probe = end.execute("print('n is', n)")
        await end.until_done(probe)
        assert end.stdout(probe) == "n is 1\n"
        await scene.end()
        scene.begin()
        again = scene.open(resume_from=end.entries[-1][0] + 1)
        seq = again.up(execute_request(code, "twice"))
        probe = again.execute("print('n is', n)")
        await again.until_done(probe)
        assert again.stdout(probe) == "n is 1\n"
        assert seq in again.taken
        assert [m.msg_id for m in again.ups()] == [probe]


async def test_large_messages_go_up_whole_and_are_acknowledged_when_journalled(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        code = f"s = '{'z' * 3_000_000}'\nprint(len(s))"
        seq = end.up(execute_request(code, "big"))
        await end.until_done("big")
        assert end.stdout("big") == "3000000\n"
        assert end.taken[-1] == seq


async def test_a_kernel_that_is_killed_is_reported_after_its_last_output(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        # What a kernel has not written to its sockets when it is killed is lost in any case: so it waits a little.
        code = "import os, time; print('last words', flush=True); time.sleep(0.5); os.kill(os.getpid(), 9)"
        dying = end.execute(code)
        waiting = end.execute("print('never')")
        await end.until(lambda: "died" in names(end.notes()))
        assert end.stdout(dying) == "last words\n"
        assert end.entries[-1][1] == 2
        status = await scene.status()
        assert (status["state"], status["busy"], status["pid"]) == ("dead", False, None)
        scene.kernel.kill()
        scene.kernel.start()
        fresh = end.execute("print('again')")
        await end.until_done(fresh)
        assert end.stdout(fresh) == "again\n"
        assert not end.stdout(waiting)
        assert names(end.notes()) == ["died", "restarted"]


async def test_a_kernel_whose_forked_child_holds_its_sockets_is_seen_to_have_died(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        forking = end.execute(
            "import os, time\nif os.fork() == 0:\n    time.sleep(300)\n    os._exit(0)\nprint('forked')"
        )
        await end.until_done(forking)
        assert scene.kernel.process is not None
        assert (await scene.status())["pid"] == scene.kernel.process.pid
        os.kill(scene.kernel.process.pid, signal.SIGKILL)
        await end.until(lambda: "died" in names(end.notes()))


@pytest.mark.parametrize("held_open", [False, True], ids=["alone", "with a child that holds its sockets"])
async def test_where_processes_cannot_be_seen_a_dead_kernel_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_open: bool
) -> None:
    monkeypatch.setattr(link, "can_see_processes", lambda: False)
    monkeypatch.setattr(link, "find_process", lambda *_args: None)
    monkeypatch.setattr(link, "DIED_UNSEEN_S", 0.5)
    monkeypatch.setattr(link, "_BEAT_S", 0.3)
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await settled(end)
        if held_open:
            await end.until_done(end.execute("import os, time\nif os.fork() == 0: time.sleep(300)"))
        assert (await scene.status())["pid"] is None
        await asyncio.sleep(3)  # beats of a kernel that lives
        assert end.notes() == []
        assert scene.kernel.process is not None
        os.kill(scene.kernel.process.pid, signal.SIGKILL)
        await end.until(lambda: names(end.notes()) == ["died"])


async def test_no_output_is_missing_after_a_restart_and_no_request_is_lost_in_it(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await settled(end)
        for round_ in range(4):
            scene.kernel.kill()
            scene.kernel.start()
            msg_id = end.execute(f"print('first of {round_}')")
            await end.until_done(msg_id)
            assert sorted(m.msg_type for m in end.of(msg_id)) == sorted(
                ["status", "execute_input", "stream", "status", "execute_reply"]
            )
            assert names(end.notes()) == ["restarted"] * (round_ + 1)
            note_at = max(number for number, kind, _body in end.entries if kind == 2)
            assert all(n > note_at for n, _kind, body in end.entries if msg_id.encode() in body)


async def test_the_next_agent_takes_a_running_cell_up_and_gets_its_reply(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        code = "import time\nfor i in range(40):\n    print(i, flush=True); time.sleep(0.1)"
        running = end.execute(code)
        await end.until(lambda: "5\n" in end.stdout(running))
        await scene.end()
        seen = end.entries[-1][0]
        scene.begin()
        await scene.until_state("alive")
        again = scene.open(resume_from=seen + 1)
        await again.until_done(running)
        assert names(again.notes()) == ["lost"]
        assert again.entries[0][0] == seen + 1
        told = [int(line) for line in (end.stdout(running) + again.stdout(running)).split()]
        assert told == sorted(set(told))
        assert told[-1] == 39
        (reply,) = [m for m in again.of(running) if m.msg_type == "execute_reply"]
        assert reply.content_fields()["status"] == "ok"


async def test_a_cell_that_ends_while_no_agent_runs_gets_an_end(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        marker = tmp_path / "done"
        running = end.execute(f"import time, pathlib\ntime.sleep(1)\npathlib.Path({str(marker)!r}).touch()")
        await end.until(lambda: any(m.msg_type == "execute_input" for m in end.of(running)))
        await scene.end()
        while not marker.exists():
            await asyncio.sleep(0.05)  # the kernel is alone
        await asyncio.sleep(0.3)  # its reply goes to nobody
        scene.begin()
        again = scene.open(resume_from=end.entries[-1][0] + 1)
        await again.until_done(running)
        (reply,) = [m for m in again.of(running) if m.msg_type == "execute_reply"]
        assert reply.content_fields()["ename"] == "OutputLost"
        assert reply.parent_fields()["session"] == "daemon"
        assert names(again.notes()) == ["lost"]
        assert (await scene.status())["busy"] is False


async def test_an_idle_kernel_is_taken_up_without_a_word(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await settled(end)
        await scene.end()
        scene.begin()
        await scene.until_state("alive")
        again = scene.open(resume_from=end.entries[-1][0] + 1)
        msg_id = again.execute("print('still here')")
        await again.until_done(msg_id)
        assert (again.notes(), again.stdout(msg_id)) == ([], "still here\n")


async def test_a_kernel_that_was_restarted_while_no_agent_ran_is_said_to_be(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await settled(end)
        await scene.end()
        scene.kernel.kill()
        scene.kernel.start()
        scene.begin()
        again = scene.open(resume_from=end.entries[-1][0] + 1)
        await again.until_done(again.execute("pass"))
        assert names(again.notes()) == ["restarted"]


async def test_the_journal_of_a_kernel_that_was_shut_down_can_still_be_read(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await settled(end)
        await scene.end()
        scene.kernel.kill()
        scene.kernel.path.unlink()
        scene.begin()
        again = scene.open()
        await again.until(lambda: names(again.notes()) == ["died"])
        assert again.entries[: len(end.entries)] == end.entries
        assert again.closed_with is None


async def test_a_kernel_without_a_connection_file_is_unreachable_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "APPEAR_S", 0.2)
    async with tunnelled(tmp_path, start=False) as scene:
        scene.kernel.path.unlink()
        end = scene.open()
        await end.until(lambda: end.closed_with is not None)
        assert end.closed_with is not None
        assert end.closed_with[0] == "unreachable"
        assert scene.kernel.id in end.closed_with[1]
        while (scene.folder / "tunnel" / scene.kernel.id).exists():
            await asyncio.sleep(0.02)  # deleted in a thread
        assert (await scene.service.call("kernels", {}, b"", 1.0)).result == {"kernels": []}
        assert scene.service.busy() is False


async def test_a_kernel_that_never_answers_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "APPEAR_S", 0.2)
    async with tunnelled(tmp_path, start=False) as scene:
        end = scene.open()
        await end.until(lambda: end.closed_with is not None)
        assert end.closed_with is not None
        assert end.closed_with[0] == "unreachable"


@pytest.mark.parametrize("kind", ["ipc", "unsigned", "encrypted"])
async def test_every_kind_of_connection_works(tmp_path: Path, kind: str) -> None:
    options: dict[str, object] = {}
    if kind == "ipc":
        options = {"transport": "ipc", "ip": str(tmp_path / "s"), "shell_port": 1, "iopub_port": 2}
        options |= {"stdin_port": 3, "control_port": 4, "hb_port": 5}
    elif kind == "unsigned":
        options = {"key": b""}
    else:
        import zmq

        public, secret = zmq.curve_keypair()
        options = {"curve_publickey": public, "curve_secretkey": secret}
    async with tunnelled(tmp_path, kernel=options) as scene:
        end = scene.open()
        msg_id = end.execute("print('through')")
        await end.until_done(msg_id)
        assert end.stdout(msg_id) == "through\n"


async def test_a_daemon_that_knows_higher_numbers_is_told_that_the_journal_was_lost(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open(resume_from=5000)
        await settled(end)
        assert end.entries[0][0] == 5000
        assert names(end.notes()) == ["lost"]
        assert (await scene.status())["next"] == end.entries[-1][0] + 1


async def test_forgetting_a_kernel_closes_its_streams_and_deletes_its_journal(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await settled(end)
        assert (await scene.service.call("forget", {"kernel": scene.kernel.id}, b"", 5.0)).result == {"forgotten": True}
        assert end.closed_with is not None
        assert not (scene.folder / "tunnel" / scene.kernel.id).exists()
        fresh = scene.open()
        await settled(fresh)
        assert fresh.entries[0][0] == 1


async def test_a_journal_that_is_full_declares_what_left_it_by_a_jump_of_numbers(tmp_path: Path) -> None:
    async with tunnelled(tmp_path, journal_bytes=40_000_000) as scene:
        end = scene.open(reading=False)
        end.execute("import sys\nfor i in range(150): sys.stdout.write('x'*1_000_000); sys.stdout.flush()")
        await scene_idle_after(scene, 1)
        late = scene.open()
        end.handler.closed("", "")
        probe = late.execute("pass")
        await late.until_done(probe)
        numbers = [number for number, _kind, _body in late.entries]
        assert numbers[0] > 50
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert (await scene.status())["first"] == numbers[0]


async def test_with_no_room_on_the_disk_output_still_arrives_and_the_status_says_so(tmp_path: Path) -> None:
    async with tunnelled(tmp_path, reserve_bytes=1 << 60) as scene:
        end = scene.open()
        msg_id = end.execute("print('without a disk')")
        await end.until_done(msg_id)
        assert end.stdout(msg_id) == "without a disk\n"
        assert "memory only" in (await scene.status())["text"]
        assert not list((scene.folder / "tunnel" / scene.kernel.id / "journal").glob("*.rec"))


async def test_a_message_that_is_too_large_is_said_to_be_lost_and_the_next_one_goes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upward, "_MAX_MESSAGE_BYTES", 2 * 1024 * 1024)
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await settled(end)
        seq = end.up(execute_request(f"s = '{'z' * 3_000_000}'", "big"))
        after = end.execute("print('after')")
        await end.until_done(after)
        assert names(end.notes()) == ["lost"]
        assert seq in end.taken
        assert end.stdout(after) == "after\n"


async def test_hostile_parameters_and_payloads_are_refused(tmp_path: Path) -> None:
    async with tunnelled(tmp_path, start=False) as scene:
        for params in ({}, {"kernel": "../../etc"}, {"kernel": 5}):
            end = DaemonEnd("x")
            end.params = params
            with pytest.raises(CallFailure, match="id of a kernel"):
                scene.service.open(end)
        for verb, params, payload in (
            ("nothing", {}, b""),
            ("forget", {"kernel": "a/b"}, b""),
            ("unqueue", {}, b""),
            ("queue", {"kernel": scene.kernel.id, "job": "j"}, b""),
            ("queue", {"kernel": scene.kernel.id, "job": "j"}, b"\xff\xff\xff\xff"),
            ("queue", {"kernel": scene.kernel.id, "job": "j"}, b"\0\0\0\1x"),
            ("queue", {"kernel": scene.kernel.id, "job": ""}, b""),
        ):
            with pytest.raises(CallFailure):
                await scene.service.call(verb, params, payload, 5.0)
        end = scene.open()
        for garbage in (b"", b"\0" * 100, b"\xff" * 100):
            end.handler.data(StreamData(stream=2, seq=1, number=1, header={}, payload=garbage, final=True))
        assert end.taken == [1, 1, 1]
