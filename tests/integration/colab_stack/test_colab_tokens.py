"""A proxy token that ends every few seconds loses neither a run nor a session."""

from __future__ import annotations

import time

import pytest

from colab_emulated import Emulated
from daemon_home import DaemonHome


@pytest.fixture(scope="module")
def ttl_s() -> float:
    return 5.0


def test_runs_with_gaps_longer_than_a_tokens_life_keep_their_variables(home: DaemonHome, colab: Emulated) -> None:
    assert home.code("import os\nn = 0\nprint(os.getcwd())", **colab.gpu()).text() == "/content/workspace\n"
    first = colab.endpoints
    for number in range(1, 6):
        if number in (2, 4):
            time.sleep(6)  # the gap is what is tested: a token ends in it
        seen = home.code("n += 1\nprint(n)", **colab.gpu())
        assert (seen.status, seen.text()) == ("ok", f"{number}\n")
    assert colab.endpoints == first


def test_a_run_that_is_longer_than_several_tokens_loses_no_line(home: DaemonHome, colab: Emulated) -> None:
    code = "import time\nfor i in range(60):\n    print(i)\n    time.sleep(0.2)"
    seen = home.code(code, **colab.gpu())
    assert seen.text() == "".join(f"{i}\n" for i in range(60))
    assert not seen.finished.get("output_may_be_lost")


def test_a_daemon_that_was_killed_finds_its_runtime_again(home: DaemonHome, colab: Emulated) -> None:
    home.code("x = 41", **colab.gpu())
    before = colab.endpoints
    home.kill_daemon()
    time.sleep(6)  # its token ends meanwhile
    assert home.code("print(x + 1)", **colab.gpu()).text() == "42\n"
    assert colab.endpoints == before


def test_all_tokens_refused_at_once_are_renewed(home: DaemonHome, colab: Emulated) -> None:
    home.code("x = 1", **colab.gpu())
    colab.fault(kind="expire_tokens", service="colab", method="GET", path="/tun/m/ccu-info")
    home.client().post("/v1/account/usage", {"env": colab.env})
    assert home.code("print(x)", **colab.gpu()).text() == "1\n"
