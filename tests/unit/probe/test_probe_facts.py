"""What the probe reads off a machine: from made-up files, and from this one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from colab_bridge.agent.probe.cards import parse_cards, read_cards
from colab_bridge.agent.probe.machine import read_machine
from colab_bridge.agent.probe.processes import Process, family, read_processes, verdict

MEMINFO = "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:   4000000 kB\nHugePages_Total: 0\n"
GIB = 1024**3


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "ascii")
    return folder


def test_memory_is_that_of_the_machine_where_nothing_limits_it(tmp_path: Path) -> None:
    proc = tree(tmp_path / "proc", {"meminfo": MEMINFO, "uptime": "123.5 9\n"})
    machine = read_machine(tmp_path, proc, tree(tmp_path / "cgroup", {"memory.max": "max\n"}))
    assert (machine.memory_total, machine.memory_used) == (16_000_000 * 1024, 12_000_000 * 1024)
    assert machine.uptime_s == 123.5


def test_memory_is_that_of_the_container_where_it_is_smaller(tmp_path: Path) -> None:
    proc = tree(tmp_path / "proc", {"meminfo": MEMINFO})
    limits = {
        "memory.max": f"{2 * GIB}\n",
        "memory.current": f"{GIB}\n",
        "memory.stat": f"anon 1\ninactive_file {GIB // 4}\n",
    }
    machine = read_machine(tmp_path, proc, tree(tmp_path / "cgroup", limits))
    assert (machine.memory_total, machine.memory_used) == (2 * GIB, GIB - GIB // 4)


def test_an_older_container_is_understood_too(tmp_path: Path) -> None:
    proc = tree(tmp_path / "proc", {"meminfo": MEMINFO})
    limits = {
        "memory/memory.limit_in_bytes": f"{GIB}\n",
        "memory/memory.usage_in_bytes": "1000\n",
        "memory/memory.stat": "inactive_file 5000\n",
    }
    machine = read_machine(tmp_path, proc, tree(tmp_path / "cgroup", limits))
    assert (machine.memory_total, machine.memory_used) == (GIB, 0)


def test_a_share_of_a_processor_counts_as_such(tmp_path: Path) -> None:
    machine = read_machine(tmp_path, tmp_path, tree(tmp_path / "cgroup", {"cpu.max": "50000 100000\n"}))
    assert machine.cpus == 0.5


def test_a_machine_that_shows_nothing_gives_nothing_and_no_error(tmp_path: Path) -> None:
    machine = read_machine(tmp_path / "missing", tmp_path, tmp_path)
    assert (machine.memory_total, machine.disk_free, machine.uptime_s) == (None, None, None)


def test_this_machine_has_memory_a_disk_and_processors() -> None:
    machine = read_machine(Path.cwd())
    assert machine.memory_total is not None
    assert machine.memory_used is not None
    assert 0 < machine.memory_used < machine.memory_total
    assert machine.disk_total is not None
    assert machine.disk_total > 0
    assert machine.cpus is not None
    assert machine.cpus > 0


def test_the_drivers_table_is_read_and_what_it_does_not_know_is_none() -> None:
    cards = parse_cards("0, Tesla T4, 15360, 100, 37, 41, 28.30\n1, Other, [N/A], 1, [N/A], [N/A], nan\nno table\n")
    assert [card.name for card in cards] == ["Tesla T4", "Other"]
    assert (cards[0].memory_total, cards[0].use, cards[0].watts) == (15_360 * 1024**2, 0.37, 28.3)
    assert (cards[1].memory_total, cards[1].use, cards[1].watts) == (None, None, None)


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_a_driver_that_fails_or_is_missing_means_no_cards(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, T4, 1, 1, 1, 1, 1'\nexit 9\n")
    program.chmod(0o700)
    assert read_cards(str(program)) == []
    assert read_cards(str(tmp_path / "nothing")) == []


def process(pid: int, parent: int = 1, state: str = "S", cpu_s: float = 0.0, name: str = "x") -> Process:
    return Process(pid=pid, parent=parent, name=name, state=state, cpu_s=cpu_s, rss=0, threads=1)


def look(*processes: Process) -> dict[int, Process]:
    return {one.pid: one for one in processes}


def test_a_family_is_a_process_and_everything_below_it() -> None:
    members = family(look(process(5, 2), process(2), process(3, 5), process(9)).values(), 2)
    assert [member.pid for member in members] == [2, 5, 3]


def test_a_family_that_is_its_own_ancestor_ends() -> None:
    assert [member.pid for member in family(look(process(2, 3), process(3, 2)).values(), 2)] == [2, 3]


@pytest.mark.parametrize(
    ("now", "code"),
    [
        ((), "gone"),
        ((process(2, state="Z"),), "gone"),
        ((process(2, state="T"),), "stopped"),
        ((process(2, state="D"),), "device"),
        ((process(2, cpu_s=9.0, state="R"), process(3, 2)), "computes"),
        ((process(2), process(3, 2, name="ffmpeg")), "child"),
        ((process(2), process(3, 2, state="Z")), "waits"),
        ((process(2),), "waits"),
    ],
)
def test_the_verdict_says_what_keeps_a_kernel(now: tuple[Process, ...], code: str) -> None:
    assert verdict(look(process(2, cpu_s=8.0)), look(*now), 2, 1.0).code == code


def test_a_kernel_that_wants_to_run_and_gets_no_processor_computes() -> None:
    hungry = look(process(2, state="R"))
    assert verdict(hungry, hungry, 2, 1.0).code == "computes"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows processes as files")
def test_a_real_child_is_found_with_its_odd_name(tmp_path: Path) -> None:
    program = tmp_path / "a) (b c"
    program.symlink_to(sys.executable)
    with subprocess.Popen([str(program), "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        try:
            found = read_processes()[child.pid]
            assert found.rss > 0
            assert found.pid in [member.pid for member in family(read_processes().values(), found.parent)]
        finally:
            child.kill()
