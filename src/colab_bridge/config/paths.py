"""The folders and files that Colab Bridge owns on this machine.

Only the standard library is imported here, because every command line call needs a path and none should pay for more.
Nothing here is a Unix socket, so a long folder name never meets the limit of about 100 bytes that those have.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from colab_bridge.errors import UserError

__all__ = ["HOME_VARIABLE", "Paths"]

HOME_VARIABLE = "COLAB_BRIDGE_HOME"
_APP_NAME = "colab-bridge"
# Group and others get nothing: the folders hold tokens, outputs and source text.
_FOLDER_MODE = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where everything of ours is kept.

    Attributes:
        config_dir: What the user has set.
        state_dir: What must survive a restart: records, database, logs.
        cache_dir: What can be made again.
        runtime_dir: What is worth something only while the daemon runs.
        home: The value of ``COLAB_BRIDGE_HOME``, absolute; None when the platform's own folders are used.
    """

    config_dir: Path
    state_dir: Path
    cache_dir: Path
    runtime_dir: Path
    home: Path | None

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Paths:
        """Return the folders for one environment; nothing is made on the disk.

        Args:
            environ: Usually ``os.environ``. ``COLAB_BRIDGE_HOME`` (``~`` allowed, relative to the working folder) puts
                everything below one folder; otherwise the platform's own folders are taken from this process.
        """
        named = environ.get(HOME_VARIABLE, "")
        if named:
            home = Path(os.path.abspath(os.path.expanduser(named)))
            return cls(
                config_dir=home / "config",
                state_dir=home / "state",
                cache_dir=home / "cache",
                runtime_dir=home / "run",
                home=home,
            )
        # Imported here because it costs 18 ms and calls with COLAB_BRIDGE_HOME need none of it.
        import platformdirs

        folders = platformdirs.PlatformDirs(_APP_NAME, appauthor=False)
        return cls(
            config_dir=folders.user_config_path,
            state_dir=folders.user_state_path,
            cache_dir=folders.user_cache_path,
            # Not the platform's runtime folder: on Linux a login session has one and a cron job has another, and a
            # daemon for each would then share one database. It also vanishes at logout while the daemon goes on.
            runtime_dir=folders.user_state_path / "run",
            home=None,
        )

    def ensure(self) -> None:
        """Make the four folders, readable by their owner only.

        Raises:
            UserError: A folder cannot be made, is a file, belongs to somebody else (POSIX), or is open to others and
                cannot be closed.
        """
        if self.home is not None and not self.home.exists():
            # One that exists is left as it is: somebody may have named a folder that others use too.
            _ensure_private(self.home)
        for folder in (self.config_dir, self.state_dir, self.cache_dir, self.runtime_dir):
            _ensure_private(folder)

    @property
    def daemon_file(self) -> Path:
        """Where the running daemon says how it is reached."""
        return self.runtime_dir / "daemon.json"

    @property
    def lock_file(self) -> Path:
        """Held by the one running daemon."""
        return self.runtime_dir / "daemon.lock"

    @property
    def database(self) -> Path:
        """The daemon's SQLite file."""
        return self.state_dir / "state.db"

    @property
    def records_dir(self) -> Path:
        """One numbered record for each kernel."""
        return self.state_dir / "records"

    @property
    def runtimes_dir(self) -> Path:
        """What the runtimes on this machine keep."""
        return self.state_dir / "runtimes"

    @property
    def outputs_dir(self) -> Path:
        """Images and other results that a terminal run has shown."""
        return self.state_dir / "outputs"

    @property
    def daemon_log(self) -> Path:
        """The daemon's own log."""
        return self.state_dir / "daemon.log"

    @property
    def user_config(self) -> Path:
        """The user's settings file."""
        return self.config_dir / "config.toml"


def _ensure_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        found = folder.stat()
    except FileExistsError as error:
        raise UserError(
            f"{folder} is needed as a folder, but a file is there",
            hint=f"Move that file away, or set {HOME_VARIABLE} to a folder of yours.",
            code="CB-USER-PATH",
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder}: {error.strerror or error}",
            hint=f"Set {HOME_VARIABLE} to a folder that you can write to.",
            code="CB-USER-PATH",
        ) from error
    # On Windows the profile folder's access list does this work; there are no owner ids and no mode bits.
    if os.name == "posix":
        _check_owner(folder, found)


def _check_owner(folder: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise UserError(
            f"{folder} belongs to another user (id {found.st_uid})",
            hint=f"Set {HOME_VARIABLE} to a folder of your own, for example ~/.colab-bridge.",
            code="CB-USER-PATH",
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        try:
            folder.chmod(_FOLDER_MODE)
        except OSError as error:
            raise UserError(
                f"{folder} can be read by other users and cannot be closed: {error.strerror or error}",
                hint=f"Run: chmod 700 {folder}",
                code="CB-USER-PATH",
            ) from error
