"""A kernel manager whose connection files nobody finds, for a server that is configured with it."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager


class HiddenFiles(AsyncMappingKernelManager):
    """Keeps each kernel's connection file in a folder of its own, so that knowing one kernel's shows no other's."""

    def pre_start_kernel(self, kernel_name: str | None, kwargs: Any) -> tuple[Any, str, str]:
        self.connection_dir = tempfile.mkdtemp(dir=os.environ["HIDDEN_FILES"])
        started: tuple[Any, str, str] = super().pre_start_kernel(kernel_name, kwargs)
        return started
