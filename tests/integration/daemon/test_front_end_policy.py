"""What becomes of a kernel whose front end has gone without a word, and which kernel its next start gets."""

from __future__ import annotations

import anyio
import pytest

from channels_client import channels, dial, front_end_kernel, kernel_ids
from daemon_home import DaemonHome, eventually

BUSY = "import time\nfor n in range({count}):\n    print(n, flush=True)\n    time.sleep(0.1)"


@pytest.fixture
def home(shared_home: DaemonHome) -> DaemonHome:
    return shared_home


async def in_thread(function, *arguments, **members):  # type: ignore[no-untyped-def]
    return await anyio.to_thread.run_sync(lambda: function(*arguments, **members))


async def start(home: DaemonHome, notebook: str, reattach: str = "busy", window: str = "0") -> dict[str, object]:
    env = {"COLAB_BRIDGE_REATTACH": reattach, "COLAB_BRIDGE_RESTART_WINDOW_S": window}
    return await in_thread(front_end_kernel, home, notebook, env=env)  # type: ignore[no-any-return]


async def leave(home: DaemonHome, kernel: object, code: str, ended: bool) -> None:
    """Execute code, and vanish like a killed process, during it or after it."""
    async with channels(home.client(), str(kernel)) as front:
        request = await front.submit(code)
        await front.until(lambda: front.ended(request) if ended else front.text(request))
        front.socket.transport.abort()


async def gone(home: DaemonHome, kernel: object, timeout_s: float = 5) -> None:
    await in_thread(eventually, lambda: kernel not in kernel_ids(home), "the kernel is removed", timeout_s)


async def test_an_idle_kernel_is_removed_at_once(home: DaemonHome) -> None:
    kernel = await start(home, "idle.ipynb")
    await leave(home, kernel["id"], "x = 1", ended=True)
    await gone(home, kernel["id"], 3)
    # On the runtime too: an orphan there would cost memory, or money.
    session = str(kernel["session"])
    view = await in_thread(home.client().get, f"/v1/sessions/{session}")
    assert kernel["id"] not in [k["id"] for k in view["kernels"]]


async def test_a_busy_kernel_is_kept_until_its_outputs_are_recorded(home: DaemonHome) -> None:
    kernel = await start(home, "busy.ipynb")
    async with channels(home.client(), str(kernel["id"])) as watcher_first:
        request = await watcher_first.submit(BUSY.format(count=15))
        await watcher_first.until(lambda: watcher_first.text(request))
        watcher_first.socket.transport.abort()
    assert kernel["id"] in kernel_ids(home)
    await gone(home, kernel["id"], 8)
    record = home.paths.records_dir / str(kernel["id"])
    assert b'"14\\n"' in b"".join(file.read_bytes() for file in record.iterdir())


async def test_a_later_start_of_the_same_notebook_gets_the_busy_kernel_back(home: DaemonHome) -> None:
    kernel = await start(home, "back.ipynb")
    async with channels(home.client(), str(kernel["id"])) as first:
        request = await first.submit("kept = 1\n" + BUSY.format(count=25))
        await first.until(lambda: first.text(request))
        first.socket.transport.abort()
    await anyio.sleep(0.3)
    again = await start(home, "back.ipynb")
    assert (again["id"], again["reattached"]) == (kernel["id"], True)
    async with channels(home.client(), str(again["id"])) as second:
        await second.until(lambda: second.ended(request))
        assert second.text(request) == "".join(f"{n}\n" for n in range(25))
        shown = await second.execute("print(kept)")
        assert second.text(shown) == "1\n"
    await gone(home, again["id"])


async def test_a_start_within_the_window_is_a_restart_and_gets_a_fresh_kernel(home: DaemonHome) -> None:
    kernel = await start(home, "restart.ipynb", window="5")
    await leave(home, kernel["id"], "old = 1\n" + BUSY.format(count=100), ended=False)
    await anyio.sleep(0.3)
    again = await start(home, "restart.ipynb", window="5")
    assert (again["reattached"], again["restarted"], again["id"] == kernel["id"]) == (False, True, False)
    assert kernel["id"] not in kernel_ids(home)
    async with channels(home.client(), str(again["id"])) as front:
        shown = await front.execute("print('old' in globals())")
        assert front.text(shown) == "False\n"
    await gone(home, again["id"])


async def test_another_notebook_does_not_get_a_busy_kernel(home: DaemonHome) -> None:
    kernel = await start(home, "mine.ipynb")
    await leave(home, kernel["id"], BUSY.format(count=20), ended=False)
    other = await start(home, "other.ipynb")
    assert (other["reattached"], other["id"] == kernel["id"]) == (False, False)
    await in_thread(home.client().delete, f"/v1/kernels/{other['id']}")
    await gone(home, kernel["id"], 8)


async def test_a_kernel_that_somebody_is_attached_to_is_not_given_away(home: DaemonHome) -> None:
    kernel = await start(home, "two.ipynb", "always")
    async with channels(home.client(), str(kernel["id"])):
        other = await start(home, "two.ipynb", "always")
        assert other["id"] != kernel["id"]
    for each in (kernel, other):
        await in_thread(home.client().delete, f"/v1/kernels/{each['id']}")


async def test_with_always_an_idle_kernel_waits_with_its_variables(home: DaemonHome) -> None:
    kernel = await start(home, "always.ipynb", "always")
    await leave(home, kernel["id"], "kept = 2", ended=True)
    await anyio.sleep(1)
    again = await start(home, "always.ipynb", "always")
    assert (again["id"], again["reattached"]) == (kernel["id"], True)
    async with channels(home.client(), str(again["id"]), after=int(str(again["next_seq"])) - 1) as front:
        shown = await front.execute("print(kept)")
        assert front.text(shown) == "2\n"
    await in_thread(home.client().delete, f"/v1/kernels/{kernel['id']}")


async def test_with_never_a_busy_kernel_ends_its_work_and_a_start_gets_a_new_one(home: DaemonHome) -> None:
    kernel = await start(home, "never.ipynb", "never")
    await leave(home, kernel["id"], BUSY.format(count=15), ended=False)
    again = await start(home, "never.ipynb", "never")
    assert (again["reattached"], again["id"] == kernel["id"]) == (False, False)
    assert kernel["id"] in kernel_ids(home)
    await gone(home, kernel["id"], 8)
    await in_thread(home.client().delete, f"/v1/kernels/{again['id']}")


async def test_the_second_of_two_viewers_keeps_the_kernel(home: DaemonHome) -> None:
    kernel = await start(home, "viewers.ipynb")
    async with channels(home.client(), str(kernel["id"])) as stays:
        async with dial(home.client(), str(kernel["id"])) as leaves:
            leaves.transport.abort()
        await anyio.sleep(0.3)
        shown = await stays.execute("print('here')")
        assert stays.text(shown) == "here\n"
    await gone(home, kernel["id"])


async def test_a_shutdown_removes_the_kernel_whatever_it_does(home: DaemonHome) -> None:
    kernel = await start(home, "shutdown.ipynb", "always")
    async with channels(home.client(), str(kernel["id"])) as front:
        request = await front.submit(BUSY.format(count=100))
        await front.until(lambda: front.text(request))
        await in_thread(home.client().delete, f"/v1/kernels/{kernel['id']}")
    assert kernel["id"] not in kernel_ids(home)


async def test_the_kernels_of_runs_are_no_business_of_this_policy(home: DaemonHome) -> None:
    seen = await in_thread(home.code, "kept = 4")
    async with channels(home.client(), seen.kernel) as front:
        await front.execute("1")
    await anyio.sleep(0.5)
    assert (await in_thread(home.code, "print(kept)")).text() == "4\n"
