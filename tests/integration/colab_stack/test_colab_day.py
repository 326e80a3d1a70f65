"""A day of work on one emulated T4: tokens end every hour, nobody works for half an hour, everything fails once.

The clock is the emulator's; the daemon's own goes on in real time. ``make campaign-colab`` has the whole day, this
is six hours of it. What the keeper does over a day is tested with a clock of its own.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colab_emulated import Emulated, emulated
from daemon_home import DaemonHome

WHOLE = os.environ.get("COLAB_BRIDGE_CAMPAIGN") == "1"
HOURS, GAPS, TROUBLES = (24, 10, 20) if WHOLE else (6, 2, 8)
SEED = 5
PART_S = 1200.0
GAP_S = 1800.0

#: What fails once, at the control side or at the machine's proxy, whose links are then cut so that it is met. A request
#: without an answer takes half a minute, so that only the whole day has them.
KINDS: list[dict[str, Any]] = [
    {"service": "data", "kind": "status", "status": 401},
    {"service": "data", "kind": "status", "status": 404},
    {"service": "data", "kind": "status", "status": 503},
    {"service": "colab", "kind": "status", "status": 401},
    {"service": "colab", "kind": "status", "status": 404},
    {"service": "colab", "kind": "status", "status": 500},
    {"service": "colab", "kind": "close"},
    {"service": "colab", "kind": "expire_tokens"},
    {"service": "data", "kind": "hang"},
    {"service": "colab", "kind": "hang"},
]

pytestmark = pytest.mark.timeout(3600 if WHOLE else 300)


@pytest.fixture(scope="module")
def colab() -> Iterator[Emulated]:
    # A runtime that is never pinged ends after the window; real minutes of the keeper do not pass in this test.
    with emulated("--token-ttl", "3600", "--idle-timeout", "90000", "--tier", "pro_plus") as running:
        yield running
        assert running.call("GET", "/violations") == {"violations": []}


@pytest.fixture
def machine(colab: Emulated, tmp_path: Path) -> dict[str, Any]:
    """The members of a request for a T4, with a sign-in that can be renewed, as a person's can."""
    key = tmp_path / "robot.json"
    key.write_text(json.dumps(colab.call("POST", "/service-accounts", {})))
    env = {name: value for name, value in colab.env.items() if name != "COLAB_BRIDGE_ACCESS_TOKEN"}
    return {"options": {"gpu": "T4"}, "env": env | {"GOOGLE_APPLICATION_CREDENTIALS": str(key)}}


def steps(seed: int) -> list[str]:
    """Return what happens, in order: three parts of work for each hour, and gaps and troubles among them."""
    chance = random.Random(seed)
    chosen = ["work"] * (HOURS * 3 - GAPS * 2)
    for what, count in (("gap", GAPS), ("trouble", TROUBLES)):
        for _ in range(count):
            chosen.insert(chance.randrange(1, len(chosen)), what)
    return [*chosen, "work"]


def test_a_day_loses_no_run_no_session_and_no_runtime(
    home: DaemonHome, colab: Emulated, machine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLAB_BRIDGE_ACCESS_TOKEN")
    chance = random.Random(SEED)
    kinds = [KINDS[number % len(KINDS)] for number in range(TROUBLES)]
    chance.shuffle(kinds)
    assert home.code("n = 0", **machine).status == "ok"
    before = colab.endpoints
    number = 0
    for step in steps(SEED):
        if step == "trouble":
            trouble(colab, before[0], kinds.pop())
            continue
        colab.call("POST", "/clock", {"advance_s": GAP_S if step == "gap" else PART_S})
        number += 1
        seen = home.code("n += 1\nprint(n)", **machine)
        assert (seen.status, seen.text()) == ("ok", f"{number}\n"), (step, seen.events)
    assert (kinds, colab.call("GET", "/faults")) == ([], {"faults": []})  # all of it was met
    assert colab.endpoints == before
    assert [session["state"] for session in home.client().get("/v1/sessions")["sessions"]] == ["ready"]
    assert colab.state()["offset_s"] >= HOURS * 3600 - GAPS * 600


def trouble(colab: Emulated, endpoint: str, kind: dict[str, Any]) -> None:
    """Let something fail once, and end links and tokens so that both sides are asked again."""
    colab.fault(path="*", **kind)
    colab.call("POST", "/tokens", {"expire": True})
    colab.call("POST", f"/vm/{endpoint}/link", {"action": "cut"})
