"""Hardware that can be asked for, by the names that people and Google use. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from colab_bridge.errors import UserError

__all__ = ["ACCELERATORS", "CPU", "Accelerator", "Hardware", "parse_ladder"]

Kind = Literal["cpu", "gpu", "tpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A kind of card.

    Attributes:
        name: Google's name in upper case, such as ``T4``.
        kind: ``gpu`` or ``tpu``.
        high_memory_only: True when it only comes with much memory, so that a memory shape must not be asked for.
    """

    name: str
    kind: Kind
    high_memory_only: bool = False


#: Names seen in Google's own clients. Others may exist: what a service answers is never checked against this table.
ACCELERATORS: Final = MappingProxyType(
    {
        card.name: card
        for card in (
            Accelerator(name="T4", kind="gpu"),
            Accelerator(name="L4", kind="gpu", high_memory_only=True),
            Accelerator(name="A100", kind="gpu"),
            Accelerator(name="G4", kind="gpu", high_memory_only=True),
            Accelerator(name="H100", kind="gpu", high_memory_only=True),
            Accelerator(name="V28", kind="tpu", high_memory_only=True),
            Accelerator(name="V5E1", kind="tpu", high_memory_only=True),
            Accelerator(name="V6E1", kind="tpu", high_memory_only=True),
        )
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One machine type.

    Attributes:
        kind: ``cpu``, ``gpu`` or ``tpu``.
        accelerator: Name of the card in upper case; empty for a CPU machine.
        high_memory: Whether the machine has the larger memory shape.
    """

    kind: Kind = "cpu"
    accelerator: str = ""
    high_memory: bool = False

    def __str__(self) -> str:
        name = self.accelerator or "CPU"
        return f"{name}, high memory" if self.high_memory else name


CPU: Final = Hardware()


def parse_ladder(text: str, kind: Kind, *, high_memory: bool = False) -> tuple[Hardware, ...]:
    """Read an order of preference such as ``A100,L4,T4``; no network is asked.

    Args:
        text: Names separated by commas, in any case.
        kind: ``gpu`` or ``tpu``: which names are allowed.
        high_memory: Ask for the larger memory shape wherever there is a choice.

    Returns:
        What to try, best first, each once.

    Raises:
        UserError: a name is unknown, belongs to the other kind, or there is none.
    """
    known = [card.name for card in ACCELERATORS.values() if card.kind == kind]
    names = [part.strip().upper() for part in text.split(",") if part.strip()]
    if not names:
        raise UserError(f"no {kind.upper()} is named", hint=f"use one or more of: {', '.join(known)}")
    return tuple(_rung(name, kind, known, high_memory) for name in dict.fromkeys(names))


def _rung(name: str, kind: Kind, known: Sequence[str], high_memory: bool) -> Hardware:
    card = ACCELERATORS.get(name)
    if card is None or card.kind != kind:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? There are: {', '.join(known)}" if near else f"use one of: {', '.join(known)}"
        if card is not None:
            hint = f"it is a {card.kind.upper()}: use --{card.kind} {name}"
        raise UserError(f"there is no {kind.upper()} called {name[:40]!r}", hint=hint, code="CB-USER-060")
    return Hardware(kind=kind, accelerator=name, high_memory=high_memory and not card.high_memory_only)
