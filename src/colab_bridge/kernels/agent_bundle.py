"""The agent as one file: a zip that Python runs, the same bytes wherever it is made from the same sources.

Everything below ``colab_bridge/agent`` that can be imported on the runtime goes into it, as the package
``colab_bridge_agent``; that other name keeps it apart from a ``colab_bridge`` that may be installed there too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.resources import files
from importlib.resources.abc import Traversable

__all__ = ["PACKAGE", "Bundle", "compiled_bundle", "compiled_file_name", "doorman_source", "load_bundle", "make_bundle"]

PACKAGE = "colab_bridge_agent"
# Two programs, because what starts the agent runs often, and what the agent needs takes long to load.
_MAIN = f"""import sys

if sys.argv[1] == "start":
    from {PACKAGE}.process.start import main
else:
    from {PACKAGE}.process.serve import main

main()
"""
# These are sent as the text of a cell, and nothing on the runtime imports them.
_TEXTS = ("doorman.py", "runner.py")
# The earliest time that a zip can name: the sources' own times would change the content.
_TIME = (1980, 1, 1, 0, 0, 0)
_HASH_CHARS = 20
# Flags of a .pyc that is to be taken without a look at its source. Source: PEP 552.
_UNCHECKED = (1).to_bytes(4, "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The agent, ready to be sent.

    Attributes:
        data: The zip.
        content_hash: First characters of the SHA-256 of the zip of the sources.
        python: Tag of the only Python that it is for; empty where it is for any.
    """

    data: bytes
    content_hash: str
    python: str = ""

    @property
    def file_name(self) -> str:
        """Name of its file on the runtime."""
        tag = f"-{self.python}" if self.python else ""
        return f"agent-{self.content_hash}{tag}.pyz"


@cache
def load_bundle() -> Bundle:
    """Return the bundle of this installation."""
    return make_bundle({name: path.read_bytes() for name, path in _modules().items()})


def compiled_bundle() -> Bundle:
    """Return the same for this machine's own interpreter, with the compiled modules beside the sources.

    Compiling takes three quarters of the processor time of an agent's start. Here the result is taken from where this
    installation keeps it already.
    """
    sources = load_bundle()
    buffer = io.BytesIO(sources.data)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, path in _modules().items():
            entry = zipfile.ZipInfo(f"{PACKAGE}/{name}c", _TIME)
            archive.writestr(entry, _compiled(name, str(path)), zipfile.ZIP_STORED)
    return Bundle(data=buffer.getvalue(), content_hash=sources.content_hash, python=_python_tag())


def compiled_file_name() -> str:
    """Return the name of the file of :func:`compiled_bundle` without making it."""
    return Bundle(data=b"", content_hash=load_bundle().content_hash, python=_python_tag()).file_name


def _python_tag() -> str:
    return sys.implementation.cache_tag or "python"


def _compiled(name: str, path: str) -> bytes:
    module = "colab_bridge.agent." + name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    loader = SourceFileLoader(module, path)
    code = loader.get_code(module)
    source_hash = importlib.util.source_hash(loader.get_data(path))
    return importlib.util.MAGIC_NUMBER + _UNCHECKED + source_hash + marshal.dumps(code)


@cache
def doorman_source() -> str:
    """Return the text that is sent into the doorman kernel."""
    return (files("colab_bridge") / "agent" / "doorman.py").read_text(encoding="utf-8")


def make_bundle(sources: Mapping[str, bytes]) -> Bundle:
    """Make a bundle; equal sources give equal bytes.

    Args:
        sources: Content of each module by its path below the package, with forward slashes.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted({"__main__.py": _MAIN.encode(), **_placed(sources)}.items()):
            entry = zipfile.ZipInfo(name, _TIME)
            # Stored when the archive is made: the compressor's output may differ from one zlib to the next.
            entry.create_system = 3
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, data, zipfile.ZIP_STORED)
    raw = buffer.getvalue()
    return Bundle(data=raw, content_hash=hashlib.sha256(raw).hexdigest()[:_HASH_CHARS])


def _placed(sources: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{PACKAGE}/{name}": data for name, data in sources.items()}


def _modules() -> dict[str, Traversable]:
    return {name: path for name, path in _walk(files("colab_bridge") / "agent", "") if name not in _TEXTS}


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            if entry.name != "__pycache__":
                found += _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            found.append((prefix + entry.name, entry))
    return found
