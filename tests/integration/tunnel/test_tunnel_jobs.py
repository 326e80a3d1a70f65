"""Requests that wait on the runtime for their turn, with nobody attached."""

from __future__ import annotations

import asyncio
import struct
import sys
from pathlib import Path

import pytest

from colab_bridge.wire.jupyter_ws import encode_v1
from tunnel_scene import DaemonEnd, Scene, execute_request, tunnelled

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="starts kernels in sessions")]


def payload(*codes: str, prefix: str = "q") -> bytes:
    frames = [encode_v1(execute_request(code, f"{prefix}{index}")) for index, code in enumerate(codes)]
    return b"".join(struct.pack("!I", len(frame)) + frame for frame in frames)


async def queue(scene: Scene, job: str, body: bytes, *, stop_on_error: bool = True) -> None:
    params = {"kernel": scene.kernel.id, "job": job, "stop_on_error": stop_on_error}
    await scene.service.call("queue", params, body, 5.0)


def events(end: DaemonEnd, job: str) -> list[str]:
    return [note["event"] for note in end.notes() if note["type"] == "job" and note["job"] == job]


async def ended(end: DaemonEnd, job: str) -> None:
    await end.until(lambda: events(end, job)[-1:] in (["finished"], ["failed"], ["cancelled"]), f"end of {job}")


async def test_a_job_runs_its_requests_in_turn_with_nobody_attached(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        await queue(scene, "one", payload("x = [1]", "x.append(2)", "print(x)"))
        end = scene.open()
        await ended(end, "one")
        assert events(end, "one") == ["started", "next", "next", "next", "finished"]
        steps = [note for note in end.notes() if note["event"] == "next"]
        assert [(note["index"], note["msg_id"]) for note in steps] == [(0, "q0"), (1, "q1"), (2, "q2")]
        assert end.stdout("q2") == "[1, 2]\n"
        assert [m.msg_id for m in end.ups()] == ["q0", "q1", "q2"]


async def test_an_error_ends_a_job_that_wants_it_and_no_other(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await queue(scene, "strict", payload("1/0", "print('no')", prefix="s"))
        await queue(scene, "lenient", payload("1/0", "print('yes')", prefix="l"), stop_on_error=False)
        await ended(end, "lenient")
        assert events(end, "strict") == ["started", "next", "failed"]
        assert events(end, "lenient") == ["started", "next", "next", "finished"]
        assert (end.stdout("s1"), end.stdout("l1")) == ("", "yes\n")


async def test_a_job_goes_on_under_the_next_agent(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await queue(scene, "long", payload("import time; time.sleep(1.5)", "print('second')", "print('third')"))
        await end.until(lambda: any(m.msg_type == "execute_input" for m in end.of("q0")))
        await scene.end()
        scene.begin()
        again = scene.open()
        await ended(again, "long")
        assert events(again, "long") == ["started", "next", "next", "next", "finished"]
        assert (again.stdout("q1"), again.stdout("q2")) == ("second\n", "third\n")
        await scene.end()
        scene.begin()
        assert scene.service._kernels[scene.kernel.id].job_names == []


async def test_the_death_of_a_kernel_fails_all_its_jobs(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await queue(scene, "one", payload("import os; os.kill(os.getpid(), 9)", "print(1)", prefix="a"))
        await queue(scene, "two", payload("print(2)", prefix="b"))
        await ended(end, "two")
        assert events(end, "one") == ["started", "next", "failed"]
        assert events(end, "two") == ["failed"]


async def test_a_job_that_is_taken_back_leaves_the_rest_alone(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await queue(scene, "one", payload("import time; time.sleep(0.5)", "print('no')", prefix="a"))
        await queue(scene, "two", payload("print('two')", prefix="b"))
        await end.until(lambda: "next" in events(end, "one"))
        answer = await scene.service.call("unqueue", {"job": "one"}, b"", 5.0)
        assert answer.result == {"found": True, "begun": True}
        await ended(end, "two")
        assert events(end, "one") == ["started", "next", "cancelled"]
        assert (end.stdout("a1"), end.stdout("b0")) == ("", "two\n")


async def leave(scene: Scene, job: str, body: bytes, **more: object) -> None:
    params = {"kernel": scene.kernel.id, "job": job, "stop_on_error": True, "patience_s": 0.1, **more}
    await scene.service.call("leave", params, body, 5.0)


def cells(end: DaemonEnd, *codes: str) -> None:
    """Send cells as the daemon does that has left the same ones with the agent."""
    for index, code in enumerate(codes):
        end.up(execute_request(code, f"q{index}"))


async def test_what_was_left_goes_on_only_when_the_daemon_has_gone_and_nothing_runs_twice(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        codes = ("n = 1; print(n)", "import time; time.sleep(2); n += 1; print(n)", "n += 1; print(n)")
        await leave(scene, "run", payload(*codes))
        cells(end, codes[0])
        await end.until_done("q0")
        cells(end, *codes[:2])
        await asyncio.sleep(1.5)
        assert events(end, "run") == []
        scene.peer.is_linked = False
        await ended(end, "run")
        assert events(end, "run") == ["started", "next", "finished"]
        assert [m.msg_id for m in end.ups()] == ["q0", "q1", "q2"]
        cells(end, *codes)
        probe = end.execute("print('n is', n)")
        await end.until_done(probe)
        assert end.stdout(probe) == "n is 3\n"


async def test_a_failed_request_of_the_daemon_ends_what_it_has_left(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await leave(scene, "run", payload("1/0", "print('no')"))
        cells(end, "1/0")
        await ended(end, "run")
        scene.peer.is_linked = False
        await asyncio.sleep(2.5)
        assert events(end, "run") == ["failed"]
        assert [m.msg_id for m in end.ups()] == ["q0"]


async def test_leaving_again_replaces_the_list_and_taking_it_back_is_silent(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        end = scene.open()
        await leave(scene, "run", payload("print('old')", prefix="old"))
        await leave(scene, "run", payload("print('new')", prefix="new"))
        await leave(scene, "other", payload("print('other')", prefix="other"))
        answer = await scene.service.call("unqueue", {"kernel": scene.kernel.id, "job": "other"}, b"", 5.0)
        assert answer.result == {"found": True, "begun": False}
        await scene.end()
        scene.begin()
        scene.peer.is_linked = False
        again = scene.open()
        await ended(again, "run")
        assert [m.msg_id for m in again.ups()] == ["new0"]
        assert events(again, "other") == []
        assert end.notes() == []
