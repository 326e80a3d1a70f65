"""How often a process of ours looks for garbage that only a collector finds."""

from __future__ import annotations

import gc

__all__ = ["look_seldom"]

_YOUNG_OBJECTS = 20_000


def look_seldom() -> None:
    """Look less often than Python does by itself.

    A folder of 10,000 files is some 100,000 objects that stay. At every 700 new ones Python looks whether some are
    garbage, and now and then at all that there are: that was a third of the time of a first copy. What is in no cycle
    goes at once, whatever is set here.
    """
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
