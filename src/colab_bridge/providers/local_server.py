"""The server process of a local runtime: ``jupyter_server`` that reads one configuration file and nothing else.

Run as a script with ``-P`` and the path of the configuration file, from which also the token comes: neither arguments nor
the environment may hold it, because kernels inherit the one and everybody sees the other.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jupyter_server.serverapp import ServerApp
from traitlets import default

__all__ = ["LocalServerApp", "main"]


class LocalServerApp(ServerApp):
    """A server without extensions, without the user's configuration and without services that nobody here calls.

    Besides being predictable this halves the time to the first answer.
    """

    # nbconvert and the notebook viewer alone cost a third of a second of imports.
    default_services = ("api", "auth", "contents", "events", "files", "kernels", "kernelspecs", "sessions", "shutdown")

    @default("no_browser_open_file")
    def _default_no_browser_open_file(self) -> bool:
        return True

    @property
    def config_file_paths(self) -> list[str]:
        """Only the folder of our own file: a user's settings are meant for a server that the user started."""
        return [str(Path(self.config_file).parent)]

    def _runtime_dir_default(self) -> str:
        return str(Path(self.config_file).parent / "runtime")

    def _config_dir_default(self) -> str:
        return str(Path(self.config_file).parent)

    def migrate_config(self) -> None:
        """Do nothing: files of IPython 3 are none of our business."""

    def find_server_extensions(self) -> None:
        """Do nothing: extensions slow the start down, and can break it."""


def main(config_file: str) -> None:
    """Run the server until it is shut down.

    Args:
        config_file: Path of the JSON configuration.
    """
    # The last place that Python looks: finds our own package also where it is not installed but only on a path.
    sys.path.append(str(Path(__file__).parents[2]))
    # A gateway in the environment would send local kernels elsewhere.
    for name in [name for name in os.environ if name.startswith("JUPYTER_GATEWAY_")]:
        del os.environ[name]
    LocalServerApp.launch_instance([f"--config={config_file}"])


if __name__ == "__main__":
    main(sys.argv[1])
