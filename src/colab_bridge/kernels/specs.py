"""Kernelspecs: how Jupyter front ends learn that our proxy kernel exists.

A kernelspec is a folder with a ``kernel.json``. Ours carry a marker in their metadata; nothing else is ever changed or
removed.

Source: Jupyter client documentation, "Kernel specs"; Jupyter's "Common directories and file locations".
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import platformdirs

from colab_bridge._util.atomic import write_atomic
from colab_bridge.errors import ConflictError, UserError

__all__ = [
    "COLAB_SPECS",
    "InstalledSpec",
    "RuntimeSpecInfo",
    "default_target",
    "install",
    "installed",
    "kernel_json",
    "prefix_target",
    "remove",
    "spec_name",
]

_MARKER = "colab_bridge"
_SCHEMA = 1
_FILE = "kernel.json"
_LOGO_FILE = "logo-svg.svg"
_MAX_FILE_BYTES = 1 << 20
# What jupyter_client accepts as the name of a kernelspec.
_NAME = re.compile(r"[a-z0-9._-]+", re.IGNORECASE | re.ASCII)
# Everybody may read a kernelspec: it holds no secret, and a system-wide one must be seen by all.
_MODE = 0o644

# An arch between two piers: the bridge.
_LOGO = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">
  <rect width="64" height="64" rx="12" fill="#17324d"/>
  <path d="M8 44h48" stroke="#f5a623" stroke-width="5" stroke-linecap="round"/>
  <path d="M14 44a18 18 0 0 1 36 0" fill="none" stroke="#fff" stroke-width="4"/>
  <path d="M23 44V29.500M32 44V26M41 44V29.500" stroke="#fff" stroke-width="3"/>
</svg>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSpecInfo:
    """What a kernelspec stands for.

    Attributes:
        runtime: Name of the configured runtime, ``local`` for the one that is always there; for a machine of Colab what
            it is called here.
        display_name: What front ends show.
        kernel_name: Kernelspec on the runtime; None for its default.
        language: Language of that kernelspec.
        machine: Arguments that say which machine it is, in place of a configured runtime.
    """

    runtime: str
    display_name: str
    kernel_name: str | None = None
    language: str = "python"
    machine: tuple[str, ...] = ()


_COLAB = ("--provider", "colab")

#: Machines of Colab. Each is got when the first cell is run, not when an editor opens a notebook.
COLAB_SPECS: Final = (
    RuntimeSpecInfo(runtime="cpu", display_name="Colab (CPU)", machine=_COLAB),
    RuntimeSpecInfo(runtime="t4", display_name="Colab (T4)", machine=(*_COLAB, "--gpu", "T4")),
    RuntimeSpecInfo(runtime="l4", display_name="Colab (L4)", machine=(*_COLAB, "--gpu", "L4")),
    RuntimeSpecInfo(runtime="a100", display_name="Colab (A100)", machine=(*_COLAB, "--gpu", "A100")),
    RuntimeSpecInfo(runtime="tpu", display_name="Colab (TPU)", machine=(*_COLAB, "--tpu", "V6E1,V5E1")),
    RuntimeSpecInfo(runtime="colab", display_name="Colab (asks which machine)", machine=(*_COLAB, "--ask")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledSpec:
    """A kernelspec of ours on the disk.

    Attributes:
        name: What front ends call it, for example in ``jupyter console --kernel``.
        path: Its folder.
        runtime: The runtime that it starts kernels on.
        display_name: What front ends show.
        python: The interpreter that it starts.
    """

    name: str
    path: Path
    runtime: str
    display_name: str
    python: str


def spec_name(runtime: str) -> str:
    """Return the kernelspec name for a runtime: ``colab-bridge-local`` for ``local``.

    Raises:
        UserError: the name holds characters that kernelspecs must not have.
    """
    name = f"colab-bridge-{runtime}".lower()
    if not _NAME.fullmatch(name):
        raise UserError(
            f"'{runtime}' cannot be the name of a kernel",
            hint="rename the runtime: letters, digits, '.', '_' and '-' only",
            code="CB-USER-061",
        )
    return name


def kernel_json(info: RuntimeSpecInfo, python: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of a ``kernel.json``.

    The module's name must not contain ``ipykernel``: VS Code would rewrite the command line.

    Args:
        info: What it stands for.
        python: Absolute path of the interpreter that has this package.
        environ: Environment of whoever installs; ``COLAB_BRIDGE_HOME`` is passed on to the kernels.
    """
    argv = [python, "-m", "colab_bridge.kernels.proxy", *(info.machine or ("--runtime", info.runtime))]
    if info.kernel_name:
        argv += ["--kernel-name", info.kernel_name]
    spec: dict[str, Any] = {
        "argv": [*argv, "-f", "{connection_file}"],
        "display_name": info.display_name,
        "language": info.language,
        "interrupt_mode": "message",
        "metadata": {
            "debugger": info.language == "python",
            "supported_encryption": ["curve"],
            _MARKER: {"schema": _SCHEMA, "runtime": info.runtime},
        },
    }
    if home := environ.get("COLAB_BRIDGE_HOME"):
        spec["env"] = {"COLAB_BRIDGE_HOME": str(Path(home).expanduser().absolute())}
    return spec


def default_target(environ: Mapping[str, str]) -> Path:
    """Return the user's own kernelspec folder, where every Jupyter front end of this user looks."""
    if named := environ.get("JUPYTER_DATA_DIR"):
        return Path(named).expanduser() / "kernels"
    return _user_data_dir(environ) / "kernels"


def _user_data_dir(environ: Mapping[str, str]) -> Path:
    # The same order as jupyter_core.paths.jupyter_data_dir.
    if environ.get("JUPYTER_PLATFORM_DIRS", "").lower() not in ("", "0", "no", "n", "off", "false"):
        return platformdirs.user_data_path("jupyter", appauthor=False)
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Jupyter"
    if sys.platform == "win32":
        roaming = environ.get("APPDATA")
        return Path(roaming) / "jupyter" if roaming else home / ".jupyter" / "data"
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "jupyter"


def prefix_target(prefix: Path) -> Path:
    """Return the kernelspec folder of an environment, such as ``sys.prefix``."""
    return prefix / "share" / "jupyter" / "kernels"


def install(
    names: Mapping[str, RuntimeSpecInfo],
    target: Path,
    *,
    python: str = sys.executable,
    environ: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write kernelspecs; those of ours with the same names are replaced.

    Args:
        names: Kernelspec name (see :func:`spec_name`) to what it stands for.
        target: Folder of kernelspecs, made when missing.
        python: Interpreter that the kernels are started with.
        environ: Environment of whoever installs; this process's own when omitted.

    Returns:
        The folders written, in the order of ``names``.

    Raises:
        ConflictError: a kernelspec of somebody else has one of the names; nothing was written then.
        UserError: the folder cannot be written.
    """
    for name in names:
        _refuse_foreign(target / name)
    found = os.environ if environ is None else environ
    try:
        return [_write(target / name, kernel_json(info, python, found)) for name, info in names.items()]
    except OSError as error:
        raise UserError(
            f"cannot write kernelspecs to {target}: {error.strerror or error}",
            hint="colab-bridge kernels install --prefix FOLDER writes them elsewhere",
            code="CB-USER-062",
        ) from error


def _refuse_foreign(folder: Path) -> None:
    if (folder / _FILE).exists() and _read(folder) is None:
        raise ConflictError(
            f"{folder} is a kernelspec that Colab Bridge has not made",
            hint=f"rename or remove it: jupyter kernelspec remove {folder.name}",
            code="CB-CONFLICT-041",
        )


def _write(folder: Path, spec: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    # kernel.json last: without it the folder is no kernelspec yet.
    write_atomic(folder / _LOGO_FILE, _LOGO.encode("utf-8"), mode=_MODE)
    write_atomic(folder / _FILE, (json.dumps(spec, indent=1, ensure_ascii=False) + "\n").encode("utf-8"), mode=_MODE)
    return folder


def installed(target: Path) -> list[InstalledSpec]:
    """Return the kernelspecs of ours in a folder, by name; an empty list when the folder does not exist."""
    try:
        folders = sorted(target.iterdir())
    except OSError:
        return []
    return [spec for folder in folders if (spec := _read(folder)) is not None]


def _read(folder: Path) -> InstalledSpec | None:
    """Return what a folder holds; None when it is no kernelspec or not ours."""
    try:
        with (folder / _FILE).open("rb") as file:
            value = json.loads(file.read(_MAX_FILE_BYTES))
        marker = value["metadata"][_MARKER]
        return InstalledSpec(
            name=folder.name,
            path=folder,
            runtime=str(marker["runtime"]),
            display_name=str(value["display_name"]),
            python=str(value["argv"][0]),
        )
    except (OSError, ValueError, RecursionError, KeyError, IndexError, TypeError):
        return None


def remove(target: Path, names: Collection[str] | None = None) -> list[Path]:
    """Remove kernelspecs of ours.

    Args:
        target: Folder of kernelspecs.
        names: Only these; all of ours when omitted.

    Returns:
        The folders removed.

    Raises:
        UserError: one of the names is none of ours (nothing was removed then), or a folder cannot be removed.
    """
    ours = {spec.name: spec.path for spec in installed(target)}
    for name in names or ():
        if name not in ours:
            raise UserError(
                f"{target / name} is no kernelspec of Colab Bridge",
                hint="colab-bridge kernels list",
                code="CB-USER-043",
            )
    chosen = [path for name, path in ours.items() if names is None or name in names]
    for path in chosen:
        try:
            _remove_folder(path)
        except OSError as error:
            raise UserError(
                f"cannot remove {path}: {error.strerror or error}",
                hint="remove that folder by hand",
                code="CB-USER-044",
            ) from error
    return chosen


def _remove_folder(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)
