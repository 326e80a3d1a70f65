"""The provider for any Jupyter server, against a real one behind a link that is hurt, and servers that refuse."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from colab_bridge.errors import ColabBridgeError
from colab_bridge.testing.jupyter import JupyterChild, start_jupyter_server
from colab_bridge.testing.relay import TcpRelay
from daemon_home import DaemonHome, Seen, eventually
from notebook_files import printed, read, write

LINES = 30
PRINTING = f"import time\nfor n in range({LINES}):\n    print('line', n, flush=True)\n    time.sleep(0.1)\nprint('end')"
EVERY_LINE = [f"line {n}" for n in range(LINES)] + ["end"]


@pytest.fixture(scope="module")
async def server(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[JupyterChild]:
    async with start_jupyter_server(tmp_path_factory.mktemp("root")) as child:
        yield child


@pytest.fixture
async def relay(server: JupyterChild) -> AsyncIterator[TcpRelay]:
    async with TcpRelay("127.0.0.1", server.port) as found:
        yield found


@pytest.fixture
async def session(shared_home: DaemonHome, server: JupyterChild, relay: TcpRelay) -> AsyncIterator[str]:
    name = f"remote-{relay.port}"
    url = f"http://127.0.0.1:{relay.port}/?token={server.token}"
    await new_session(shared_home, name, url)
    yield name
    await in_thread(shared_home.client().delete, f"/v1/sessions/{name}")


async def in_thread(function: Callable[..., Any], *arguments: Any, **members: Any) -> Any:
    return await anyio.to_thread.run_sync(lambda: function(*arguments, **members))


async def new_session(home: DaemonHome, name: str, url: str, **options: Any) -> dict[str, Any]:
    body = {"project": str(home.project), "name": name, "provider": "jupyter", "options": {"url": url, **options}}
    found: dict[str, Any] = await in_thread(home.client().post, "/v1/sessions", body)
    return found


async def begun(home: DaemonHome, session: str, path: Path) -> str:
    run = await in_thread(home.start, "notebook", session=session, notebook={"path": str(path)})
    await in_thread(home.until_text, run["id"], "line 5\n")
    return str(run["id"])


def assert_in_order_and_loss_declared(home: DaemonHome, seen: Seen, path: Path) -> list[str]:
    lines = printed(read(path)[0]).splitlines()
    assert lines == [line for line in EVERY_LINE if line in lines]
    assert lines == seen.text().splitlines()
    if lines != EVERY_LINE:
        assert home.view(seen.run_id)["output_may_be_lost"]
        assert seen.of("lost")
    return lines


async def test_a_session_on_a_server_shows_neither_token_nor_query(shared_home: DaemonHome, session: str) -> None:
    view = await in_thread(shared_home.client().get, f"/v1/sessions/{session}")
    assert view["provider"] == "jupyter"
    assert "token" not in str(view)


async def test_code_keeps_its_state_there_too(shared_home: DaemonHome, session: str) -> None:
    await in_thread(shared_home.code, "x = 6", session=session)
    assert (await in_thread(shared_home.code, "print(x * 7)", session=session)).text() == "42\n"


async def test_a_cut_link_comes_back_and_the_run_ends_once(
    shared_home: DaemonHome, session: str, relay: TcpRelay
) -> None:
    path = write(shared_home.project / "cut.ipynb", PRINTING)
    run = await begun(shared_home, session, path)
    relay.reset()
    seen = await in_thread(shared_home.follow, run)
    assert seen.status == "ok"
    assert len(seen.of("cell_started")) == 1
    lines = assert_in_order_and_loss_declared(shared_home, seen, path)
    assert len(lines) >= LINES - 2


async def test_a_link_cut_for_seconds_loses_nothing_that_the_server_kept(
    shared_home: DaemonHome, session: str, relay: TcpRelay
) -> None:
    path = write(shared_home.project / "away.ipynb", PRINTING)
    run = await begun(shared_home, session, path)
    relay.blackhole(refuse_new=True)
    relay.reset()
    await anyio.sleep(1)
    relay.restore()
    seen = await in_thread(shared_home.follow, run)
    assert seen.status == "ok"
    lines = assert_in_order_and_loss_declared(shared_home, seen, path)
    assert len(lines) >= LINES - 2


async def test_output_lost_in_a_black_hole_is_declared_and_the_run_ends_once(
    shared_home: DaemonHome, session: str, relay: TcpRelay
) -> None:
    path = write(shared_home.project / "hole.ipynb", PRINTING, "print('next')")
    run = await begun(shared_home, session, path)
    relay.blackhole()
    await anyio.sleep(2)
    relay.restore()
    seen = await in_thread(shared_home.follow, run)
    first, second = read(path)
    lines = printed(first).splitlines()
    assert lines == [line for line in EVERY_LINE if line in lines]
    assert lines[-1] == "end" or shared_home.view(run)["output_may_be_lost"]
    assert lines == EVERY_LINE or shared_home.view(run)["output_may_be_lost"]
    assert printed(second) == "next\n"
    assert seen.status == "ok"
    assert len(seen.of("cell_started")) == 2


async def test_a_cell_that_ends_while_the_link_is_down_still_ends_its_run(
    shared_home: DaemonHome, session: str, relay: TcpRelay
) -> None:
    code = "import time; print('line 5', flush=True); time.sleep(1); print('done')"
    path = write(shared_home.project / "ends.ipynb", code, "print('next')")
    run = await begun(shared_home, session, path)
    relay.blackhole(refuse_new=True)
    relay.reset()
    await anyio.sleep(2.5)
    relay.restore()
    seen = await in_thread(shared_home.follow, run)
    first, second = read(path)
    assert seen.status == "ok"
    assert printed(first) == "line 5\ndone\n" or shared_home.view(run)["output_may_be_lost"]
    assert printed(second) == "next\n"


async def test_the_events_tell_of_the_cut_and_of_the_way_back(
    shared_home: DaemonHome, session: str, relay: TcpRelay
) -> None:
    path = write(shared_home.project / "told.ipynb", PRINTING)
    run = await begun(shared_home, session, path)
    relay.reset()
    seen = await in_thread(shared_home.follow, run)
    states = [event["state"] for event in seen.of("link")]
    assert states[:1] == ["reconnecting"]
    assert states[-1] == "connected"


async def test_an_interrupt_reaches_a_cell_while_the_link_is_fine_again(
    shared_home: DaemonHome, session: str, relay: TcpRelay
) -> None:
    path = write(shared_home.project / "stop.ipynb", "print('line 5', flush=True)\nwhile True: pass")
    run = await begun(shared_home, session, path)
    relay.reset()
    started = time.monotonic()
    await in_thread(shared_home.client().post, f"/v1/runs/{run}/interrupt")
    seen = await in_thread(shared_home.follow, run)
    assert time.monotonic() - started < 5
    assert seen.status == "interrupted"


async def test_20000_displays_and_the_error_behind_them_arrive_under_the_server_s_default_limits(
    shared_home: DaemonHome, session: str
) -> None:
    code = "from IPython.display import display\nfor n in range(20_000):\n    display(n)\n1/0"
    seen = await in_thread(shared_home.code, code, session=session)
    shown = [int(event["data"]["text/plain"]) for event in seen.of("display")]
    assert shown == sorted(set(shown))
    assert [event["ename"] for event in seen.of("error")] == ["ZeroDivisionError"]
    # Short bursts between two of our pings may exceed the limit all the same; then it is said.
    assert shown == list(range(20_000)) or shared_home.view(seen.run_id)["output_may_be_lost"]
    assert len(shown) > 15_000


async def test_a_flood_that_the_server_cuts_is_declared(shared_home: DaemonHome, session: str) -> None:
    code = "import sys\nsys.stdout.write('x' * 8_000_000)\nsys.stdout.flush()\nprint('end')"
    seen = await in_thread(shared_home.code, code, session=session)
    assert seen.status == "ok"
    if len(seen.text()) < 8_000_000:
        assert shared_home.view(seen.run_id)["output_may_be_lost"]


async def test_stopping_the_session_ends_its_kernels_and_not_the_server(
    shared_home: DaemonHome, server: JupyterChild
) -> None:
    url = f"http://127.0.0.1:{server.port}/?token={server.token}"
    await new_session(shared_home, "brief", url)
    await in_thread(shared_home.code, "1", session="brief")
    answer = await in_thread(shared_home.client().delete, "/v1/sessions/brief")
    assert answer["kernels"] == 1
    await new_session(shared_home, "brief", url)
    await in_thread(shared_home.client().delete, "/v1/sessions/brief")


# -- servers that refuse, are not there, or are none -----------------------------------------------------------


@contextlib.contextmanager
def listening(answer: bytes | None, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that gives everybody one answer; None: it accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    kept.append(peer)
                    with contextlib.suppress(OSError):
                        stream = context.wrap_socket(peer, server_side=True) if context else peer
                        kept.append(stream)
                        if answer is not None:
                            stream.recv(65536)
                            stream.sendall(answer)
                            stream.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for peer in kept:
                peer.close()


async def refused(home: DaemonHome, url: str, timeout_s: float = 30, **options: Any) -> ColabBridgeError:
    with pytest.raises(ColabBridgeError) as caught, anyio.fail_after(timeout_s):
        await new_session(home, "never", url, **options)
    sessions = await in_thread(home.client().get, "/v1/sessions")
    assert "never" not in [session["name"] for session in sessions["sessions"]]
    assert "\n" not in caught.value.message + caught.value.hint
    assert caught.value.hint
    assert type(caught.value).__name__ != "InternalError"
    return caught.value


async def test_a_wrong_token_is_an_auth_error_that_does_not_repeat_it(
    shared_home: DaemonHome, server: JupyterChild
) -> None:
    error = await refused(shared_home, f"http://127.0.0.1:{server.port}/?token=not-the-token")
    assert type(error).__name__ == "AuthError"
    assert "not-the-token" not in error.message + error.hint


async def test_a_server_that_is_not_there_is_named(shared_home: DaemonHome) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert str(port) in (await refused(shared_home, f"http://127.0.0.1:{port}/?token=x")).message


async def test_a_host_that_does_not_exist_is_named(shared_home: DaemonHome) -> None:
    assert "nowhere.invalid" in (await refused(shared_home, "http://nowhere.invalid:8888/?token=x")).message


async def test_a_server_that_is_silent_is_given_up(shared_home: DaemonHome) -> None:
    with listening(None) as port:
        error = await refused(shared_home, f"http://127.0.0.1:{port}/?token=x", timeout_s=40)
    assert "answer" in error.message


async def test_what_is_no_jupyter_server_is_said_to_be_none(shared_home: DaemonHome) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    with listening(page) as port:
        await refused(shared_home, f"http://127.0.0.1:{port}/")


async def test_a_certificate_that_nobody_vouches_for_is_a_tls_error_with_a_way_out(shared_home: DaemonHome) -> None:
    trustme = pytest.importorskip("trustme")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with listening(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", context) as port:
        error = await refused(shared_home, f"https://127.0.0.1:{port}/?token=x")
    assert "certificate" in error.message.lower() or "TLS" in error.message


async def test_https_to_a_server_that_speaks_http_is_said(shared_home: DaemonHome, server: JupyterChild) -> None:
    await refused(shared_home, f"https://127.0.0.1:{server.port}/?token={server.token}")


async def test_a_runtime_that_went_away_is_said_when_it_is_used_again(daemon_home: DaemonHome, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    async with start_jupyter_server(root) as child:
        await new_session(daemon_home, "gone", f"http://127.0.0.1:{child.port}/?token={child.token}")
        assert (await in_thread(daemon_home.code, "print(1)", session="gone")).text() == "1\n"
    with pytest.raises(ColabBridgeError) as caught:
        await in_thread(daemon_home.run, "script", path="/x.py", source="1", session="gone")
    assert str(child.port) in caught.value.message
    started = time.monotonic()
    await in_thread(daemon_home.client().delete, "/v1/sessions/gone", timeout_s=40)
    assert time.monotonic() - started < 20
    await in_thread(eventually, lambda: not daemon_home.client().get("/v1/kernels")["kernels"], "no kernel is held")
