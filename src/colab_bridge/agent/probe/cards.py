"""Graphics cards, as ``nvidia-smi`` reports them.

Source: ``nvidia-smi --help-query-gpu``.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Card", "parse_cards", "read_cards"]

_FIELDS = ("index", "name", "memory.total", "memory.used", "utilization.gpu", "temperature.gpu", "power.draw")
_TIMEOUT_S = 5.0
_MAX_CARDS = 64
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Card:
    """One graphics card. What the driver does not tell is None.

    Attributes:
        index: The driver's number of it.
        name: Such as ``Tesla T4``.
        memory_total: Bytes.
        memory_used: Bytes.
        use: Share of the last moments in which something ran on it, 0 to 1.
        celsius: Its temperature.
        watts: What it draws.
    """

    index: int
    name: str
    memory_total: int | None
    memory_used: int | None
    use: float | None
    celsius: float | None
    watts: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the values by name."""
        return asdict(self)


def read_cards(program: str | None = None) -> list[Card]:
    """Ask the driver; an empty list where there is no card, no driver or no answer.

    Args:
        program: Path of ``nvidia-smi``; searched for when omitted.
    """
    program = program or shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_cards(done.stdout.decode("utf-8", "replace")) if done.returncode == 0 else []


def parse_cards(text: str) -> list[Card]:
    """Read the driver's table; lines that are not what was asked for are left out."""
    cards = []
    for line in text.splitlines()[:_MAX_CARDS]:
        values = [value.strip() for value in line.split(",")]
        if len(values) != len(_FIELDS) or not values[0].isdecimal():
            continue
        total, used, use = (_number(value) for value in values[2:5])
        cards.append(
            Card(
                index=int(values[0]),
                name=values[1][:100],
                memory_total=None if total is None else int(total * _MIB),
                memory_used=None if used is None else int(used * _MIB),
                use=None if use is None else use / 100,
                celsius=_number(values[5]),
                watts=_number(values[6]),
            )
        )
    return cards


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:  # "[N/A]", "[Not Supported]"
        return None
    return value if value == value and abs(value) < 1e12 else None
