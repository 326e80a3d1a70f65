"""What the settings say about a pair of folders."""

from __future__ import annotations

from dataclasses import dataclass

from colab_bridge.sync_core.model import Side

__all__ = ["PairOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOptions:
    """What the settings say about a pair.

    Attributes:
        winner: The side that keeps a path that both changed.
        trust: Files that tools execute may be changed by the runtime where they exist already.
        barrier_bytes: Larger results come down in the background, after the barrier.
        may_execute: The runtime may make files executable here.
    """

    winner: Side = Side.LOCAL
    trust: bool = False
    barrier_bytes: int = 8 << 20
    may_execute: bool = False
