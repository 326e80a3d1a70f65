"""One agent process for all rows of a module; each row has two folders of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from colab_bridge.kernels.agent_link import AgentLink
from sync_pair import Pair, open_pair
from sync_ways import ChannelWay, ProcessWay, agent_process

# Not yet imported here: its assertions tell what they compare.
pytest.register_assert_rewrite("sync_words")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def quick_folder() -> Iterator[Path]:
    """A folder in memory where the system has one: rows are many, and none is about power cuts."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(prefix="cb-", dir=memory if os.access(memory, os.W_OK) else None) as path:
        # Some rows give up the privilege that they may have.
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture(scope="module")
async def agent(anyio_backend: str, quick_folder: Path) -> AsyncIterator[AgentLink]:
    async with agent_process(quick_folder / "agent") as link:
        yield link


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return itertools.count()


Opening = Callable[..., contextlib.AbstractAsyncContextManager[Pair]]


@pytest.fixture
def quick_root(quick_folder: Path, numbers: Iterator[int]) -> Iterator[Path]:
    """The folder of one test, below which its pair lies."""
    folder = quick_folder / str(next(numbers))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def pairs(agent: AgentLink, quick_root: Path) -> Opening:
    """Opens pairs whose runtime is the agent process."""

    def opening(**options: Any) -> contextlib.AbstractAsyncContextManager[Pair]:
        return open_pair(quick_root, way=ProcessWay(agent), **options)

    return opening


@pytest.fixture
def channels(quick_root: Path) -> Opening:
    """Opens pairs whose service runs here, behind both ends of the real channel."""

    def opening(**options: Any) -> contextlib.AbstractAsyncContextManager[Pair]:
        return open_pair(quick_root, way=ChannelWay(), **options)

    return opening
