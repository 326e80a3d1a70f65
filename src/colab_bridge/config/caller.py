"""What a caller tells the daemon about its own environment, because the daemon's may be older."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["caller_env", "environment_python"]

_ENVIRONMENTS = ("VIRTUAL_ENV", "CONDA_PREFIX")


def caller_env(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that go with a request: ours, and the Python environment that is active."""
    return {name: value for name, value in environ.items() if name.startswith("COLAB_BRIDGE_") or name in _ENVIRONMENTS}


def environment_python(env: Mapping[str, str]) -> str | None:
    """Return the interpreter of the environment that was active for the caller; None without one.

    Args:
        env: As :func:`caller_env` returned it.
    """
    for name in _ENVIRONMENTS:
        if folder := env.get(name):
            windows = "\\" in folder
            return f"{folder}\\Scripts\\python.exe" if windows else f"{folder}/bin/python"
    return None
