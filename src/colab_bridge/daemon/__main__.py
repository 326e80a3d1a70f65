"""``python -m colab_bridge.daemon``."""

from __future__ import annotations

import sys

from colab_bridge.daemon.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
