"""The silent set-up of a Python kernel: project modules are importable, and edited ones are seen by the next cell."""

from __future__ import annotations

from pathlib import PurePosixPath

__all__ = ["folder_code", "reloading_code"]

# IPython's own autoreload, for modules below one folder only: looking at every installed module costs milliseconds in
# each cell, and reloading them helps nobody. Whatever is missing there, the kernel works as before.
_CODE = """\
def _colab_bridge_setup(root, above):
    import os, sys
    root = root or os.path.normpath(os.path.join(os.getcwd(), *[os.pardir] * above))
    if root not in sys.path:
        sys.path.append(root)
    try:
        shell = get_ipython()
        shell.run_line_magic("load_ext", "autoreload")
        shell.run_line_magic("autoreload", "1")
        reloader = shell.magics_manager.registry["AutoreloadMagics"]._reloader
    except Exception:
        return
    def mark(*_):
        for name, module in list(sys.modules.items()):
            path = getattr(module, "__file__", None) or ""
            if path.startswith(root + os.sep) and name != "__main__" and name not in reloader.modules:
                reloader.mark_module_reloadable(name)
                reloader.filename_and_mtime(module)
    shell.events.register("post_run_cell", mark)
_colab_bridge_setup({root!r}, {above!r})
del _colab_bridge_setup
"""


# Servers differ in what they take a kernel's folder to be relative to, and some start all kernels in the same one.
_FOLDER = """\
def _colab_bridge_folder(folder):
    import os
    try:
        os.makedirs(folder, exist_ok=True)
        os.chdir(folder)
    except OSError:
        pass
_colab_bridge_folder({folder!r})
del _colab_bridge_folder
"""


def folder_code(folder: str) -> str:
    """Return the code that makes an absolute folder a kernel's own; it stays where it is if that cannot be."""
    return _FOLDER.replace("{folder!r}", repr(folder))


def reloading_code(root: str, cwd: str = "") -> str:
    """Return the code for a kernel whose project lies in a folder.

    Args:
        root: The folder; empty where only the kernel knows it.
        cwd: Folder in the project in which the kernel was started.
    """
    above = len(PurePosixPath(cwd).parts)
    return _CODE.replace("{root!r}", repr(root)).replace("{above!r}", repr(above))
