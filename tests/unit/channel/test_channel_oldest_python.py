"""The same files run on the runtime, whose interpreter may be the oldest that the agent supports."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import colab_bridge.agent

FOLDER = Path(colab_bridge.agent.__file__).parent
MODULES = sorted(path for path in FOLDER.glob("*.py") if path.name not in ("runner.py", "__init__.py"))
SMOKE = """
import sys
from uploaded.channel import Channel
from uploaded.events import CallReceived, CallResult, StreamData

ends = {"client": Channel("client", now=0.0), "server": Channel("server", now=0.0)}
links = {role: end.connected(0.0) for role, end in ends.items()}
client, server = ends["client"], ends["server"]
stream = client.open_stream("journal")
client.send(stream, {"a": 1}, b"x" * 3_000_000)
call = client.call("ping", deadline=9.0)
seen = []
for step in range(50):
    for role, other in (("client", "server"), ("server", "client")):
        ends[other].receive(links[other], ends[role].data_to_send(step / 50), step / 50)
        while (event := ends[other].next_event()) is not None:
            seen.append(event)
            if isinstance(event, CallReceived):
                server.respond(event.call, {"pong": True})
assert sum(len(event.payload) for event in seen if isinstance(event, StreamData)) == 3_000_000
assert [event.result for event in seen if isinstance(event, CallResult)] == [{"pong": True}]
foreign = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names) - {"uploaded", "__main__"}
assert "colab_bridge" not in foreign, foreign
print("fine", sys.version_info[:2])
"""


def interpreters() -> list[str]:
    """Python 3.10 by its name on the PATH or below pyenv's folder."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which("python3.10"), *map(str, sorted(root.glob("versions/3.10.*/bin/python")))]
    return [path for path in found if path is not None and Path(path).exists()]


def run_smoke(python: str, folder: Path) -> str:
    package = folder / "uploaded"
    package.mkdir()
    for path in [*MODULES, FOLDER / "__init__.py"]:
        shutil.copy(path, package)
    command = [python, "-I", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{SMOKE}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_the_files_work_alone_under_another_name(tmp_path):
    assert run_smoke(sys.executable, tmp_path).startswith("fine")


def test_the_files_work_on_python_3_10(tmp_path):
    for number, python in enumerate(interpreters()):
        if subprocess.run([python, "-c", ""], check=False, capture_output=True, timeout=60).returncode:
            continue  # a launcher of a version that is not installed
        folder = tmp_path / str(number)
        folder.mkdir()
        assert run_smoke(python, folder).strip() == "fine (3, 10)"
        return
    pytest.skip("no Python 3.10 was found on this machine")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_only_the_standard_library_and_its_neighbours(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level in (0, 1)
            names = [] if node.level else [node.module or ""]
        else:
            continue
        # The doorman lives in a kernel and finds these there.
        known = sys.stdlib_module_names | ({"ipykernel", "zmq"} if path.stem == "doorman" else set())
        assert {name.partition(".")[0] for name in names} <= known
