"""``python -m colab_bridge.daemon``."""

from __future__ import annotations

import gc
import sys

if __name__ == "__main__":
    # Modules stay until the end: to look for garbage among them takes a tenth of the start, and of every look later.
    gc.disable()
    from colab_bridge.agent.garbage import look_seldom
    from colab_bridge.daemon.main import main

    gc.freeze()
    look_seldom()
    gc.enable()
    sys.exit(main(sys.argv[1:]))
