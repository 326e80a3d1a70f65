"""A kernel manager that has room for one kernel, for a server that is configured with it."""

from __future__ import annotations

import os
from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado import web


class OneKernel(AsyncMappingKernelManager):
    async def start_kernel(self, *arguments: Any, **members: Any) -> Any:
        if len(self) > 0:
            raise web.HTTPError(int(os.environ.get("REFUSE_WITH", "403")), "there is a kernel already")
        return await super().start_kernel(*arguments, **members)
