"""A fake daemon and proxy processes that are connected to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_daemon import FakeDaemon
from proxy_process import ProxyProcess


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    fake = FakeDaemon(tmp_path / "home")
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[Callable[..., ProxyProcess]]:
    started: list[ProxyProcess] = []

    def start(*arguments: str, **options: Any) -> ProxyProcess:
        folder = tmp_path / f"front{len(started)}"
        folder.mkdir()
        proxy = ProxyProcess(folder, tmp_path / "home", *arguments, **options)
        started.append(proxy)
        return proxy

    yield start
    for proxy in started:
        proxy.close()


@pytest.fixture
def proxy(daemon: FakeDaemon, start_proxy: Callable[..., ProxyProcess]) -> ProxyProcess:
    found = start_proxy()
    found.wait_until_subscribed()
    return found
