"""The agent as one file."""

from __future__ import annotations

import ast
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import colab_bridge.agent
from colab_bridge.kernels.agent_bundle import (
    PACKAGE,
    compiled_bundle,
    compiled_file_name,
    doorman_source,
    load_bundle,
    make_bundle,
)

SOURCES = {"__init__.py": b"", "process/serve.py": b"x = 1\n", "a.py": b"y = 2\n"}


def interpreters() -> list[str]:
    """This Python, and 3.10 if it is on the machine: by its name on the PATH, or below pyenv's folder."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which("python3.10"), *map(str, sorted(root.glob("versions/3.10.*/bin/python")))]
    return [sys.executable, *[path for path in found if path and works(path)][:1]]


def works(python: str) -> bool:
    """A launcher of a version that is not installed does not."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def test_equal_sources_give_equal_bytes_in_any_order() -> None:
    assert make_bundle(SOURCES) == make_bundle(dict(reversed(SOURCES.items())))


def test_one_changed_byte_changes_the_name() -> None:
    assert make_bundle(SOURCES).file_name != make_bundle({**SOURCES, "a.py": b"y = 3\n"}).file_name


def test_the_time_and_the_machine_do_not_change_the_content() -> None:
    code = "from colab_bridge.kernels.agent_bundle import load_bundle; print(load_bundle().content_hash)"
    said = {
        subprocess.run([sys.executable, "-c", code], env={"TZ": zone}, capture_output=True, check=True).stdout
        for zone in ("UTC", "Asia/Tokyo")
    }
    assert said == {f"{load_bundle().content_hash}\n".encode()}


def test_everything_below_the_agent_is_in_it_but_the_texts_of_cells() -> None:
    root = Path(colab_bridge.agent.__file__).parent
    wanted = {f"{PACKAGE}/{path.relative_to(root).as_posix()}" for path in root.rglob("*.py")}
    wanted -= {f"{PACKAGE}/doorman.py", f"{PACKAGE}/runner.py"}
    assert set(zipfile.ZipFile(io.BytesIO(load_bundle().data)).namelist()) == wanted | {"__main__.py"}


@pytest.mark.parametrize("python", interpreters())
def test_every_module_in_it_can_be_imported_without_site(python: str, tmp_path: Path) -> None:
    bundle = load_bundle()
    path = tmp_path / bundle.file_name
    path.write_bytes(bundle.data)
    names = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in zipfile.ZipFile(path).namelist()
        if name != "__main__.py"
    ]
    code = f"import sys, importlib; sys.path.insert(0, {str(path)!r})\nfor n in {names!r}: importlib.import_module(n)"
    done = subprocess.run([python, "-I", "-S", "-B", "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")


def test_the_compiled_one_is_the_same_agent_and_compiles_nothing(tmp_path: Path) -> None:
    bundle = compiled_bundle()
    assert bundle.content_hash == load_bundle().content_hash
    assert bundle.file_name == compiled_file_name() != load_bundle().file_name
    path = tmp_path / bundle.file_name
    path.write_bytes(bundle.data)
    code = (
        f"import sys; sys.path.insert(0, {str(path)!r}); import {PACKAGE}.channel\n"
        f"print(*(m.__spec__.origin for n, m in sys.modules.items() if n.startswith({PACKAGE!r})), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, check=True)
    origins = done.stdout.splitlines()
    assert len(origins) > 3
    assert {Path(origin).suffix for origin in origins} == {".pyc"}


def test_the_doorman_is_text_that_also_old_pythons_can_read() -> None:
    # They must get as far as saying that they are too old.
    assert ast.parse(doorman_source(), feature_version=(3, 7))
