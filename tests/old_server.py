"""The oldest Jupyter server that is supported, in an environment of its own that is made once and kept.

It is kept in ``.test-artifacts``, which the repository ignores, under a name that follows from its requirements.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import filelock
import pytest

__all__ = ["old_server_python"]

_ROOT = Path(__file__).parents[1]
_REQUIREMENTS = Path(__file__).with_name("data") / "old-server.txt"
_INSTALL_TIMEOUT_S = 300.0
_VENV_TIMEOUT_S = 60.0


@functools.cache
def old_server_python() -> str:
    """Return the interpreter of the environment, made if need be; it takes half a minute then.

    Skips the test that asks when there is no Python 3.10 on this machine, or the packages cannot be had.
    """
    python = _python_3_10()
    if python is None:
        pytest.skip("no Python 3.10 on this machine, by its name or below pyenv's folder")
    name = hashlib.sha256(_REQUIREMENTS.read_bytes() + python.encode()).hexdigest()[:12]
    place = _ROOT / ".test-artifacts" / f"old-server-{name}"
    place.parent.mkdir(exist_ok=True)
    with filelock.FileLock(f"{place}.lock", timeout=_INSTALL_TIMEOUT_S + _VENV_TIMEOUT_S):
        if not _python_in(place).exists():
            _make(python, place)
    return str(_python_in(place))


def _python_3_10() -> str | None:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which("python3.10"), *map(str, sorted(root.glob("versions/3.10.*/bin/python")))]
    for path in found:
        # A launcher of a version that is not installed does not answer.
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


def _python_in(place: Path) -> Path:
    return place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _make(python: str, place: Path) -> None:
    """Make the environment beside its place, and move it there whole: a run that is ended leaves no half of one."""
    with tempfile.TemporaryDirectory(prefix="old-server-", dir=place.parent) as name:
        made = Path(name) / "environment"
        try:
            subprocess.run([python, "-m", "venv", str(made)], check=True, capture_output=True, timeout=_VENV_TIMEOUT_S)
            pip = [str(_python_in(made)), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
            subprocess.run(
                [*pip, "-r", str(_REQUIREMENTS)], check=True, capture_output=True, timeout=_INSTALL_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"jupyter_server 1.24 was not installed within {_INSTALL_TIMEOUT_S:.0f} s")
        except subprocess.CalledProcessError as error:
            last = error.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            pytest.skip(f"jupyter_server 1.24 cannot be installed here: {last[:200]}")
        made.rename(place)
