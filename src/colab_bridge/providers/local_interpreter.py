"""Which Python the kernels of a local runtime run with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colab_bridge._util.atomic import write_atomic
from colab_bridge.errors import UserError

__all__ = ["InterpreterCache", "KernelPython", "choose_interpreter", "kernelspec", "project_interpreters"]

_CHECK_TIMEOUT_S = 20.0  # a cold import of ipykernel from a slow disk
_CREATE_NO_WINDOW = 0x08000000  # Windows API; subprocess defines the name on Windows only
_ANSWER = "it runs kernels"  # also /bin/true ends with 0 when it is given this code
_CHECK = f"import sys, ipykernel, zmq; print({_ANSWER!r}); print(*[p for p in sys.path if p], sep='\\n')"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelPython:
    """The interpreter that was chosen.

    Attributes:
        path: Absolute path of the program, links not followed (a virtual environment is known by its link).
        notice: Empty, or one sentence for the user about why it is not the expected one, with the fix.
    """

    path: str
    notice: str = ""


class InterpreterCache:
    """Remembers which interpreters can run a kernel, until something is installed there.

    Args:
        file: JSON file; what cannot be read counts as empty, since everything in it can be found out again.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def can_run_kernels(self, python: Path) -> bool:
        """Whether ``ipykernel`` can be imported there; runs the interpreter once when that is not known. Blocks."""
        known = self._read()
        entry = known.get(str(python))
        if isinstance(entry, dict) and entry.get("stamps") == _stamps(entry.get("stamps")):
            return bool(entry.get("ok"))
        ok, folders = _ask(python)
        folders = folders or [str(folder) for folder in _site_folders(python) if folder.is_dir()]
        # Holds here: without a folder to watch, a later installation would go unseen; so nothing is remembered.
        if folders:
            known[str(python)] = {"ok": ok, "stamps": _stamps(dict.fromkeys([str(python), *folders], 0))}
            self._write(known)
        return ok

    def _read(self) -> dict[str, Any]:
        try:
            value = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def _write(self, known: dict[str, Any]) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._file, json.dumps(known, indent=1).encode(), mode=0o600)
        except OSError:
            return  # a cache that cannot be kept costs a third of a second the next time


def _stamps(watched: object) -> dict[str, int]:
    """Return the time of change by path, 0 where there is nothing."""
    stamps: dict[str, int] = {}
    for path in watched if isinstance(watched, dict) else {}:
        try:
            stamps[path] = os.stat(path).st_mtime_ns
        except OSError:
            stamps[path] = 0
    return stamps


def _ask(python: Path) -> tuple[bool, list[str]]:
    """Run the interpreter, and return whether it can run kernels and the folders it imports from."""
    try:
        done = subprocess.run(
            [str(python), "-c", _CHECK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CHECK_TIMEOUT_S,
            check=False,
            cwd=python.parent,  # not the project: a file of the user's must not be taken for a module
            env=_check_environment(),
            creationflags=_CREATE_NO_WINDOW if sys.platform == "win32" else 0,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False, []
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    if done.returncode != 0 or lines[:1] != [_ANSWER]:
        return False, []
    folders = lines[1:]
    return done.returncode == 0, [
        folder for folder in folders if "site-packages" in folder or "dist-packages" in folder
    ]


def _check_environment() -> dict[str, str]:
    # Modules that our own process was given would be found, but not by a kernel in another environment.
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def _site_folders(python: Path) -> list[Path]:
    """Return where packages of a virtual environment lie, so that a failed check is repeated after an installation."""
    prefix = python.parent.parent
    windows = [prefix / "Lib" / "site-packages", python.parent / "Lib" / "site-packages"]  # the second is conda's
    return [*windows, *sorted((prefix / "lib").glob("python*/site-packages"))]


def project_interpreters(project: Path) -> list[Path]:
    """Return the interpreters of a project's own virtual environments, usual names first."""
    found = []
    for name in (".venv", "venv", "env"):
        for inner in ("bin/python", "Scripts/python.exe"):
            python = project / name / inner
            if python.is_file():
                found.append(python)
    return found


def choose_interpreter(project: Path, options: Mapping[str, Any], cache: InterpreterCache) -> KernelPython:
    """Decide which interpreter runs the kernels of a project. Blocks while it tries one that is not known.

    In this order: the option ``python``; the project's own virtual environment; the option ``env_python`` (the
    environment that was active where the command was given); the interpreter that runs Colab Bridge.

    Args:
        project: Root of the project.
        options: Provider options.
        cache: What is known of interpreters.

    Raises:
        UserError: the option ``python`` names something that cannot run kernels.
    """
    if options.get("python"):
        return _explicit(str(options["python"]), project, cache)
    rejected: Path | None = None
    candidates = project_interpreters(project)
    if options.get("env_python"):
        candidates.append(Path(os.path.abspath(str(options["env_python"]))))
    for python in candidates:
        if python.is_file() and cache.can_run_kernels(python):
            return KernelPython(path=str(python), notice=_notice(rejected, str(python), project))
        rejected = rejected or python
    return KernelPython(path=sys.executable, notice=_notice(rejected, sys.executable, project))


def _explicit(wanted: str, project: Path, cache: InterpreterCache) -> KernelPython:
    path = shutil.which(wanted) if os.path.basename(wanted) == wanted else str(project / Path(wanted).expanduser())
    if path is None or not Path(path).is_file():
        raise UserError(
            f"no Python interpreter at {wanted}", hint="give `python` the path of an interpreter, or leave it out"
        )
    python = Path(os.path.abspath(path))
    if not cache.can_run_kernels(python):
        raise UserError(f"{wanted} has no working ipykernel", hint=f"{wanted} -m pip install ipykernel")
    return KernelPython(path=str(python))


def _notice(rejected: Path | None, used: str, project: Path) -> str:
    if rejected is None:
        return ""
    shown = rejected.relative_to(project) if rejected.is_relative_to(project) else rejected
    return (
        f"{shown} has no working ipykernel, so code runs with {used}; to change that: {shown} -m pip install ipykernel"
    )


def kernelspec(python: str) -> dict[str, Any]:
    """Return the content of ``kernel.json`` for an interpreter.

    ``!pip`` and ``python`` in a subprocess shall mean that same environment, as they do after its activation.
    """
    return {
        # Frozen modules make a debugger miss breakpoints; a Python that does not know the option ignores it.
        "argv": [python, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
        "interrupt_mode": "signal",
        "metadata": {"debugger": True},
        "env": _activation(Path(python)),
    }


def _activation(python: Path) -> dict[str, str]:
    bin_folder = python.parent
    prefix = bin_folder.parent if bin_folder.name in ("bin", "Scripts") else bin_folder
    # jupyter_client expands ${PATH}; a dollar of the path itself is doubled for it.
    path = str(bin_folder).replace("$", "$$") + os.pathsep + "${PATH}"
    if (prefix / "pyvenv.cfg").is_file():
        return {"VIRTUAL_ENV": str(prefix).replace("$", "$$"), "PATH": path}
    if (prefix / "conda-meta").is_dir():
        return {"CONDA_PREFIX": str(prefix).replace("$", "$$"), "PATH": path}
    return {}
