"""Scanning and watching while other processes work in the folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from colab_bridge.agent.sync.disk.probe import FsProbe, probe
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.scan import Scanner
from colab_bridge.agent.sync.disk.statcache import StatCache
from colab_bridge.agent.sync.disk.watch import Watcher
from colab_bridge.agent.sync.ignore import IgnoreRules
from colab_bridge.agent.sync.tree import Blocked, Directory, File, Why, entry_at, walk

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="watching needs inotify")

_KEY = b"k" * 32
_WAIT_S = 30


class Watched:
    """A root that is watched and refreshed."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.rules = IgnoreRules()
        self.facts: FsProbe = probe(root)
        self.watcher = Watcher(root, self.rules)
        self.watcher.start()
        self.scanner = Scanner(root, self.rules, _KEY, StatCache(), self.facts)
        self.tree = self.scanner.walk().tree
        self.losses = 0

    def look(self) -> Directory:
        settled = self.watcher.settle(_WAIT_S)
        if settled.healthy:
            self.tree = self.scanner.refresh(self.tree, settled.dirty).tree
        else:
            self.losses += 1
            self.tree = self.scanner.walk().tree
        return self.tree

    def afresh(self) -> Directory:
        return Scanner(self.root, self.rules, _KEY, StatCache(), self.facts).walk().tree


@contextmanager
def _watched(path: Path) -> Iterator[Watched]:
    with Root.open(path) as root:
        found = Watched(root)
        try:
            yield found
        finally:
            found.watcher.close()


@contextmanager
def _working(script: str, path: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), str(path)], **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A disk in memory where there is one: ten thousand files take some disks half a minute."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None, prefix="cb-scan-") as folder:
        yield Path(folder)


_BURST = """
    import os, sys
    for folder in range(200):
        path = os.path.join(sys.argv[1], f"p{folder % 7}", f"d{folder}", "x")
        os.makedirs(path)
        for number in range(50):
            with open(os.path.join(path, str(number)), "w") as file:
                file.write(f"{folder} {number}")
"""


def test_no_file_of_a_burst_in_new_folders_is_lost(quick_path):
    with _watched(quick_path) as here:
        with _working(_BURST, quick_path) as process:
            while process.poll() is None:
                here.look()
            assert process.returncode == 0
        tree = here.look()
        assert sum(isinstance(entry, File) for _, entry in walk(tree)) == 10_000
        assert tree == here.afresh()
        (quick_path / "p3" / "d3" / "x" / "7").write_text("later")
        before = here.losses
        assert entry_at(here.look(), "p3/d3/x/7") != entry_at(tree, "p3/d3/x/7")
        assert here.losses == before


def test_no_file_of_a_burst_in_known_folders_is_lost(quick_path):
    for number in range(20):
        (quick_path / f"d{number}").mkdir()
    with _watched(quick_path) as here:
        for number in range(10_000):
            (quick_path / f"d{number % 20}" / f"f{number}").touch()
        tree = here.look()
        assert sum(isinstance(entry, File) for _, entry in walk(tree)) == 10_000
        assert tree == here.afresh()


_UNREST = """
    import os, random, shutil, sys, time
    root, chance = sys.argv[1], random.Random(7)
    names = [f"{a}/{b}/{c}" for a in "abc" for b in "de" for c in "fgh"]
    end = time.monotonic() + 4
    while time.monotonic() < end:
        one, two = (os.path.join(root, chance.choice(names)) for _ in range(2))
        try:
            what = chance.randrange(7)
            if what < 3:
                os.makedirs(os.path.dirname(one), exist_ok=True)
                with open(one, "w") as file:
                    file.write(str(chance.random()) * chance.randrange(200))
            elif what == 3:
                os.replace(one, two)
            elif what == 4:
                os.unlink(one)
            elif what == 5:
                os.rename(os.path.dirname(one), os.path.join(root, chance.choice("abc"), chance.choice("xyde")))
            else:
                shutil.rmtree(os.path.dirname(one))
        except OSError:
            pass
"""


def test_after_all_unrest_the_tree_is_what_somebody_new_sees(tmp_path):
    with _watched(tmp_path) as here:
        with _working(_UNREST, tmp_path) as process:
            while process.poll() is None:
                here.look()
            assert process.returncode == 0
        assert here.look() == here.afresh()


# Prints for how long the file was away each time, as the clock that all processes share began and ended it.
_COME_AND_GO = """
    import os, sys, time
    path = os.path.join(sys.argv[1], "f")
    for _ in range(100):
        begun = time.monotonic()
        os.unlink(path)
        time.sleep(0.002)
        with open(path, "w") as file:
            file.write("again")
        print(begun, time.monotonic(), flush=True)
        time.sleep(0.008)
"""
#: Ten looks, 20 ms apart: what is away for longer may be taken for deleted.
_PATIENCE_S = 0.2


def test_a_file_that_comes_back_in_time_is_never_deleted(tmp_path):
    (tmp_path / "f").write_text("first")
    missed = []
    with _watched(tmp_path) as here:
        with _working(_COME_AND_GO, tmp_path, stdout=subprocess.PIPE) as process:
            while process.poll() is None:
                begun = time.monotonic()
                if "f" not in here.look().children:
                    missed.append((begun, time.monotonic()))
            assert process.returncode == 0
            away = [tuple(map(float, line.split())) for line in process.stdout]
        assert isinstance(here.look().children["f"], File)
    # The system may stop any process for a while, also one that has just taken a file away.
    too_long = [(left, back) for left, back in away if back - left >= _PATIENCE_S]
    for begun, ended in missed:
        assert any(left < ended and begun < back for left, back in too_long), (begun, ended, away)
    assert len(away) == 100


def test_a_growing_log_is_whole_or_unstable_and_never_torn(tmp_path):
    script = """
        import os, sys, time
        with open(os.path.join(sys.argv[1], "log"), "ab", buffering=0) as log:
            for number in range(100_000_000):
                log.write(b"%09d\\n" % number)
    """
    (tmp_path / "log").write_bytes(b"")
    with _watched(tmp_path) as here:
        with _working(script, tmp_path):
            end = time.monotonic() + _WAIT_S
            while not (tmp_path / "log").stat().st_size and time.monotonic() < end:
                # Another process starts; nothing but the file tells when it has.
                time.sleep(0.01)
            for _ in range(10):
                entry = here.look().children["log"]
                if isinstance(entry, File):
                    content = (tmp_path / "log").read_bytes()[: entry.size]
                    assert blake2b(content, digest_size=32, key=_KEY).digest() == entry.digest
                else:
                    assert entry == Blocked(Why.UNSTABLE)
        assert isinstance(here.look().children["log"], File)
        assert here.tree == here.afresh()


@pytest.mark.parametrize("tool", ["sed", "vim", "python"])
def test_the_save_of_an_editor_is_one_change(tmp_path, tool):
    path = tmp_path / "f"
    path.write_text("old\n")
    commands = {
        "sed": ["sed", "-i", "s/old/new/", str(path)],
        "vim": ["vim", "-u", "NONE", "-es", "-c", "%s/old/new/", "-c", "wq", str(path)],
        "python": [
            sys.executable,
            "-c",
            f"import os; open({str(path)!r} + '~', 'w').write('new\\n');os.replace({str(path)!r} + '~', {str(path)!r})",
        ],
    }
    if shutil.which(commands[tool][0]) is None:
        pytest.skip(f"{tool} is not here")
    with _watched(tmp_path) as here:
        subprocess.run(commands[tool], check=True, timeout=60, stdin=subprocess.DEVNULL)
        tree = here.look()
        assert set(tree.children) == {"f"}
        assert path.read_text() == "new\n"
        assert tree == here.afresh() or tree.has_ignored


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_folder_that_is_mounted_inside_is_not_entered(tmp_path):
    path, other = tmp_path / "root", tmp_path / "other"
    (path / "m").mkdir(parents=True)
    other.mkdir()
    (other / "foreign").write_text("x")
    script = f"""
        import sys
        from colab_bridge.agent.sync.disk.root import Root
        from colab_bridge.agent.sync.disk.probe import probe
        from colab_bridge.agent.sync.disk.scan import Scanner
        from colab_bridge.agent.sync.disk.statcache import StatCache
        from colab_bridge.agent.sync.ignore import IgnoreRules
        root = Root.open({str(path)!r})
        print(Scanner(root, IgnoreRules(), b"k" * 32, StatCache(), probe(root)).walk().tree)
    """
    mount = f'mount --bind {other} {path}/m && exec {sys.executable} -c "$0"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, textwrap.dedent(script)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode and "ermitted" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert done.returncode == 0, done.stderr
    assert "OTHER_DEVICE" in done.stdout
    assert "foreign" not in done.stdout
