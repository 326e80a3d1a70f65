"""A machine in one line."""

from __future__ import annotations

from colab_bridge.cli.machine_text import machine_text

GIB = 1024**3


def test_a_machine_with_a_card_is_one_line() -> None:
    card = {"name": "Tesla T4", "use": 0.37, "memory_used": 2 * GIB, "memory_total": 15 * GIB}
    machine = {"memory_used": 3 * GIB, "memory_total": 12 * GIB, "disk_free": 31 * GIB, "load": 1.24, "cpus": 2.0}
    assert machine_text({"machine": machine, "cards": [card]}) == (
        "Tesla T4 37% 2.0 of 15.0 GiB, memory 3.0 of 12.0 GiB, disk 31.0 GiB free, load 1.2 of 2"
    )


def test_what_is_not_known_is_left_out() -> None:
    assert machine_text({"machine": {"memory_used": None, "disk_free": GIB}, "cards": [{"name": "X"}]}) == (
        "X, disk 1.0 GiB free"
    )
    assert machine_text(None) == ""
