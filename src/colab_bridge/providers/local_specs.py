"""Which kernels a local runtime offers. Runs inside its server process."""

from __future__ import annotations

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from traitlets import Unicode

__all__ = ["OWN_PREFIX", "LocalKernelSpecManager"]

OWN_PREFIX = "colab-bridge-"


class LocalKernelSpecManager(KernelSpecManager):
    """All kernels that the user has installed, with our ``python3`` in front and without our proxy kernels.

    A proxy kernel offered by the runtime would start itself for ever.
    """

    # Annotations would make traitlets and mypy disagree about instance and class; the trait types say it all.
    first_dir = Unicode(help="Folder of kernelspecs that wins over all others.").tag(config=True)

    def _kernel_dirs_default(self) -> list[str]:
        others = super()._kernel_dirs_default()
        return [self.first_dir, *others] if self.first_dir else others

    def find_kernel_specs(self) -> dict[str, str]:
        """Return folder by kernel name, our own proxies left out."""
        found = super().find_kernel_specs()
        return {name: folder for name, folder in found.items() if not name.startswith(OWN_PREFIX)}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return one kernelspec.

        Raises:
            NoSuchKernel: there is none of that name, or it is a proxy of ours.
        """
        if kernel_name.lower().startswith(OWN_PREFIX):
            raise NoSuchKernel(kernel_name)
        return super().get_kernel_spec(kernel_name)
