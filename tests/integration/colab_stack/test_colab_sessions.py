"""Sessions on an emulated Colab: hardware, adoption, loss, and what is left when things go wrong."""

from __future__ import annotations

import pytest

from colab_bridge.errors import QuotaError, RuntimeLostError, UserError
from colab_emulated import Emulated
from daemon_home import DaemonHome, eventually


def test_hardware_alone_means_colab_and_the_files_are_there(home: DaemonHome, colab: Emulated) -> None:
    (home.project / "data.txt").write_text("hello")
    seen = home.code("print(open('data.txt').read()); open('out.txt', 'w').write('back')", **colab.gpu())
    assert seen.text().splitlines()[0] == "hello"
    assert (home.project / "out.txt").read_text() == "back"
    session = home.client().get("/v1/sessions")["sessions"][0]
    assert (session["provider"], session["account"]) == ("colab", "dev@example.com")


def test_the_same_wish_uses_the_same_runtime_however_long_it_would_wait(home: DaemonHome, colab: Emulated) -> None:
    home.code("x = 1", **colab.gpu())
    home.code("x", **colab.gpu(wait_s=60.0))
    assert len(colab.endpoints) == 1


def test_a_restarted_kernel_is_in_the_workspace_again(home: DaemonHome, colab: Emulated) -> None:
    home.code("import os; os.chdir('/')", **colab.gpu())
    name = home.client().get("/v1/sessions")["sessions"][0]["name"]
    home.client().post(f"/v1/sessions/{name}/restart")
    assert home.code("import os; print(os.getcwd())", **colab.gpu()).text() == "/content/workspace\n"


def test_a_runtime_that_died_is_replaced_and_the_loss_is_said(home: DaemonHome, colab: Emulated) -> None:
    home.code("x = 1", **colab.gpu())
    (old,) = colab.endpoints
    colab.call("POST", f"/vm/{old}/kill")
    seen = eventually(lambda: _or_none(home, colab), "another runtime", timeout_s=90, pause_s=1.0)
    assert seen == "new\n"
    assert old not in colab.endpoints
    notices = str(home.client().get("/v1/status")["daemon"]["notices"])
    assert "was gone and has been started anew" in notices


def _or_none(home: DaemonHome, colab: Emulated) -> str | None:
    seen = home.code("print('new' if 'x' not in globals() else 'old')", **colab.gpu())
    return seen.text() if seen.status == "ok" else None


def test_one_refusal_of_a_given_token_fails_no_run(home: DaemonHome, colab: Emulated) -> None:
    colab.fault(kind="status", service="colab", method="GET", path="/tun/m/assign", status=401, count=1)
    assert home.code("print(6 * 7)", **colab.gpu()).text() == "42\n"


def test_what_a_run_has_used_is_known_after_the_daemon_was_killed(home: DaemonHome, colab: Emulated) -> None:
    home.code("x = 1", **colab.gpu())

    def measured() -> object:
        kept = home.client().get("/v1/sessions")["sessions"][0]["kept"]
        return kept and kept["rate_hourly"]

    eventually(measured, "what the session uses is known", timeout_s=90, pause_s=0.5)
    (started,) = home.code("import time; time.sleep(0.5)", **colab.gpu()).of("started")
    run = started["run"]["id"]
    units = home.client().get(f"/v1/runs/{run}")["units"]
    assert units > 0
    home.kill_daemon()
    assert home.client().get(f"/v1/runs/{run}")["units"] == units
    usage = home.client().post("/v1/account/usage", {"env": colab.env})
    assert {"run": run, "title": "import time; time.sleep(0.5)", "units": units} in usage["runs"]


def test_each_request_to_a_runtime_carries_its_token_and_our_name_and_no_token_of_the_account(
    home: DaemonHome, colab: Emulated
) -> None:
    home.code("1", **colab.gpu())
    seen = [each for each in colab.call("GET", "/requests")["requests"] if each["service"] == "data"]
    assert {each["method"] for each in seen} >= {"GET", "POST", "WS"}
    for each in seen:
        assert each["headers"]["x-colab-runtime-proxy-token"].startswith("sha256:")
        assert each["headers"]["x-colab-client-agent"] == "colab-bridge"
        assert "authorization" not in each["headers"]
        assert "colab-runtime-proxy-token" not in dict(each["query"])


def wish(home: DaemonHome, colab: Emulated) -> dict[str, object]:
    return {"project": str(home.project), "name": "none", **colab.gpu()}


def test_no_capacity_is_one_message_and_leaves_no_session(home: DaemonHome, colab: Emulated) -> None:
    colab.fault(kind="refuse", service="colab", method="POST", path="/tun/m/assign", refusal="capacity", count=None)
    try:
        with pytest.raises(QuotaError, match="T4: Colab has no such machine free now"):
            home.client().post(
                "/v1/sessions", {"project": str(home.project), "name": "none", **colab.gpu()}, timeout_s=60
            )
    finally:
        colab.call("POST", "/faults", {"clear": True})
    assert home.client().get("/v1/sessions")["sessions"] == []


def test_a_runtime_is_adopted_used_and_ended_by_its_id(home: DaemonHome, colab: Emulated) -> None:
    home.code("x = 7", **colab.gpu())
    (endpoint,) = colab.endpoints
    client = home.client()
    with pytest.raises(UserError, match="holds that runtime already"):
        client.post("/v1/account/adopt", {"runtime": endpoint, "project": str(home.project), "env": colab.env})
    with pytest.raises(RuntimeLostError, match="no runtime"):
        client.post("/v1/account/adopt", {"runtime": "gpu-none", "project": str(home.project), "env": colab.env})
    listed = client.post("/v1/account/runtimes", {"env": colab.env})["runtimes"]
    assert [(each["id"], each["hardware"], each["ours"]) for each in listed] == [(endpoint, "T4", True)]
    assert listed[0]["session"]
    client.post("/v1/account/release", {"runtime": endpoint, "env": colab.env}, timeout_s=60)
    assert colab.endpoints == []
    assert client.get("/v1/sessions")["sessions"] == []


def test_status_tells_how_a_runtime_is_kept(home: DaemonHome, colab: Emulated) -> None:
    home.code("x = 1", **colab.gpu())

    def kept() -> dict[str, object] | None:
        found: dict[str, object] | None = home.client().get("/v1/sessions")["sessions"][0]["kept"]
        return found

    found = eventually(kept, "the keeper has looked", timeout_s=40, pause_s=0.5)
    assert found["state"] in ("in use", "idle")
    assert found["problem"] == ""
