"""The application of a local runtime: ``jupyter_server`` that reads one configuration file and nothing else."""

from __future__ import annotations

import socket
from pathlib import Path

from jupyter_server.serverapp import ServerApp
from tornado.netutil import bind_sockets
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

    def _find_http_port(self) -> None:
        # The base class tries a port, lets go of it, tells of it and only then binds it again: another program can
        # take it in between, and 2.14 tells of port 0. Here the socket listens before anybody is told.
        try:
            self._sockets: list[socket.socket] = bind_sockets(self.port, self.ip)
        except OSError as error:
            self.log.critical("cannot listen on port %i: %s", self.port, error.strerror)
            self.exit(1)
        self.port = self._sockets[0].getsockname()[1]

    def _bind_http_server_tcp(self) -> bool:
        self.http_server.add_sockets(self._sockets)
        return True
