"""The daemon's state on disk: sessions, kernels and runs in one SQLite file.

The standard library's ``sqlite3`` and a handful of statements do it: an object mapper would cost more resident memory
than all the rest of this layer, and the daemon has 80 MB for everything.
"""

from colab_bridge.store.store import Store

__all__ = ["Store"]
