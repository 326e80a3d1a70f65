"""A refresh from watched paths gives the same tree as a look by somebody without memory, whatever happened."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from colab_bridge.agent.sync.budget import Budget
from colab_bridge.agent.sync.disk.probe import probe
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.scan import Scanner
from colab_bridge.agent.sync.disk.statcache import StatCache
from colab_bridge.agent.sync.disk.watch import Watcher
from colab_bridge.agent.sync.ignore import IgnoreRules
from colab_bridge.agent.sync.tree import root_digest
from scan_tools import KEY, seen_afresh

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="watching needs inotify")

_NAMES = st.sampled_from(
    ["a", "b", "c", "d", "\u00e9", "e\u0301", "x.pyc", "node_modules", "big.bin", "\udcff", "n\nl"]
)
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_CONTENT = st.binary(max_size=12)
_RULES = IgnoreRules(git={"": "*.bin\n"})
_BUDGET = Budget(file=10, git_file=8, git_total=12)


class TreeMachine(RuleBasedStateMachine):
    """Random work on a folder, watched and refreshed now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cb-machine-"))
        self.root = Root.open(self.folder)
        self.facts = probe(self.root)
        self.watcher = Watcher(self.root, _RULES)
        self.watcher.start()
        self.scanner = Scanner(self.root, _RULES, KEY, StatCache(), self.facts, budget=_BUDGET, sleep=lambda _: None)
        self.tree = self.scanner.walk().tree

    def _at(self, path: str) -> str:
        return os.path.join(self.folder, path)

    def _quietly(self, work, *arguments) -> None:
        try:
            work(*arguments)
        except (OSError, shutil.Error):
            return

    def _put(self, path: str, flags: int, content: bytes) -> None:
        # A pipe must not hold the test.
        fd = os.open(self._at(path), flags | os.O_NONBLOCK, 0o644)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)

    @rule(path=_PATHS, content=_CONTENT)
    def write(self, path: str, content: bytes) -> None:
        def work() -> None:
            os.makedirs(os.path.dirname(self._at(path)), exist_ok=True)
            self._put(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, content)

        self._quietly(work)

    @rule(path=_PATHS, content=_CONTENT)
    def append(self, path: str, content: bytes) -> None:
        def work() -> None:
            self._put(path, os.O_WRONLY | os.O_APPEND, content)

        self._quietly(work)

    @rule(path=_PATHS, content=_CONTENT)
    def save_like_an_editor(self, path: str, content: bytes) -> None:
        def work() -> None:
            with open(self._at("swap.tmp"), "wb") as file:
                file.write(content)
            os.replace(self._at("swap.tmp"), self._at(path))

        self._quietly(work)
        self._quietly(os.unlink, self._at("swap.tmp"))

    @rule(path=_PATHS)
    def keep_the_time(self, path: str) -> None:
        def work() -> None:
            before = os.stat(self._at(path), follow_symlinks=False)
            self._put(path, os.O_WRONLY, b"Z")
            os.utime(self._at(path), ns=(before.st_atime_ns, before.st_mtime_ns))

        self._quietly(work)

    @rule(path=_PATHS)
    def delete(self, path: str) -> None:
        if os.path.isdir(self._at(path)) and not os.path.islink(self._at(path)):
            shutil.rmtree(self._at(path))
        else:
            self._quietly(os.unlink, self._at(path))

    @rule(path=_PATHS)
    def make_folder(self, path: str) -> None:
        self._quietly(os.makedirs, self._at(path))

    @rule(one=_PATHS, two=_PATHS)
    def rename(self, one: str, two: str) -> None:
        self._quietly(os.rename, self._at(one), self._at(two))

    @rule(one=_PATHS, two=_PATHS)
    def link_hard(self, one: str, two: str) -> None:
        self._quietly(os.link, self._at(one), self._at(two))

    @rule(path=_PATHS, text=st.sampled_from(["a", "../b", "/etc", "c/d", "x" * 1025]))
    def link(self, path: str, text: str) -> None:
        self._quietly(os.symlink, text, self._at(path))

    @rule(path=_PATHS, mode=st.sampled_from([0o600, 0o755]))
    def change_mode(self, path: str, mode: int) -> None:
        if not os.path.islink(self._at(path)) and not os.path.isdir(self._at(path)):
            self._quietly(os.chmod, self._at(path), mode)

    @rule(path=_PATHS)
    def pipe(self, path: str) -> None:
        self._quietly(os.mkfifo, self._at(path))

    @rule()
    def refresh(self) -> None:
        settled = self.watcher.settle(20)
        assert settled.healthy, settled.reason
        self.tree = self.scanner.refresh(self.tree, settled.dirty).tree
        self._compare()

    @rule()
    def walk(self) -> None:
        self.tree = self.scanner.walk().tree
        self._compare()

    def _compare(self) -> None:
        fresh = seen_afresh(self.root, _RULES, self.facts, _BUDGET)
        assert self.tree == fresh.tree
        assert root_digest(self.tree) == root_digest(fresh.tree)
        assert self.scanner._last is not None
        assert (self.scanner._last.problems, self.scanner._last.left_out) == (fresh.problems, fresh.left_out)

    def teardown(self) -> None:
        try:
            self.refresh()
        finally:
            self.watcher.close()
            self.root.close()
            shutil.rmtree(self.folder)


TestTreeMachine = TreeMachine.TestCase
TestTreeMachine.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
