"""The local runtime, with real servers and real kernels."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from websockets.sync.client import connect

from colab_bridge._util.process import ProcessId, descendants, find_by_argument, is_alive, terminate
from colab_bridge.errors import RuntimeLostError, TransientError, UserError
from colab_bridge.model.runtime import Endpoint, RuntimeHandle, RuntimeRequest
from colab_bridge.providers.local import LocalProvider
from colab_bridge.providers.local_interpreter import InterpreterCache, choose_interpreter

pytestmark = pytest.mark.anyio
Acquire = Callable[..., Awaitable[RuntimeHandle]]
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and signals")


class Client:
    """Just enough of a Jupyter client to run code."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def call(self, method: str, path: str, body: object = None) -> Any:
        with httpx2.Client(trust_env=False, timeout=30) as client:
            headers = self.endpoint.plain_headers()
            response = client.request(method, self.endpoint.base_url + path, headers=headers, json=body)
        assert response.status_code < 300, response.text
        return response.json() if response.content else None

    def start(self, path: str = "", name: str = "python3") -> str:
        return str(self.call("POST", "/api/kernels", {"name": name, "path": path})["id"])

    def run(self, kernel: str, code: str) -> str:
        """Run code and return what it printed."""
        url = f"ws{self.endpoint.base_url[4:]}/api/kernels/{kernel}/channels"
        with connect(url, additional_headers=self.endpoint.plain_headers(), max_size=None, proxy=None) as link:
            msg_id = uuid.uuid4().hex
            header = {"msg_id": msg_id, "msg_type": "execute_request", "session": "s", "username": "", "version": "5.3"}
            content = {
                "code": code,
                "silent": False,
                "store_history": False,
                "allow_stdin": False,
                "stop_on_error": True,
            }
            parts = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "buffers": []}
            link.send(json.dumps({**parts, "channel": "shell"}))
            printed = []
            while True:
                message = json.loads(link.recv(timeout=60))
                if message["parent_header"].get("msg_id") != msg_id:
                    continue
                assert message["msg_type"] != "error", message["content"]
                if message["msg_type"] == "stream":
                    printed.append(message["content"]["text"])
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    return "".join(printed)

    def value(self, kernel: str, expression: str) -> Any:
        """Return the value of a JSON-ready expression."""
        return json.loads(self.run(kernel, f"import json, os, sys; print(json.dumps({expression}))"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a place that breaks careless programs."""
    folder = tmp_path / ".hidden" / "größe & blank 'x'"
    (folder / "sub" / ".deep").mkdir(parents=True)
    return folder


@pytest.fixture
def provider(tmp_path: Path) -> LocalProvider:
    return LocalProvider(tmp_path / ".state dir")


@pytest.fixture
async def acquire(provider: LocalProvider, project: Path) -> AsyncIterator[Acquire]:
    """Acquire a runtime with some options; all are released at the end."""
    handles: list[RuntimeHandle] = []

    async def get(**options: Any) -> RuntimeHandle:
        chosen = {"python": sys.executable, **options}
        handle = await provider.acquire(RuntimeRequest(session="s/1", project=str(project), options=chosen))
        handles.append(handle)
        return handle

    yield get
    for handle in handles:
        await provider.release(handle)


def _process(handle: RuntimeHandle) -> ProcessId:
    return ProcessId(pid=handle.data["pid"], create_time=handle.data["create_time"])


def _folder(handle: RuntimeHandle) -> Path:
    return Path(handle.data["log"]).parent


async def test_kernels_work_in_the_project_folder_also_below_hidden_ones(
    provider: LocalProvider, acquire: Acquire, project: Path
) -> None:
    handle = await acquire()
    client = Client(await provider.attach(handle))
    assert handle.root == str(project)
    assert client.value(client.start(), "os.getcwd()") == os.path.realpath(project)
    assert client.value(client.start("sub/.deep"), "os.getcwd()") == os.path.realpath(project / "sub" / ".deep")


async def test_an_isolated_runtime_has_a_workspace_that_outlives_it(
    provider: LocalProvider, acquire: Acquire, project: Path
) -> None:
    first = await acquire(isolated=True)
    client = Client(await provider.attach(first))
    client.run(client.start(), "open('kept.txt', 'w').write('x')")
    await provider.release(first)
    assert first.root is not None and not Path(first.root).is_relative_to(project)
    assert not (project / "kept.txt").exists()
    assert (Path(first.root) / "kept.txt").read_text() == "x"
    assert (await acquire(isolated=True)).root == first.root


async def test_a_server_survives_the_process_that_started_it(
    provider: LocalProvider, project: Path, tmp_path: Path
) -> None:
    code = (
        "import anyio, json, os, sys, dataclasses; from pathlib import Path\n"
        "from colab_bridge.model.runtime import RuntimeRequest\n"
        "from colab_bridge.providers.local import LocalProvider\n"
        "r = RuntimeRequest(session='s', project=sys.argv[1], options={'python': sys.executable})\n"
        "h = anyio.run(LocalProvider(Path(sys.argv[2])).acquire, r)\n"
        "print(json.dumps(dataclasses.asdict(h)), flush=True); os.kill(os.getpid(), 9)"
    )
    argv = [sys.executable, "-c", code, str(project), str(tmp_path / ".state dir")]
    with anyio.fail_after(60):
        done = await anyio.run_process(argv, check=False)
    handle = RuntimeHandle(**json.loads(done.stdout))
    try:
        client = Client(await provider.attach(handle))
        assert client.value(client.start(), "1 + 1") == 2
    finally:
        await provider.release(handle)
    assert not is_alive(_process(handle))


@posix
async def test_files_with_the_token_are_private_and_nothing_else_shows_it(acquire: Acquire) -> None:
    handle = await acquire()
    token = str(handle.data["token"])
    holders = [path for path in _folder(handle).rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert {path.name for path in holders} == {"config.json", f"jpserver-{handle.data['pid']}.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in holders} == {0o600}
    assert stat.S_IMODE(_folder(handle).stat().st_mode) == 0o700
    for name in ("cmdline", "environ") if sys.platform == "linux" else ():
        assert token.encode() not in Path(f"/proc/{handle.data['pid']}/{name}").read_bytes()


async def test_user_code_sees_neither_our_secrets_nor_the_token(
    provider: LocalProvider, acquire: Acquire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLAB_BRIDGE_ACCESS_TOKEN", "geheim")
    monkeypatch.setenv("THE_USERS_OWN", "kept")
    handle = await acquire()
    client = Client(await provider.attach(handle))
    seen = client.value(client.start(), "dict(os.environ)")
    assert seen["THE_USERS_OWN"] == "kept"
    assert "COLAB_BRIDGE_ACCESS_TOKEN" not in seen
    assert [name for name in seen if name.startswith(("JUPYTER_", "COLAB_BRIDGE_"))] == []
    assert handle.data["token"] not in json.dumps(seen)


async def test_output_is_not_limited(provider: LocalProvider, acquire: Acquire) -> None:
    endpoint = await provider.attach(await acquire())
    assert endpoint.unlimited_output
    client = Client(endpoint)
    # The usual limits are 3 MB and 3,000 messages in 3 s.
    printed = client.run(client.start(), "import sys\nfor i in range(200): print('x' * 50_000); sys.stdout.flush()")
    assert printed.count("x") == 10_000_000


async def test_the_users_own_configuration_and_extensions_are_not_read(
    provider: LocalProvider, acquire: Acquire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "user-config"
    (config / "jupyter_server_config.d").mkdir(parents=True)
    (config / "jupyter_server_config.py").write_text("c.ServerApp.base_url = '/elsewhere/'; raise SystemExit(3)")
    (config / "jupyter_config.json").write_text('{"ServerApp": {"base_url": "/elsewhere/"}}')
    enabled = {"ServerApp": {"jpserver_extensions": {"no_such_extension": True}}}
    (config / "jupyter_server_config.d" / "x.json").write_text(json.dumps(enabled))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(config))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(config))
    handle = await acquire()
    assert (await provider.attach(handle)).base_url == f"http://127.0.0.1:{handle.data['port']}"
    assert "no_such_extension" not in Path(handle.data["log"]).read_text()


async def test_a_gateway_in_the_environment_does_not_take_the_kernels_away(
    provider: LocalProvider, acquire: Acquire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_GATEWAY_URL", "http://127.0.0.1:1")
    client = Client(await provider.attach(await acquire()))
    assert client.value(client.start(), "2") == 2


async def test_other_kernels_are_offered_and_our_proxies_are_not(
    provider: LocalProvider, acquire: Acquire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("julia-1.11", "python3", "colab-bridge-local"):
        folder = tmp_path / "jupyter" / "kernels" / name
        folder.mkdir(parents=True)
        spec = {"argv": ["false"], "display_name": f"foreign {name}", "language": "x"}
        (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    client = Client(await provider.attach(await acquire()))
    specs = client.call("GET", "/api/kernelspecs")["kernelspecs"]
    assert specs["julia-1.11"]["spec"]["display_name"] == "foreign julia-1.11"
    assert specs["python3"]["spec"]["argv"][0] == sys.executable
    assert "colab-bridge-local" not in specs
    with httpx2.Client(trust_env=False, timeout=30) as plain:
        body = {"name": "colab-bridge-local"}
        headers = client.endpoint.plain_headers()
        refused = plain.post(client.endpoint.base_url + "/api/kernels", headers=headers, json=body)
    assert refused.status_code >= 400


async def test_code_can_be_interrupted_although_the_starter_ignores_interrupts(
    provider: LocalProvider, acquire: Acquire
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        handle = await acquire()
    finally:
        signal.signal(signal.SIGINT, before)
    client = Client(await provider.attach(handle))
    kernel = client.start()
    assert client.value(kernel, "__import__('signal').getsignal(2).__name__") == "default_int_handler"


async def test_two_runtimes_of_one_project_live_side_by_side(provider: LocalProvider, acquire: Acquire) -> None:
    first, second = await acquire(), await acquire()
    assert first.id != second.id
    await provider.release(first)
    assert (await provider.attach(second)).base_url.endswith(str(second.data["port"]))


async def test_a_killed_server_is_a_lost_runtime(provider: LocalProvider, acquire: Acquire) -> None:
    handle = await acquire()
    terminate(_process(handle), 0, tree=True)
    with pytest.raises(RuntimeLostError) as caught:
        await provider.attach(handle)
    assert str(handle.data["pid"]) in caught.value.message


@posix
async def test_a_stopped_server_is_a_matter_of_time_not_lost(
    provider: LocalProvider, acquire: Acquire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colab_bridge.providers.local._ANSWER_TIMEOUT_S", 0.3)
    handle = await acquire()
    os.kill(handle.data["pid"], signal.SIGSTOP)
    try:
        with pytest.raises(TransientError):
            await provider.attach(handle)
    finally:
        os.kill(handle.data["pid"], signal.SIGCONT)
    await provider.attach(handle)


async def test_release_ends_kernels_and_what_they_started_and_removes_the_folder(
    provider: LocalProvider, acquire: Acquire
) -> None:
    handle = await acquire()
    client = Client(await provider.attach(handle))
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])"
    client.run(client.start(), child)
    everything = [_process(handle), *descendants(_process(handle))]
    assert len(everything) >= 3
    await provider.release(handle)
    assert [process for process in everything if is_alive(process)] == []
    assert not _folder(handle).exists()


async def test_release_of_a_runtime_with_a_busy_kernel_is_bounded(provider: LocalProvider, acquire: Acquire) -> None:
    handle = await acquire()
    client = Client(await provider.attach(handle))
    kernel = client.start()
    stubborn = "import signal, threading\nsignal.signal(15, signal.SIG_IGN); print('up', flush=True)\n"
    client.run(kernel, stubborn)
    started = time.monotonic()
    await provider.release(handle)
    assert time.monotonic() - started < 20
    assert not is_alive(_process(handle))


async def test_release_of_a_server_that_was_killed_ends_its_kernels_too(
    provider: LocalProvider, acquire: Acquire
) -> None:
    handle = await acquire()
    client = Client(await provider.attach(handle))
    client.start()
    kernels = descendants(_process(handle))
    terminate(_process(handle), 0)
    await provider.release(handle)
    assert kernels
    assert [process for process in kernels if is_alive(process)] == []
    assert not _folder(handle).exists()


async def test_a_port_in_use_is_a_user_error_that_says_so(acquire: Acquire, provider: LocalProvider) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as caught:
            await acquire(port=port)
    assert str(port) in caught.value.message
    assert caught.value.hint.startswith("give another port")
    log = Path(caught.value.hint.partition(": ")[2])
    assert str(port) in log.read_text()
    assert list(log.parent.glob("local-*")) == []


async def test_a_given_port_is_used(acquire: Acquire) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert (await acquire(port=port)).data["port"] == port


@pytest.mark.parametrize("after_s", [0, 0.02, 0.1, 0.2])
async def test_a_cancelled_start_leaves_nothing(
    provider: LocalProvider, project: Path, tmp_path: Path, after_s: float
) -> None:
    request = RuntimeRequest(session="s", project=str(project), options={"python": sys.executable})
    # Known already, so that the time is spent on the server.
    InterpreterCache(tmp_path / ".state dir" / "interpreters.json").can_run_kernels(Path(sys.executable))
    with anyio.move_on_after(after_s) as scope:
        await provider.acquire(request)
    assert scope.cancelled_caught
    assert list((tmp_path / ".state dir").glob("local-*")) == []
    assert find_by_argument(str(tmp_path)) == []


async def test_a_folder_that_cannot_be_written_is_a_user_error(project: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    request = RuntimeRequest(session="s", project=str(project), options={"python": sys.executable})
    with pytest.raises(UserError) as caught:
        await LocalProvider(tmp_path / "file" / "below").acquire(request)
    assert str(tmp_path / "file" / "below") in caught.value.hint


async def test_a_handle_cannot_make_release_remove_a_foreign_folder(provider: LocalProvider, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    data = {"pid": 1, "create_time": 0.0, "port": 1, "token": "t"}
    await provider.release(RuntimeHandle(provider="local", id="../precious", data=data))
    assert precious.exists()


# Interpreters


def _venv(folder: Path, *, packages: bool) -> Path:
    """Make a virtual environment; with ``packages`` it sees those of the running one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    site = next(folder.glob("Lib/site-packages" if sys.platform == "win32" else "lib/python*/site-packages"))
    if packages:
        here = [path for path in sys.path if path.endswith("site-packages")]
        (site / "shared.pth").write_text("\n".join(here))
    return python


async def test_kernels_run_in_the_projects_own_environment(
    provider: LocalProvider, project: Path, acquire: Acquire
) -> None:
    python = _venv(project / ".venv", packages=True)
    handle = await acquire(python=None)
    client = Client(await provider.attach(handle))
    kernel = client.start()
    assert handle.data["notice"] == ""
    assert client.value(kernel, "sys.prefix") == str(project / ".venv")
    assert client.value(kernel, "os.environ['VIRTUAL_ENV']") == str(project / ".venv")
    assert client.value(kernel, "__import__('shutil').which('python')") == str(python.parent / python.name)


async def test_an_environment_without_ipykernel_is_named_with_the_fix(project: Path, acquire: Acquire) -> None:
    python = _venv(project / ".venv", packages=False)
    handle = await acquire(python=None)
    assert handle.data["python"] == sys.executable
    assert f"{python.relative_to(project)} -m pip install ipykernel" in handle.data["notice"]


async def test_an_explicit_interpreter_without_ipykernel_is_refused(tmp_path: Path, acquire: Acquire) -> None:
    python = _venv(tmp_path / "bare", packages=False)
    with pytest.raises(UserError) as caught:
        await acquire(python=str(python))
    assert caught.value.hint == f"{python} -m pip install ipykernel"
    with pytest.raises(UserError):
        await acquire(python=str(tmp_path / "nothing"))


async def test_the_active_environment_comes_after_the_projects_own(project: Path, tmp_path: Path) -> None:
    active = _venv(tmp_path / "active", packages=True)
    cache = InterpreterCache(tmp_path / "cache.json")
    assert choose_interpreter(project, {"env_python": str(active)}, cache).path == str(active)
    own = _venv(project / "venv", packages=True)
    assert choose_interpreter(project, {"env_python": str(active)}, cache).path == str(own)


async def test_what_is_known_of_an_interpreter_is_kept_until_something_is_installed(tmp_path: Path) -> None:
    python = _venv(tmp_path / "env", packages=False)
    cache = InterpreterCache(tmp_path / "cache.json")
    assert not cache.can_run_kernels(python)
    site = next((tmp_path / "env").glob("[lL]ib/**/site-packages"))
    known = (tmp_path / "cache.json").read_bytes()
    assert not cache.can_run_kernels(python)
    assert (tmp_path / "cache.json").read_bytes() == known
    (site / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    os.utime(site, ns=(1, 1))
    assert cache.can_run_kernels(python)


async def test_a_damaged_memory_of_interpreters_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "cache.json"
    for content in ("{", "[]", json.dumps({sys.executable: 7}), json.dumps({sys.executable: {"stamps": 7}})):
        file.write_text(content)
        assert InterpreterCache(file).can_run_kernels(Path(sys.executable))


@posix
async def test_a_program_that_is_no_python_cannot_run_kernels(tmp_path: Path) -> None:
    program = shutil.which("true")
    assert program is not None
    assert not InterpreterCache(tmp_path / "cache.json").can_run_kernels(Path(program))
