"""The proxy process between a real Jupyter client and a scripted daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from jupyter_client.connect import write_connection_file

from colab_bridge.kernels.proxy.identity import process_of
from colab_bridge.wire.message import RawMessage
from fake_daemon import FakeDaemon
from proxy_process import PYTHONPATH, WAIT_S, ProxyProcess, stream_text

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
StartProxy = Callable[..., ProxyProcess]


def eventually(condition: Callable[[], Any]) -> Any:
    """Wait for something that another process does and that gives no event here."""
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "did not happen"
        threading.Event().wait(0.02)
    return found


def kernel_is_attached(daemon: FakeDaemon) -> bool:
    return daemon.attached == 1


# -- relaying ---------------------------------------------------------------------------------------------------


def test_a_cell_gets_its_output_and_its_reply(proxy: ProxyProcess) -> None:
    msg_id = proxy.client.execute("hello")
    assert proxy.reply(msg_id)["content"] == {"status": "ok", "execution_count": 1}
    outputs = proxy.outputs(msg_id)
    assert [m["msg_type"] for m in outputs] == ["status", "stream", "status"]
    assert stream_text(outputs) == "hello"


def test_requests_reach_the_kernel_byte_for_byte(daemon: FakeDaemon, proxy: ProxyProcess) -> None:
    session = proxy.client.session
    parts = [
        b'{ "msg_id": "m1",\t"msg_type":"complete_request", "x": 1e3}',
        b"{ }",
        b'{"cell":  7}',
        b'{"code": "\\u00e9", "n": 1.0 }',
    ]
    proxy.client.shell_channel.socket.send_multipart([b"<IDS|MSG>", session.sign(parts), *parts, b"buffer"])
    proxy.reply("m1")
    sent = daemon.call(lambda: daemon.kernel.requests[-1])
    assert sent.parts() == ("shell", *parts, (b"buffer",))


def test_replies_come_back_on_the_channel_of_their_request(proxy: ProxyProcess) -> None:
    shell = proxy.ask("shell", "history_request", {"n": 1})
    control = proxy.ask("control", "debug_request", {"seq": 2})
    assert proxy.reply(control, "control")["content"]["echo"] == {"seq": 2}
    assert proxy.reply(shell)["msg_type"] == "history_reply"


def test_binary_buffers_pass_both_ways(daemon: FakeDaemon, proxy: ProxyProcess) -> None:
    buffers = [b"", bytes(range(256)) * 1000, b"\x00"]
    message = proxy.client.session.msg("comm_msg", {"comm_id": "c", "data": {}})
    proxy.client.session.send(proxy.client.shell_channel.socket, message, buffers=buffers)
    echo = proxy.client.get_iopub_msg(timeout=WAIT_S)
    assert echo["msg_type"] == "echo"
    assert [bytes(buffer) for buffer in echo["buffers"]] == buffers


def test_a_question_of_the_kernel_goes_to_whoever_runs_the_cell(proxy: ProxyProcess) -> None:
    msg_id = proxy.client.execute("ask")
    assert proxy.client.get_stdin_msg(timeout=WAIT_S)["content"]["prompt"] == "?"
    proxy.client.input("42")
    assert stream_text(proxy.outputs(msg_id)) == "42"


def test_two_front_ends_get_their_own_replies(daemon: FakeDaemon, proxy: ProxyProcess) -> None:
    second = type(proxy.client)(connection_file=proxy.connection_file)
    second.load_connection_file()
    second.start_channels()
    try:
        assert second.get_iopub_msg(timeout=WAIT_S)["msg_type"] == "iopub_welcome"
        mine, theirs = proxy.client.execute("mine"), second.execute("theirs")
        assert second.get_shell_msg(timeout=WAIT_S)["parent_header"]["msg_id"] == theirs
        assert proxy.client.get_shell_msg(timeout=WAIT_S)["parent_header"]["msg_id"] == mine
    finally:
        second.stop_channels()
        second.context.destroy(linger=0)


def test_replies_for_others_are_not_shown(daemon: FakeDaemon, proxy: ProxyProcess) -> None:
    # The proxy asks for its kernel beside its start.
    proxy.reply(proxy.client.execute("first"))
    stranger = RawMessage.build("shell", "execute_request", {"code": "x"}, msg_id="elsewhere", session="s")
    daemon.call(lambda: daemon.kernel.take(stranger))
    msg_id = proxy.client.execute("mine")
    assert proxy.client.get_shell_msg(timeout=WAIT_S)["parent_header"]["msg_id"] == msg_id


def test_a_message_with_a_wrong_signature_is_dropped(daemon: FakeDaemon, proxy: ProxyProcess) -> None:
    proxy.client.session.key = b"wrong"
    proxy.client.execute("bad")
    proxy.client.session.key = b"secret"
    good = proxy.client.execute("good")
    proxy.reply(good)
    codes = daemon.call(lambda: [r.content_fields()["code"] for r in daemon.kernel.requests])
    assert codes == ["good"]
    assert "was dropped" in proxy.stderr


def test_requests_before_the_kernel_is_there_are_kept(daemon: FakeDaemon, start_proxy: StartProxy) -> None:
    daemon.acquire_delay_s = 1.0
    proxy = start_proxy()
    proxy.wait_until_subscribed()
    msg_id = proxy.client.execute("early")
    assert proxy.reply(msg_id)["content"]["status"] == "ok"


def test_each_subscriber_is_welcomed(proxy: ProxyProcess) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    try:
        socket.subscribe(b"topic")
        socket.connect(proxy.client._make_url("iopub"))
        assert socket.poll(WAIT_S * 1000)
        frames = socket.recv_multipart()
        assert frames[0] == b"topic"
        assert json.loads(frames[6]) == {"subscription": "topic"}
    finally:
        socket.close(linger=0)
        context.term()


def test_the_heartbeat_answers(proxy: ProxyProcess) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.REQ)
    try:
        socket.connect(proxy.client._make_url("hb"))
        socket.send(b"ping")
        assert socket.poll(WAIT_S * 1000)
        assert socket.recv() == b"ping"
    finally:
        socket.close(linger=0)
        context.term()


@posix_only
def test_ipc_sockets_work(daemon: FakeDaemon, start_proxy: StartProxy, tmp_path: Path) -> None:
    proxy = start_proxy(transport="ipc", ip=str(tmp_path / "k"))
    msg_id = proxy.client.execute("hello")
    assert proxy.reply(msg_id)["content"]["status"] == "ok"


@pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CurveZMQ")
def test_encrypted_sockets_work_and_refuse_plain_clients(daemon: FakeDaemon, start_proxy: StartProxy) -> None:
    public, secret = zmq.curve_keypair()
    proxy = start_proxy(curve_publickey=public, curve_secretkey=secret)
    proxy.wait_until_subscribed()
    assert proxy.reply(proxy.client.execute("hello"))["content"]["status"] == "ok"
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    try:
        socket.subscribe(b"")
        socket.connect(proxy.client._make_url("iopub"))
        assert not socket.poll(500)
    finally:
        socket.close(linger=0)
        context.term()


def test_a_flood_on_shell_does_not_hold_up_control(proxy: ProxyProcess) -> None:
    last = [proxy.client.kernel_info() for _ in range(2000)][-1]
    urgent = proxy.ask("control", "debug_request", {})
    proxy.reply(urgent, "control")
    assert proxy.reply(last)["msg_type"] == "kernel_info_reply"


# -- what the daemon is asked -----------------------------------------------------------------------------------


def test_the_daemon_is_told_what_the_front_end_is(daemon: FakeDaemon, start_proxy: StartProxy) -> None:
    env = {"JPY_SESSION_NAME": "a.ipynb", "COLAB_BRIDGE_X": "1"}
    proxy = start_proxy("--runtime", "gpu", "--session", "s", "--kernel-name", "ir", env=env)
    eventually(lambda: kernel_is_attached(daemon))
    body = daemon.bodies[0]
    folder = os.path.dirname(proxy.connection_file)
    assert (body["runtime"], body["session"], body["kernel_name"]) == ("gpu", "s", "ir")
    assert (body["cwd"], body["project"]) == (folder, folder)
    assert body["env"]["COLAB_BRIDGE_X"] == "1"
    assert body["identity"] == {
        "notebook": os.path.join(folder, "a.ipynb"),
        "connection_file": proxy.connection_file,
        "parent_pid": os.getpid(),
        "process": process_of(proxy.process.pid),
        "cwd": folder,
        "spec": "ir",
        "front_end": "jupyter",
    }


@pytest.mark.parametrize("style", ["PATH", "-f PATH", "--f=PATH"])
def test_the_connection_file_may_be_written_in_three_ways(
    daemon: FakeDaemon, start_proxy: StartProxy, style: str
) -> None:
    first = start_proxy()
    first.process.kill()
    first.wait()
    command = [
        sys.executable,
        "-m",
        "colab_bridge.kernels.proxy",
        *style.replace("PATH", first.connection_file).split(" "),
    ]
    env = {**os.environ, "PYTHONPATH": PYTHONPATH, "COLAB_BRIDGE_HOME": str(daemon.home)}
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as process:
        try:
            assert first.reply(first.client.kernel_info())["msg_type"] == "kernel_info_reply"
        finally:
            process.kill()


def test_a_found_kernel_is_followed_from_its_end_and_the_waiting_cell_is_told(
    daemon: FakeDaemon, start_proxy: StartProxy
) -> None:
    daemon.answer_extra = {"reattached": True, "next_seq": 1, "state": "busy"}
    proxy = start_proxy()
    proxy.wait_until_subscribed()
    eventually(lambda: kernel_is_attached(daemon))
    msg_id = proxy.client.execute("hello")
    assert "still at work from before" in stream_text(proxy.outputs(msg_id), "stderr")


# -- interrupt --------------------------------------------------------------------------------------------------


def test_an_interrupt_request_is_carried_out_and_answered(daemon: FakeDaemon, proxy: ProxyProcess) -> None:
    msg_id = proxy.client.execute("hang")
    eventually(daemon.executions)
    request = proxy.ask("control", "interrupt_request", {})
    assert proxy.reply(request, "control")["content"] == {"status": "ok"}
    assert stream_text(proxy.outputs(msg_id)) == "interrupted"


@posix_only
def test_ctrl_c_is_an_interrupt_and_not_the_end(daemon: FakeDaemon, proxy: ProxyProcess) -> None:
    msg_id = proxy.client.execute("hang")
    eventually(daemon.executions)
    proxy.process.send_signal(signal.SIGINT)
    assert stream_text(proxy.outputs(msg_id)) == "interrupted"
    assert proxy.process.poll() is None


def test_an_interrupt_stops_cells_that_wait_for_the_kernel(daemon: FakeDaemon, start_proxy: StartProxy) -> None:
    daemon.acquire_delay_s = 3.0
    proxy = start_proxy()
    proxy.wait_until_subscribed()
    msg_id = proxy.client.execute("early")
    # A damaged message behind it on the same socket: once that was reported, the execution was taken.
    proxy.client.shell_channel.socket.send_multipart([b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"{}"])
    eventually(lambda: "was dropped" in proxy.stderr)
    proxy.reply(proxy.ask("control", "interrupt_request", {}), "control")
    assert proxy.reply(msg_id, timeout_s=2.0)["content"]["ename"] == "KeyboardInterrupt"


# -- the end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [False, True])
def test_a_shutdown_request_ends_kernel_and_process(daemon: FakeDaemon, proxy: ProxyProcess, restart: bool) -> None:
    eventually(lambda: kernel_is_attached(daemon))
    request = proxy.ask("control", "shutdown_request", {"restart": restart})
    assert proxy.reply(request, "control")["content"] == {"status": "ok", "restart": restart}
    assert _shutdown_on_iopub(proxy)["content"]["restart"] is restart
    assert proxy.wait() == 0
    assert daemon.calls == ["create", "delete?restart" if restart else "delete"]


def _shutdown_on_iopub(proxy: ProxyProcess) -> dict[str, Any]:
    while (message := proxy.client.get_iopub_msg(timeout=WAIT_S))["msg_type"] != "shutdown_reply":
        pass
    return dict(message)


@posix_only
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_leaves_the_decision_to_the_daemon(daemon: FakeDaemon, proxy: ProxyProcess, name: str) -> None:
    eventually(lambda: kernel_is_attached(daemon))
    proxy.process.send_signal(getattr(signal, name))
    assert proxy.wait() == 0
    eventually(lambda: daemon.attached == 0)
    assert daemon.calls == ["create"]


@posix_only
def test_a_signal_during_the_start_gives_the_new_kernel_up(daemon: FakeDaemon, start_proxy: StartProxy) -> None:
    daemon.acquire_delay_s = 1.0
    proxy = start_proxy()
    eventually(lambda: daemon.calls)
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.wait() == 0
    assert daemon.calls == ["create", "delete"]


@posix_only
def test_the_process_goes_when_its_parent_has_gone(daemon: FakeDaemon, tmp_path: Path) -> None:
    file, _ = write_connection_file(str(tmp_path / "c.json"), key=b"k")
    script = (
        "import os, subprocess, sys; os.environ['JPY_PARENT_PID'] = str(os.getpid());"
        "a = [sys.executable, '-m', 'colab_bridge.kernels.proxy', sys.argv[1]];"
        "p = subprocess.Popen(a, start_new_session=True);"
        "print(p.pid, flush=True); sys.stdin.read()"
    )
    env = {**os.environ, "PYTHONPATH": PYTHONPATH, "COLAB_BRIDGE_HOME": str(daemon.home)}
    with subprocess.Popen(
        [sys.executable, "-c", script, file],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as parent:
        eventually(lambda: kernel_is_attached(daemon))
        parent.kill()
    eventually(lambda: daemon.attached == 0)
    assert daemon.calls == ["create"]


def test_the_death_of_the_kernel_is_the_death_of_the_process(daemon: FakeDaemon, proxy: ProxyProcess) -> None:
    proxy.client.execute("die")
    assert proxy.wait() == 1
    assert daemon.calls == ["create", "delete"]


def test_a_kernel_that_the_daemon_does_not_know_any_more_ends_the_process(
    daemon: FakeDaemon, proxy: ProxyProcess
) -> None:
    eventually(lambda: kernel_is_attached(daemon))
    daemon.kernels.clear()
    daemon.cut()
    assert proxy.wait() == 1


# -- when there is no kernel ------------------------------------------------------------------------------------


def test_a_cell_says_why_there_is_no_kernel_and_runs_once_there_is_one(
    daemon: FakeDaemon, start_proxy: StartProxy
) -> None:
    daemon.refuse()
    proxy = start_proxy()
    proxy.wait_until_subscribed()
    info = proxy.reply(proxy.client.kernel_info())["content"]
    assert "no kernelspec is called 'x'" in info["banner"]
    msg_id = proxy.client.execute("hello")
    reply = proxy.reply(msg_id)["content"]
    assert (reply["status"], reply["ename"], reply["evalue"]) == (
        "error",
        "ColabBridgeError",
        "no kernelspec is called 'x'",
    )
    error = next(m for m in proxy.outputs(msg_id) if m["msg_type"] == "error")
    assert error["content"]["traceback"] == ["no kernelspec is called 'x'", "choose one with --kernel"]
    assert "no kernelspec is called 'x'" in proxy.stderr
    assert "choose one with --kernel" in proxy.stderr
    daemon.refusal = None
    assert proxy.reply(proxy.client.execute("hello"))["content"]["status"] == "ok"


def test_a_kernel_that_could_not_be_had_can_be_shut_down(daemon: FakeDaemon, start_proxy: StartProxy) -> None:
    daemon.refuse()
    proxy = start_proxy()
    proxy.reply(proxy.client.kernel_info())
    proxy.reply(proxy.ask("control", "shutdown_request", {"restart": False}), "control")
    assert proxy.wait() == 0


def test_a_damaged_connection_file_is_said_in_two_lines(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text('{"transport": "tcp"}', encoding="utf-8")
    command = [sys.executable, "-m", "colab_bridge.kernels.proxy", str(file)]
    done = subprocess.run(
        command,
        check=False,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 2
    assert "shell_port is missing" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2


# -- a connection that breaks -----------------------------------------------------------------------------------


def test_output_during_an_absence_comes_afterwards_once_and_in_order(daemon: FakeDaemon, proxy: ProxyProcess) -> None:
    msg_id = proxy.client.execute("hang")
    request = eventually(daemon.executions)[0]
    for number in range(30):
        if number in (10, 20):
            daemon.cut()
        line = {"name": "stdout", "text": f"{number}\n"}
        daemon.call(lambda line=line: daemon.kernel.send("iopub", "stream", line, request))
    daemon.call(lambda: daemon.kernel.finish(request, "end"))
    assert stream_text(proxy.outputs(msg_id)) == "".join(f"{n}\n" for n in range(30)) + "end"


def test_requests_that_the_daemon_never_read_are_sent_again(daemon: FakeDaemon, proxy: ProxyProcess) -> None:
    eventually(lambda: kernel_is_attached(daemon))
    daemon.dropped_uploads = 3
    comm = proxy.ask("shell", "comm_msg", {"comm_id": "c", "data": {}})
    ids = [proxy.client.execute("one"), proxy.client.execute("two")]
    eventually(lambda: daemon.dropped_uploads == 0)
    daemon.cut()
    for msg_id in ids:
        assert proxy.reply(msg_id)["content"]["status"] == "ok"
    assert daemon.call(lambda: [r.msg_id for r in daemon.kernel.requests]) == [comm, *ids]


def test_a_new_daemon_at_another_address_is_found(daemon: FakeDaemon, proxy: ProxyProcess) -> None:
    eventually(lambda: kernel_is_attached(daemon))
    old = (daemon.home / "run" / "daemon.json").read_text(encoding="utf-8")
    daemon.stop()
    daemon.start()
    assert (daemon.home / "run" / "daemon.json").read_text(encoding="utf-8") != old
    assert proxy.reply(proxy.client.execute("hello"))["content"]["status"] == "ok"
    assert proxy.stderr == ""
