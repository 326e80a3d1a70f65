"""Front ends whose kernels are reached through the tunnel: of a plain Jupyter server and of an isolated runtime."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
from anyio.from_thread import start_blocking_portal
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from colab_bridge.testing.jupyter import start_jupyter_server
from deaf_cells import IN_C_CODE, STUBBORN
from frontends_support import WAIT_S, Bridge, FrontEnd, bridge, eventually, text_of
from test_frontends_debugger import CODE as DEBUGGED
from test_frontends_debugger import Debugger

__all__ = ["bridge"]

pytestmark = [
    pytest.mark.ecosystem,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals"),
]

ISOLATED, SERVER = "colab-bridge-own", "colab-bridge-far"
#: The short form tries one of them; `make campaign-frontends` both.
RUNTIMES = [SERVER, ISOLATED] if os.environ.get("COLAB_BRIDGE_CAMPAIGN") else [SERVER]
POOL = """\
import multiprocessing, time
pool = multiprocessing.get_context('fork').Pool(2)
print('children', *(child.pid for child in multiprocessing.active_children()), flush=True)
print('ready', flush=True)
pool.map(time.sleep, [100, 100])
"""


def command(bridge: Bridge, *argv: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Type a command in the project's folder."""
    program = "from colab_bridge.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *argv],
        cwd=bridge.project,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.fixture(scope="module")
def desk(bridge: Bridge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """Two configured runtimes, and the kernelspecs of both as ``kernels install`` writes them.

    The server has its default limits. The file sync is off: it makes a cell's ``idle`` wait for files, and the suites
    of others count milliseconds.
    """
    root = tmp_path_factory.mktemp("root")
    with (
        pytest.MonkeyPatch.context() as patch,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(start_jupyter_server(root)) as server,
    ):
        patch.setenv("XDG_DATA_HOME", str(root / "share"))
        far = f"http://127.0.0.1:{server.port}/?token={server.token}"
        for argv in (
            ("config", "set", "sync.enabled", "false"),
            ("config", "set", "transport", "tunnel"),
            ("config", "set", "runtimes.own.provider", "local"),
            ("config", "set", "runtimes.own.isolated", "true"),
            ("config", "add-runtime", "far", "--url", far),
            ("kernels", "install"),
        ):
            done = command(bridge, *argv)
            assert done.returncode == 0, done.stderr
        try:
            yield bridge
        finally:
            # While the server is still there to give its kernels back.
            for session in bridge.client().get("/v1/sessions")["sessions"]:
                bridge.client().delete(f"/v1/sessions/{session['name']}", timeout_s=40)
            names = [" ".join(process.cmdline())[:200] for process in bridge.processes()]
            # The daemon, and the server that is not its.
            assert [name for name in names if "colab_bridge.daemon" not in name and "cb-jupyter-" not in name] == []


@pytest.fixture(scope="module", params=RUNTIMES)
def kernel(desk: Bridge, request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def front(desk: Bridge, kernel: str) -> Iterator[FrontEnd]:
    """One front end for the tests that leave nothing behind."""
    found = FrontEnd(desk.project, kernel=kernel)
    assert kernel_of(desk, found)["transport"] == "tunnel"
    yield found
    found.close()


@pytest.fixture
def other(desk: Bridge, kernel: str) -> Iterator[FrontEnd]:
    """A front end of the test's own, which may do what it likes to it."""
    found = FrontEnd(desk.project, kernel=kernel)
    yield found
    found.close()


def kernel_of(desk: Bridge, front: FrontEnd) -> dict[str, object]:
    """Return what the daemon says about the kernel behind a front end."""
    name = os.path.basename(front.manager.connection_file)
    (found,) = [k for k in desk.kernels() if os.path.basename(k["key"]) == name]
    return found


def begin(front: FrontEnd, code: str) -> str:
    """Execute code that goes on, and return the request's id once it has said ``ready``."""
    msg_id = str(front.client.execute(code))
    front.published(lambda m: m["msg_type"] == "stream" and "ready" in m["content"]["text"], 40)
    return msg_id


def test_output_of_every_kind_comes_in_order(front: FrontEnd) -> None:
    messages = front.run(
        "import sys\nfrom IPython.display import display, update_display, clear_output\nprint('out')\n"
        "print('err', file=sys.stderr)\ndisplay('first', display_id='d')\nupdate_display('second', display_id='d')\n"
        "clear_output()\n1 / 0"
    )
    kinds = [m["msg_type"] for m in messages if m["msg_type"] not in ("status", "execute_input")]
    assert kinds == ["stream", "stream", "display_data", "update_display_data", "clear_output", "error"]
    assert [m["content"].get("execution_state") for m in (messages[0], messages[-1])] == ["busy", "idle"]


def test_questions_and_comms_with_buffers_pass_both_ways(front: FrontEnd) -> None:
    msg_id = front.client.execute("print('Hello', input('Name? '))")
    assert front.client.get_stdin_msg(timeout=WAIT_S)["content"]["prompt"] == "Name? "
    front.client.input("Ada")
    assert text_of(front.outputs(msg_id)).endswith("Hello Ada\n")
    front.run(
        "from comm import get_comm_manager\n"
        "def opened(c, message):\n"
        "    c.on_msg(lambda m: c.send({'n': len(m['buffers'])}, buffers=[bytes(b)[::-1] for b in m['buffers']]))\n"
        "get_comm_manager().register_target('echo', opened)"
    )
    front.outputs(front.ask("shell", "comm_open", {"comm_id": "c1", "target_name": "echo", "data": {}}))
    buffers = [b"abc", b"", bytes(range(256)) * 50_000]  # more than a server takes in one message
    messages = front.outputs(front.ask("shell", "comm_msg", {"comm_id": "c1", "data": {}}, buffers=buffers), 60)
    (echo,) = [m for m in messages if m["msg_type"] == "comm_msg"]
    assert [bytes(b) for b in echo["buffers"]] == [b[::-1] for b in buffers]


def test_a_widget_takes_new_values(front: FrontEnd) -> None:
    pytest.importorskip("ipywidgets")
    messages = front.run("import ipywidgets\nslider = ipywidgets.IntSlider(value=3)\nslider", 60)
    opened = [m["content"] for m in messages if m["msg_type"] == "comm_open"]
    (model,) = [c for c in opened if c["data"]["state"].get("_model_name") == "IntSliderModel"]
    update = {"method": "update", "state": {"value": 8}, "buffer_paths": []}
    front.outputs(front.ask("shell", "comm_msg", {"comm_id": model["comm_id"], "data": update}))
    assert text_of(front.run("print(slider.value)")) == "8\n"


def test_completion_answers_while_output_floods(front: FrontEnd) -> None:
    front.run(
        "import threading\nover = threading.Event()\ndef flood():\n    n = 0\n    while not over.wait(0.0005):\n"
        "        print('flood', n, 'x' * 200); n += 1\nflooder = threading.Thread(target=flood); flooder.start()"
    )
    try:
        for _ in range(5):
            assert (
                "flooder" in front.content("shell", "complete_request", {"code": "flood", "cursor_pos": 5})["matches"]
            )
    finally:
        messages = front.run("over.set(); flooder.join()")
    assert any(m["msg_type"] == "stream" for m in front.seen + messages)


def test_a_cell_stops_at_a_breakpoint_and_goes_on(other: FrontEnd) -> None:
    debug = Debugger(other)
    debug.attach()
    source = {"path": debug("dumpCell", code=DEBUGGED)["sourcePath"]}
    points = debug("setBreakpoints", source=source, breakpoints=[{"line": 3}], sourceModified=False)
    assert points["breakpoints"][0]["verified"] is True
    debug("configurationDone")
    msg_id = other.client.execute(DEBUGGED)
    thread = debug.stopped()
    assert debug("stackTrace", threadId=thread)["stackFrames"][0]["line"] == 3
    debug("continue", threadId=thread)
    assert other.reply(msg_id)["content"]["status"] == "ok"


@pytest.mark.parametrize("code", [IN_C_CODE, STUBBORN], ids=["in C code", "swallows the interrupt"])
def test_a_kernel_that_does_not_listen_counts_as_busy_and_is_restarted(
    desk: Bridge, other: FrontEnd, code: str
) -> None:
    begin(other, code)
    other.manager.interrupt_kernel()
    if code == STUBBORN:
        other.published(lambda m: m["msg_type"] == "stream" and "ignored" in m["content"]["text"])
        assert kernel_of(desk, other)["state"] == "busy"
    other.manager.restart_kernel()
    other.client.wait_for_ready(timeout=40)
    assert text_of(other.run("print('code' in globals(), 'new')")) == "False new\n"
    eventually(lambda: kernel_of(desk, other)["state"] == "idle", "the new kernel is idle")


def test_an_interrupt_reaches_a_kernel_with_children_and_a_restart_ends_them(desk: Bridge, other: FrontEnd) -> None:
    msg_id = begin(other, POOL)
    children = [int(word) for word in text_of(other.seen).split() if word.isdigit()]
    assert len(children) == 2
    other.manager.interrupt_kernel()
    assert other.reply(msg_id)["content"]["ename"] == "KeyboardInterrupt"
    assert text_of(other.run("print('alive')")) == "alive\n"
    other.manager.restart_kernel()
    other.client.wait_for_ready(timeout=40)
    assert text_of(other.run("print('pool' in globals())")) == "False\n"
    eventually(lambda: not any(psutil.pid_exists(child) for child in children), "the children have ended")


def test_a_kernel_that_dies_ends_the_proxy_and_status_knows(desk: Bridge, other: FrontEnd) -> None:
    mine = kernel_of(desk, other)["id"]
    process = other.manager.provisioner.process
    other.client.execute("import os; os._exit(1)")
    assert process.wait(WAIT_S) == 1
    eventually(lambda: mine not in desk.kernel_ids(), "the kernel is not listed any more")
    other.manager.restart_kernel(now=True)
    other.client.wait_for_ready(timeout=40)
    assert text_of(other.run("print('again')")) == "again\n"


def test_nbclient_runs_a_notebook_and_sees_a_death(desk: Bridge, kernel: str) -> None:
    def client(*cells: str) -> NotebookClient:
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        resources = {"metadata": {"path": str(desk.project)}}
        return NotebookClient(book, kernel_name=kernel, timeout=60, resources=resources)

    done = client("x = 6", "for n in range(50_000): print(n)", "x * 7").execute()
    assert "".join(output.text for output in done.cells[1].outputs) == "".join(f"{n}\n" for n in range(50_000))
    assert done.cells[2].outputs[0].data["text/plain"] == "42"
    with pytest.raises(DeadKernelError):
        client("import os; os._exit(1)").execute()


def test_papermill_passes_parameters(desk: Bridge, kernel: str) -> None:
    pytest.importorskip("papermill")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in ("n = 1", "print(n * 6)")])
    book.cells[0].metadata["tags"] = ["parameters"]
    book.metadata["kernelspec"] = {"name": kernel, "display_name": "x", "language": "python"}
    nbformat.write(book, desk.project / "in.ipynb")
    argv = ["in.ipynb", "out.ipynb", "-k", kernel, "-p", "n", "7", "--no-progress-bar"]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", *argv],
        cwd=desk.project,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert nbformat.read(desk.project / "out.ipynb", 4).cells[-1].outputs[0].text == "42\n"


def test_a_console_prints_asks_and_is_interrupted(desk: Bridge, kernel: str) -> None:
    pexpect = pytest.importorskip("pexpect")
    pytest.importorskip("jupyter_console")
    argv = ["-m", "jupyter_console", "--simple-prompt", "--kernel", kernel]
    console = pexpect.spawn(sys.executable, argv, cwd=str(desk.project), encoding="utf-8", timeout=40)
    try:
        console.expect(r"In \[1\]:", timeout=60)
        console.sendline("name = input('Who? ')")
        console.expect(r"Who\? ")
        console.sendline("Ada")
        console.expect(r"In \[2\]:")
        console.sendline("print('slee' + 'ping', flush=True); import time; time.sleep(60)")
        console.expect("sleeping")
        console.sendintr()
        console.expect("KeyboardInterrupt")
        console.expect(r"In \[3\]:")
        console.sendline("print(name * 2)")
        console.expect("AdaAda")
        console.sendline("exit()")
        console.expect(pexpect.EOF)
    finally:
        console.close(force=True)


def test_front_end_and_daemon_die_and_the_notebook_is_complete_afterwards(desk: Bridge, kernel: str) -> None:
    path = desk.project / f"long-{kernel}.ipynb"
    source = "import time\nfor n in range(80): print(n, flush=True); time.sleep(0.1)\nkept = 'kept'"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(book, path)
    cell = book.cells[0].id
    env = {"JPY_SESSION_NAME": str(path)}
    first = FrontEnd(desk.project, kernel=kernel, env=env)
    try:
        content = {"code": source, "silent": False, "store_history": True, "allow_stdin": False}
        request = first.client.session.msg("execute_request", content, metadata={"cellId": cell})
        first.client.shell_channel.send(request)
        first.published(lambda m: m["msg_type"] == "stream" and "5" in m["content"]["text"], 40)
        psutil.Process(first.pid).kill()
        os.kill(desk.daemon_pid, signal.SIGKILL)
        eventually(lambda: not first.manager.is_alive(), "the proxy is dead")
        assert command(desk, "status").returncode == 0  # it starts a daemon
        assert command(desk, "daemon", "start").returncode == 0

        def printed() -> str:
            outputs = nbformat.read(path, nbformat.NO_CONVERT).cells[0].outputs
            return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")

        eventually(lambda: printed() == "".join(f"{n}\n" for n in range(80)), "the notebook is complete", 60)
        assert nbformat.read(path, nbformat.NO_CONVERT).cells[0].execution_count == 1
    finally:
        first.close()


def conformance(desk: Bridge, kernel: str) -> dict[str, str]:
    suite = Path(__file__).with_name("conformance_suite.py")
    done = subprocess.run(
        [sys.executable, str(suite), kernel], cwd=desk.project, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.timeout(300)
def test_the_conformance_suite_passes_but_for_what_no_ipython_passes(desk: Bridge) -> None:
    failed = {name: what for name, what in conformance(desk, SERVER).items() if what != "passed"}
    # The suite gives each message behind an output 0.1 s, which a loaded machine does not keep to: once more is fair.
    if any("hist_access_type='range'" not in name for name in failed):
        failed = {name: what for name, what in conformance(desk, SERVER).items() if what != "passed"}
    assert [name for name in failed if "hist_access_type='range'" not in name] == [], failed
