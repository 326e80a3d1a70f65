"""A daemon that is killed while a runtime is being made leaves one runtime at most, and the next one finds it."""

from __future__ import annotations

import contextlib
import threading

import pytest

from colab_bridge.errors import ColabBridgeError
from colab_emulated import Emulated
from daemon_home import DaemonHome, eventually


@pytest.fixture
def orphan(home: DaemonHome, colab: Emulated) -> str:
    """The runtime of a request whose daemon was killed before the answer came."""
    home.client()
    colab.fault(kind="hang_after", service="colab", method="POST", path="/tun/m/assign")

    def ask() -> None:
        with contextlib.suppress(ColabBridgeError):
            home.client().post("/v1/runs", home.request("code", code="1", **colab.gpu()), timeout_s=60)

    asker = threading.Thread(target=ask)
    asker.start()
    eventually(lambda: colab.endpoints, "the runtime is made", timeout_s=60)
    home.kill_daemon()
    asker.join(30)
    assert not asker.is_alive()
    colab.call("POST", "/faults", {"clear": True})
    (endpoint,) = colab.endpoints
    return endpoint


@pytest.mark.usefixtures("orphan")
def test_the_next_daemon_uses_or_releases_it_and_has_one_runtime(home: DaemonHome, colab: Emulated) -> None:
    seen = home.code("print(6 * 7)", **colab.gpu())
    assert seen.text() == "42\n"
    assert len(colab.endpoints) == 1


def test_the_next_daemon_releases_it_where_nobody_wants_it(home: DaemonHome, colab: Emulated, orphan: str) -> None:
    released = home.client().post("/v1/account/gc", {"env": colab.env}, timeout_s=60)["released"]
    assert [each["id"] for each in released] in ([orphan], [])  # it may have been found at the start already
    eventually(lambda: not colab.endpoints, "it is released", timeout_s=30)
