"""What every provider promises; a new one is added to CASES."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from colab_bridge.errors import RuntimeLostError
from colab_bridge.model.runtime import Endpoint, RuntimeHandle, RuntimeRequest
from colab_bridge.ports.provider import RuntimeProvider
from colab_bridge.providers.jupyter import JupyterProvider
from colab_bridge.providers.local import LocalProvider

pytestmark = pytest.mark.anyio
CASES = ["local", "local-isolated", "jupyter"]
TOKEN = "a-token-of-the-test"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A provider, how another process would make it, and a request it can fulfil."""

    make: Callable[[], RuntimeProvider]
    request: RuntimeRequest


@pytest.fixture(scope="module")
def foreign_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a plain server that is none of ours."""
    folder = tmp_path_factory.mktemp("foreign")
    env = {
        **os.environ,
        "JUPYTER_RUNTIME_DIR": str(folder / "rt"),
        "JUPYTER_CONFIG_DIR": str(folder),
        "JUPYTER_TOKEN": TOKEN,
    }
    argv = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    argv += ["--ServerApp.port=0", f"--ServerApp.root_dir={folder}", "--ServerApp.base_url=/user/ann/"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
    try:
        yield _address(folder / "rt", server)
    finally:
        server.terminate()
        server.wait(timeout=20)


def _address(runtime: Path, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            if path.read_text().endswith("}"):
                return f"{json.loads(path.read_text())['url']}lab?token={TOKEN}"
        time.sleep(0.05)
    raise AssertionError("jupyter_server did not start")


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    project = tmp_path / "project"
    project.mkdir()
    folder = tmp_path / "provider"
    options: dict[str, Any] = {"python": sys.executable}
    make: Callable[[], RuntimeProvider] = lambda: LocalProvider(folder)
    if request.param == "local-isolated":
        options["isolated"] = True
    if request.param == "jupyter":
        options = {"url": request.getfixturevalue("foreign_server")}
        make = lambda: JupyterProvider(folder)
    return Case(make=make, request=RuntimeRequest(session="s1", project=str(project), options=options))


@pytest.fixture
async def handle(case: Case) -> AsyncIterator[RuntimeHandle]:
    acquired = await case.make().acquire(case.request)
    yield acquired
    await case.make().release(acquired)


async def _get(endpoint: Endpoint, path: str, *, headers: dict[str, str] | None = None) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
        sent = endpoint.plain_headers() if headers is None else headers
        return await client.get(endpoint.base_url + path, headers=sent)


async def test_it_is_a_provider(case: Case) -> None:
    assert isinstance(case.make(), RuntimeProvider)


async def test_an_acquired_runtime_answers(case: Case, handle: RuntimeHandle) -> None:
    endpoint = await case.make().attach(handle)
    assert not endpoint.base_url.endswith("/")
    response = await _get(endpoint, "/api/status")
    assert response.status_code == 200
    assert response.json()["kernels"] == 0


async def test_a_runtime_refuses_those_without_its_token(case: Case, handle: RuntimeHandle) -> None:
    endpoint = await case.make().attach(handle)
    assert (await _get(endpoint, "/api/status", headers={})).status_code == 403
    assert (await _get(endpoint, "/api/status", headers={"Authorization": "token x"})).status_code == 403


async def test_a_handle_that_went_through_json_can_be_attached_elsewhere(case: Case, handle: RuntimeHandle) -> None:
    stored = replace(handle, data=json.loads(json.dumps(dict(handle.data))))
    endpoint = await case.make().attach(stored)
    assert (await _get(endpoint, "/api/kernels")).json() == []


async def test_a_runtime_offers_a_python_kernel(case: Case, handle: RuntimeHandle) -> None:
    found = (await _get(await case.make().attach(handle), "/api/kernelspecs")).json()
    assert found["default"] == "python3"
    assert "python3" in found["kernelspecs"]


async def test_what_people_see_holds_no_secret(case: Case, handle: RuntimeHandle) -> None:
    endpoint = await case.make().attach(handle)
    secrets = [value.reveal().partition(" ")[2] or value.reveal() for value in endpoint.headers.values()]
    assert secrets
    assert [secret for secret in secrets if secret in f"{handle.label} {handle.id} {endpoint!r}"] == []


async def test_keeping_alive_and_releasing_may_be_repeated(case: Case) -> None:
    provider = case.make()
    acquired = await provider.acquire(case.request)
    await provider.keep_alive(acquired)
    await provider.keep_alive(acquired)
    await provider.release(acquired)
    await provider.release(acquired)


async def test_a_handle_that_holds_nothing_is_a_lost_runtime(case: Case, handle: RuntimeHandle) -> None:
    with pytest.raises(RuntimeLostError) as caught:
        await case.make().attach(replace(handle, data={}))
    assert caught.value.hint
