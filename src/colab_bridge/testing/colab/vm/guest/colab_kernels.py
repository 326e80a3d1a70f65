"""Kernels as the machines' own Jupyter server has them, where it differs from a current one."""

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

_LAST_DIGITS = ".000000Z"


class ColabKernelManager(AsyncMappingKernelManager):
    """Takes an empty kernel id for none, as clients send it, and always gives times with six digits of a second."""

    async def start_kernel(self, *, kernel_id=None, path=None, **values):
        """Start a kernel."""
        return await super().start_kernel(kernel_id=kernel_id or None, path=path, **values)

    def kernel_model(self, kernel_id):
        """Describe a kernel."""
        model = super().kernel_model(kernel_id)
        if "." not in model["last_activity"]:
            model["last_activity"] = model["last_activity"].removesuffix("Z") + _LAST_DIGITS
        return model
