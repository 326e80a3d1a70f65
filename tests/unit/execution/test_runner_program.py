"""The program that runs scripts in a kernel, against the interpreter itself, under every Python that is here."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

WANTED = ("3.10", "3.11", "3.12", "3.13")

#: What a kernel gives: an ``input`` that asks the front end. The status goes into a file, because stdout is compared.
HARNESS = """
import builtins, json, sys
_lines = iter(json.loads(sys.argv[3]))
def _input(prompt=""):
    try:
        return next(_lines)
    except StopIteration:
        raise EOFError from None
builtins.input = _input
del _input
exec(open(sys.argv[1]).read(), globals())
_job, _out = json.loads(sys.argv[2]), sys.argv[4]
_status = colab_bridge_run(_job)
open(_out, "w").write(json.dumps([_status, "colab_bridge_run" in globals()]))
"""


@cache
def interpreters() -> dict[str, str]:
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    roots = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    for version in WANTED:
        candidates = [str(p) for root in roots for p in sorted(root.glob(f"{version}.*/bin/python"))]
        candidates.append(shutil.which(f"python{version}") or "")
        for candidate in candidates:
            if candidate and version not in found and _works(candidate):
                found[version] = candidate
    return found


def _works(python: str) -> bool:
    return subprocess.run([python, "-c", "pass"], capture_output=True, timeout=30, check=False).returncode == 0


@pytest.fixture(params=WANTED)
def python(request: pytest.FixtureRequest) -> str:
    if request.param not in interpreters():
        pytest.skip(f"no Python {request.param} on this machine")
    return interpreters()[request.param]


@dataclass
class Ended:
    status: int | None
    stdout: str
    stderr: str


def in_kernel(python: str, folder: Path, job: dict[str, Any], lines: Sequence[str] = ()) -> Ended:
    process = start(python, folder, job, lines)
    stdout, stderr = process.communicate(timeout=60)
    return ended(folder, stdout, stderr)


def start(python: str, folder: Path, job: dict[str, Any], lines: Sequence[str] = ()) -> subprocess.Popen[str]:
    (folder / ".out").unlink(missing_ok=True)
    runner = str(resources.files("colab_bridge.agent").joinpath("runner.py"))
    full = {"argv": [], "path": None, "source": None, "module": None, "command": None, "cwd": str(folder), **job}
    arguments = [python, "-c", HARNESS, runner, json.dumps(full), json.dumps(list(lines)), str(folder / ".out")]
    return subprocess.Popen(
        arguments, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(folder: Path, stdout: str, stderr: str) -> Ended:
    assert (folder / ".out").exists(), stderr
    status, left_behind = json.loads((folder / ".out").read_text())
    assert left_behind is False
    return Ended(status, stdout, stderr)


def plainly(python: str, folder: Path, *arguments: str, lines: Sequence[str] = ()) -> Ended:
    found = subprocess.run(
        [python, *arguments],
        cwd=folder,
        input="".join(line + "\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ended(found.returncode, found.stdout, found.stderr)


def script(folder: Path, source: str, *argv: str, name: str = "prog.py") -> dict[str, Any]:
    path = folder / name
    path.write_text(source)
    return {"kind": "script", "path": str(path), "source": source, "argv": list(argv)}


SCRIPTS = {
    "last words": (
        "import atexit, sys\n"
        "atexit.register(print, 'registered first')\n"
        "@atexit.register\ndef second():\n    print('registered second'); atexit.register(print, 'on the way')\n"
        "atexit.register(print, 'never'); atexit.unregister(print); atexit.register(print, 'again')\n"
        "print('end'); sys.exit(3)"
    ),
    "last words after a failure": "import atexit; atexit.register(print, 'tidied')\nraise ValueError('no')",
    "arguments": "import sys; print(sys.argv)",
    "names": "print(__name__, __file__)",
    "a neighbour": "import neighbour; print(neighbour.X)",
    "where it is": "import os, sys; print(os.getcwd(), sys.path[0])",
    "exit": "import sys; sys.exit()",
    "exit 3": "import sys; sys.exit(3)",
    "exit -1": "import sys; sys.exit(-1)",
    "exit 256": "raise SystemExit(256)",
    "exit True": "raise SystemExit(True)",
    "exit text": "import sys; sys.exit('no such luck')",
    "exit tuple": "raise SystemExit((1, 2))",
    "an error": "def f(x):\n    return 1 / x\n\nprint('first')\nf(0)\n",
    "a chained error": "try:\n    {}['a']\nexcept KeyError as e:\n    raise ValueError('no') from e\n",
    "an error in handling": "try:\n    {}['a']\nexcept KeyError:\n    int('x')\n",
    "a syntax error": "x = 1\nprint('never'\n",
    "an indentation error": "if 1:\nprint(2)\n",
    "a name error": "import os\nos.pth\n",
    "a pickle": "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))).__name__)",
    "a hook of its own": "import sys\nsys.excepthook = lambda t, e, tb: print('mine', t.__name__, tb.tb_lineno)\n1 / 0",
    "closed output": "import sys\nprint('x', flush=True)\nsys.stderr.close()",
    "a dataclass": "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nprint(P(1))",
    "nothing": "",
    "non-ascii": "print('größer \u2713')",
    "a thread": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(.2), print('late'))).start()\nprint('soon')",
    "a named thread after exit": "import sys, threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(.2), print('late')), name='w').start()\nsys.exit(4)",
    "a thread after an error": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(.2), print('late'))).start()\nprint('soon')\n",
    "a daemon thread": "import threading, time\n"
    "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint('x')",
    "a pool that nobody ends": "from concurrent.futures import ThreadPoolExecutor\nimport time\n"
    "p = ThreadPoolExecutor(1)\nfor n in range(4): p.submit(lambda n: (time.sleep(.05 * n), print(n)), n)",
    "asyncio": "import asyncio\nasync def main(): await asyncio.sleep(0); print('ran')\nasyncio.run(main())",
    "stdin": "import sys\nprint(repr(sys.stdin.readline()))\nprint(repr(sys.stdin.read(3)))\nprint(list(sys.stdin))",
    "all of stdin": "import sys\nprint(repr(sys.stdin.read()), repr(sys.stdin.read()), repr(sys.stdin.readline()))",
    "lines of stdin": "import sys\nfor line in sys.stdin: print(line.strip()[::-1])",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_does_what_it_does_under_the_interpreter(name: str, python: str, tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("X = 'found'")
    job = script(tmp_path, SCRIPTS[name], "a b", "--flag", "")
    lines = ["one", "two", "", "vier"]
    ours = in_kernel(python, tmp_path, job, lines)
    theirs = plainly(python, tmp_path, str(tmp_path / "prog.py"), *job["argv"], lines=lines)
    assert same_words(ours) == same_words(theirs)


def same_words(found: Ended) -> tuple[int | None, str, str]:
    """Leave out what differs between a file and a text within Python itself: carets, and hints before Python 3.12."""
    stderr = re.sub(r"(?m)^ +\^+\n", "", re.sub(r"\. Did you mean: .*\?", "", found.stderr))
    return found.status, found.stdout, stderr


def test_a_thread_that_starts_another_is_waited_for_with_it(python: str, tmp_path: Path) -> None:
    source = (
        "import threading, time\n"
        "def a():\n    time.sleep(.1); threading.Thread(target=print, args=('second',)).start()\n"
        "threading.Thread(target=a).start()"
    )
    assert in_kernel(python, tmp_path, script(tmp_path, source)) == Ended(0, "second\n", "")


@pytest.mark.skipif("3.11" not in interpreters(), reason="exception groups came with Python 3.11")
def test_a_last_word_that_fails_is_said_and_keeps_neither_the_others_nor_the_status(
    python: str, tmp_path: Path
) -> None:
    source = "import atexit\natexit.register(print, 'other')\natexit.register(lambda: 1/0)\nraise SystemExit(4)"
    found = in_kernel(python, tmp_path, script(tmp_path, source))
    assert (found.status, found.stdout) == (4, "other\n")
    assert "atexit" in found.stderr
    assert found.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


def test_an_exception_group_looks_as_it_does_under_the_interpreter(tmp_path: Path) -> None:
    job = script(tmp_path, "def f():\n    raise ExceptionGroup('g', [ValueError(1), KeyError(2)])\nf()\n")
    python = interpreters()["3.11"]
    assert in_kernel(python, tmp_path, job) == plainly(python, tmp_path, job["path"])


def test_a_script_from_stdin_is_called_so(python: str, tmp_path: Path) -> None:
    source = "import sys\nprint(sys.argv)\n1 / 0\n"
    ours = in_kernel(python, tmp_path, {"kind": "script", "path": "-", "source": source, "argv": ["x"]})
    assert (ours.status, ours.stdout) == (1, "['-', 'x']\n")
    assert 'File "<stdin>", line 3' in ours.stderr


def test_a_module_runs_as_with_the_dash_m_option(python: str, tmp_path: Path) -> None:
    package = tmp_path / "tool"
    package.mkdir()
    (package / "__init__.py").write_text("print('package')")
    (package / "__main__.py").write_text("import sys\nprint(__name__, sys.argv)\nfrom tool import x\nsys.exit(x.V)")
    (package / "x.py").write_text("V = 5")
    ours = in_kernel(python, tmp_path, {"kind": "module", "module": "tool", "argv": ["-q"]})
    assert ours == plainly(python, tmp_path, "-m", "tool", "-q")


def test_a_module_of_the_library_runs(python: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"b":1}')
    job = {"kind": "module", "module": "json.tool", "argv": [str(tmp_path / "a.json")]}
    assert in_kernel(python, tmp_path, job) == plainly(python, tmp_path, "-m", "json.tool", "a.json")


def test_a_module_that_does_not_exist_is_an_error_without_our_frames(python: str, tmp_path: Path) -> None:
    ours = in_kernel(python, tmp_path, {"kind": "module", "module": "no_such_thing"})
    assert ours.status == 1
    assert "no_such_thing" in ours.stderr
    assert "runner" not in ours.stderr


def test_a_command_passes_its_output_and_its_status_on(python: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('o\u00f6'); print('e', file=sys.stderr); sys.exit(7)"]
    assert in_kernel(python, tmp_path, {"kind": "command", "command": command}) == Ended(7, "o\u00f6\n", "e\n")


def test_a_command_that_does_not_exist_ends_with_127(python: str, tmp_path: Path) -> None:
    ours = in_kernel(python, tmp_path, {"kind": "command", "command": ["no-such-command-here", "-x"]})
    assert ours.status == 127
    assert ours.stderr.startswith("no-such-command-here: ")


@pytest.mark.skipif(os.name != "posix", reason="signals and permission bits")
def test_a_command_that_may_not_run_ends_with_126_and_a_killed_one_above_128(python: str, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    assert in_kernel(python, tmp_path, {"kind": "command", "command": [str(tmp_path / "plain")]}).status == 126
    killed = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    assert in_kernel(python, tmp_path, {"kind": "command", "command": killed}).status == 137


def test_half_a_character_at_the_edge_of_a_read_stays_whole(python: str, tmp_path: Path) -> None:
    body = "import sys, time; b = 'é'.encode()\nfor x in b: sys.stdout.buffer.write(bytes([x])); sys.stdout.flush(); "
    command = [sys.executable, "-c", body + "time.sleep(.1)"]
    assert in_kernel(python, tmp_path, {"kind": "command", "command": command}).stdout == "é"


def test_a_folder_that_does_not_exist_here_is_not_changed_into(python: str, tmp_path: Path) -> None:
    job = script(tmp_path, "import os; print(os.getcwd())")
    assert in_kernel(python, tmp_path, {**job, "cwd": "/no/such/folder"}).stdout == f"{tmp_path}\n"


def interrupted(python: str, folder: Path, job: dict[str, Any]) -> Ended:
    process = start(python, folder, job)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)  # from the print into the wait; nothing announces that
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    return ended(folder, stdout, stderr)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    "source",
    [
        "import time\nprint('ready', flush=True)\ntime.sleep(60)\n",
        (
            "import threading, time\nt = threading.Event()\nthreading.Thread(target=t.wait, args=(3,)).start()\n"
            "print('ready', flush=True)\n"
        ),
    ],
    ids=["in the program", "while threads end"],
)
def test_an_interrupt_shows_a_traceback_and_ends_with_130(source: str, python: str, tmp_path: Path) -> None:
    ours = interrupted(python, tmp_path, script(tmp_path, source))
    assert ours.status == 130
    assert ours.stderr.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_that_the_program_catches_is_its_own_business(python: str, tmp_path: Path) -> None:
    source = "import time\ntry:\n    print('ready', flush=True); time.sleep(9)\nexcept KeyboardInterrupt: print('ok')\n"
    assert interrupted(python, tmp_path, script(tmp_path, source)) == Ended(0, "ok\n", "")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_ends_a_command_and_gives_its_last_words(python: str, tmp_path: Path) -> None:
    body = (
        "import time\ntry:\n print('ready', flush=True); time.sleep(60)\nexcept KeyboardInterrupt: print('bye'); raise"
    )
    found = interrupted(python, tmp_path, {"kind": "command", "command": [sys.executable, "-c", body]})
    assert (found.status, found.stdout) == (130, "bye\n")
