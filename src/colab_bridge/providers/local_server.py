"""The first lines of a local runtime's server process; run as a script with ``-P`` and a configuration file.

The token comes from that file: arguments are seen by everybody, and kernels inherit the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["main"]


def main(config_file: str) -> None:
    """Run the server until it is shut down.

    Args:
        config_file: Path of the JSON configuration.
    """
    # The last place that Python looks: finds our own package also where it is not installed but only on a path.
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    # A gateway in the environment would send local kernels elsewhere.
    for name in [name for name in os.environ if name.startswith("JUPYTER_GATEWAY_")]:
        del os.environ[name]
    # jsonschema tries this module for the format "iri" and does without it where it is missing. It compiles a grammar
    # when imported, which takes 0.9 s of the server's start, and no schema here uses the format.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # None is how Python spells "cannot be imported"
    from colab_bridge.providers.local_app import LocalServerApp  # here, because all of the above must come first

    LocalServerApp.launch_instance([f"--config={config_file}"])


if __name__ == "__main__":
    main(sys.argv[1])
