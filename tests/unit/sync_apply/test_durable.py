"""What was written is durable when the call that is waited for returns, whatever began ahead of it."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from colab_bridge.agent.sync.disk.durable import WholeFileSystem


def test_a_fault_that_the_call_ahead_meets_counts_for_the_one_that_is_waited_for(tmp_path: Path) -> None:
    calls: list[int] = []

    def syncfs(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    fd = os.open(tmp_path, os.O_RDONLY)
    durable = WholeFileSystem(syncfs)
    durable.begin(fd)
    with pytest.raises(OSError, match="error") as told:
        durable.commit(fd)
    assert told.value.errno == errno.EIO
    assert len(calls) == 2
    durable.commit(fd)
    os.close(fd)


def test_a_commit_waits_for_the_call_ahead_and_then_makes_its_own(tmp_path: Path) -> None:
    order: list[str] = []
    begun, free = threading.Event(), threading.Event()

    def syncfs(fd: int) -> None:
        if not order:
            begun.set()
            assert free.wait(5)
            order.append("ahead")
        else:
            order.append("own")

    fd = os.open(tmp_path, os.O_RDONLY)
    durable = WholeFileSystem(syncfs)
    durable.begin(fd)
    assert begun.wait(5)
    durable.begin(fd)
    free.set()
    durable.commit(fd)
    assert order == ["ahead", "own"]
    os.close(fd)
