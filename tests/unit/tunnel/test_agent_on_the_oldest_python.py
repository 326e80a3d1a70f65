"""Every file of the agent can be loaded by the oldest interpreter that it supports."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import colab_bridge.agent

FOLDER = Path(colab_bridge.agent.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))
IMPORT_ALL = """
import importlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(root.parent))
for path in sorted(root.rglob("*.py")):
    name = ".".join(path.relative_to(root.parent).with_suffix("").parts)
    if path.stem not in ("__main__", "runner"):
        importlib.import_module(name.removesuffix(".__init__"))
print("fine")
"""


def interpreters() -> list[str]:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which("python3.10"), *map(str, sorted(root.glob("versions/3.10.*/bin/python")))]
    return [path for path in found if path is not None and Path(path).exists()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_file_has_no_newer_syntax(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


def test_all_files_are_imported_by_python_3_10(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "uploaded", ignore=shutil.ignore_patterns("__pycache__"))
    for python in interpreters():
        if subprocess.run([python, "-c", ""], check=False, capture_output=True, timeout=60).returncode:
            continue  # a launcher of a version that is not installed
        command = [python, "-I", "-S", "-c", IMPORT_ALL, str(tmp_path / "uploaded")]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == "fine", done.stderr
        return
    pytest.skip("no Python 3.10 was found on this machine")
