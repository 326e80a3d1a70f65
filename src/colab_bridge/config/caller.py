"""What a caller tells the daemon about its own environment, because the daemon's may be older."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["caller_env", "environment_python", "without_secrets"]

_ENVIRONMENTS = ("VIRTUAL_ENV", "CONDA_PREFIX")
# Where Google's own tools have put credentials.
_CREDENTIALS = ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG")
_SECRETS = ("COLAB_BRIDGE_ACCESS_TOKEN", "COLAB_BRIDGE_PASSPHRASE")


def caller_env(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that go with a request: ours, the active Python environment, where credentials are."""
    others = (*_ENVIRONMENTS, *_CREDENTIALS)
    return {name: value for name, value in environ.items() if name.startswith("COLAB_BRIDGE_") or name in others}


def without_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that may be kept on the disk: all but those that are secrets themselves."""
    return {name: value for name, value in env.items() if name not in _SECRETS}


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
