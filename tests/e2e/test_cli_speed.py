"""A warm command is quick: whole processes, measured against the bare interpreter on the same machine."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from cli_support import Desk, desk_in

ROUNDS = 9


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_in(tmp_path_factory.mktemp("desk")) as made:
        made.out("exec", "pass")
        yield made


def seconds(desk: Desk, *argv: str) -> float:
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        subprocess.run(argv, cwd=desk.project, env=desk.environ, stdin=subprocess.DEVNULL, check=True)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def test_a_warm_exec_is_at_most_twelve_bare_interpreters(desk: Desk) -> None:
    bare = seconds(desk, sys.executable, "-c", "pass")
    assert seconds(desk, *desk.argv("exec", "pass")) <= 12 * bare


def test_the_version_costs_little_over_the_bare_interpreter(desk: Desk) -> None:
    bare = seconds(desk, sys.executable, "-c", "pass")
    assert seconds(desk, *desk.argv("--version")) - bare <= 0.120
