"""Colab Bridge: your own editor, folder and notebooks; a remote machine's kernels underneath.

The names below are the public Python API. They are loaded when they are first used, so that importing the package
costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colab_bridge.bridge.credentials import CredentialManager
    from colab_bridge.bridge.deployer import AutoColabDeployer
    from colab_bridge.bridge.engine import LocalColabEngine
    from colab_bridge.bridge.files import FileSyncManager
    from colab_bridge.bridge.local import LocalColab
    from colab_bridge.bridge.notebook import LocalColabNotebook
    from colab_bridge.bridge.universal import UniversalColabBridge

__all__ = [
    "AutoColabDeployer",
    "CredentialManager",
    "FileSyncManager",
    "LocalColab",
    "LocalColabEngine",
    "LocalColabNotebook",
    "UniversalColabBridge",
    "__version__",
]

__version__ = "0.1.0"

_PLACES = {
    "AutoColabDeployer": "colab_bridge.bridge.deployer",
    "CredentialManager": "colab_bridge.bridge.credentials",
    "FileSyncManager": "colab_bridge.bridge.files",
    "LocalColab": "colab_bridge.bridge.local",
    "LocalColabEngine": "colab_bridge.bridge.engine",
    "LocalColabNotebook": "colab_bridge.bridge.notebook",
    "UniversalColabBridge": "colab_bridge.bridge.universal",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'colab_bridge' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
