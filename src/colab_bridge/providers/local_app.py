"""The application of a local runtime: ``jupyter_server`` that reads one configuration file and nothing else."""

from __future__ import annotations

from pathlib import Path

from jupyter_server.serverapp import ServerApp
from traitlets import default

__all__ = ["LocalServerApp"]


class LocalServerApp(ServerApp):
    """A server without extensions and without the user's configuration."""

    @default("no_browser_open_file")
    def _default_no_browser_open_file(self) -> bool:
        return True

    def _config_dir_default(self) -> str:
        return str(self._folder())

    def _runtime_dir_default(self) -> str:
        # Not by JUPYTER_RUNTIME_DIR: user code that starts a Jupyter program would get it too.
        return str(self._folder() / "runtime")

    def _folder(self) -> Path:
        return Path(self.config_file).parent

    @property
    def config_file_paths(self) -> list[str]:
        """Only the folder of our own file: a user's settings are meant for a server that the user started."""
        return [str(self._folder())]

    def migrate_config(self) -> None:
        """Do nothing: files of IPython 3 are none of our business."""

    def find_server_extensions(self) -> None:
        """Do nothing: extensions slow the start down, and can break it."""
