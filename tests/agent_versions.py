"""An agent of another version than this installation's."""

from __future__ import annotations

import io
import zipfile

from colab_bridge.kernels.agent_bundle import PACKAGE, Bundle, load_bundle, make_bundle


def another_version() -> Bundle:
    """Return this installation's agent with one more file in it."""
    archive = zipfile.ZipFile(io.BytesIO(load_bundle().data))
    sources = {name.removeprefix(f"{PACKAGE}/"): archive.read(name) for name in archive.namelist()}
    del sources["__main__.py"]
    return make_bundle({**sources, "process/newer.py": b"# newer\n"})
