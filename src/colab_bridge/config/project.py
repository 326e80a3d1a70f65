"""Which folder is the project.

Standard library only: the command line asks this on its fast path.
"""

from __future__ import annotations

import os
from pathlib import Path

from colab_bridge.errors import UserError

__all__ = ["MARKERS", "find_root"]

MARKERS = (".colab-bridge", "colab-bridge.toml", "pyproject.toml", ".git")


def find_root(start: Path, *, home: Path | None = None, strict: bool = False) -> Path:
    """Return the root of the project that a folder belongs to.

    The root is the nearest folder, from ``start`` upwards, that holds one of :data:`MARKERS`; without any it is
    ``start`` itself. The user's home folder and the root of a file system are never found this way: a dotfiles
    repository in the home folder must not turn everything below it into one project, so a marker there does not
    count and nothing above them is looked at.

    Args:
        start: A folder, or a file in it; need not exist. Relative paths count from the working folder.
        home: The user's home folder; this user's own when omitted.
        strict: For whoever copies the whole folder (sync). Without it, somebody who stands in the home folder
            gets that folder, which is right for a working directory of code that runs in place.

    Returns:
        An absolute path. Symbolic links are kept as the user wrote them.

    Raises:
        UserError: ``strict``, and the root would be the home folder or the root of a file system.
    """
    folder = Path(os.path.abspath(start))
    if folder.is_file():
        folder = folder.parent
    own_home = _home() if home is None else home
    for candidate in (folder, *folder.parents):
        if _is_too_wide(candidate, own_home):
            break
        if any((candidate / marker).exists() for marker in MARKERS):
            return candidate
    if strict and _is_too_wide(folder, own_home):
        raise UserError(
            f"{folder} is too wide to be a project: everything below it would belong to it",
            hint="Make a folder for the project and work there, for example: mkdir ~/my-project && cd ~/my-project",
            code="CB-USER-ROOT",
        )
    return folder


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # no entry for this user and no HOME, as in some containers
        return None


def _is_too_wide(folder: Path, home: Path | None) -> bool:
    if folder == folder.parent:
        return True
    if home is None:
        return False
    return folder == home or os.path.realpath(folder) == os.path.realpath(home)
