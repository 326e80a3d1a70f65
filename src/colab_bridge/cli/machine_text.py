"""A machine in one line."""

from __future__ import annotations

from typing import Any

__all__ = ["machine_text"]

_GIB = 1024**3


def machine_text(found: dict[str, Any] | None) -> str:
    """Return how a machine is: its cards, memory, disk and load, as far as they are known.

    Args:
        found: What the daemon's API says of it; None where nobody can look.
    """
    if not found:
        return ""
    machine = found.get("machine") or {}
    parts = [_card(card) for card in found.get("cards") or []]
    if pair := _of(machine.get("memory_used"), machine.get("memory_total")):
        parts.append(f"memory {pair}")
    if isinstance(free := machine.get("disk_free"), int):
        parts.append(f"disk {free / _GIB:.1f} GiB free")
    load, cpus = machine.get("load"), machine.get("cpus")
    if isinstance(load, (int, float)) and isinstance(cpus, (int, float)):
        parts.append(f"load {load:.1f} of {cpus:g}")
    return ", ".join(parts)


def _card(card: dict[str, Any]) -> str:
    use = card.get("use")
    busy = f" {use:.0%}" if isinstance(use, (int, float)) else ""
    memory = _of(card.get("memory_used"), card.get("memory_total"))
    return f"{card.get('name')}{busy}" + (f" {memory}" if memory else "")


def _of(used: object, total: object) -> str:
    """Return two amounts of memory such as ``3.2 of 12.7 GiB``; empty when one is not known."""
    if not isinstance(used, (int, float)) or not isinstance(total, (int, float)):
        return ""
    return f"{used / _GIB:.1f} of {total / _GIB:.1f} GiB"
