"""Getting a runtime from an emulated Colab, and giving it back."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from colab_bridge.errors import AuthError, ColabBridgeError, QuotaError, RuntimeLostError, TransientError, UserError
from colab_bridge.testing.colab import EmulatorOptions
from colab_scenes import ASSIGN, Scene

API = pytest.mark.parametrize("api", ["v1", "v1beta"])


def short(error: ColabBridgeError) -> bool:
    return "\n" not in error.message + error.hint and bool(error.hint)


@API
async def test_a_runtime_is_acquired_listed_kept_alive_and_released(scene: Scene, api: str) -> None:
    handle = await scene.acquire(gpu="T4", api=api)
    endpoint = await scene.provider.attach(handle)

    assert scene.running == [handle.id]
    assert endpoint.base_url == scene.colab.state.runtimes[handle.id].machine.url()
    assert endpoint.expires_at is not None
    assert handle.data["hardware"]["accelerator"] == "T4"
    assert [(each.id, each.ours, each.label) for each in await scene.provider.runtimes()] == [
        (handle.id, True, "session s")
    ]
    await scene.provider.keep_alive(handle)
    await scene.provider.release(handle)
    assert scene.running == []
    assert list((scene.folder / "requests").iterdir()) == []
    await scene.provider.release(handle)  # one that is gone already is no error


async def test_no_token_is_in_the_handle_the_ledger_or_what_is_said(scene: Scene) -> None:
    handle = await scene.acquire(gpu="T4")
    endpoint = await scene.provider.attach(handle)
    secrets = [scene.colab.access_token, endpoint.headers["X-Colab-Runtime-Proxy-Token"].reveal()]
    written = "".join(file.read_text() for file in scene.folder.rglob("*.json"))
    for secret in secrets:
        assert secret not in json.dumps(dict(handle.data)) + handle.label + written + "".join(scene.said)
        assert secret not in repr(endpoint) + repr(handle)
    assert scene.said[0] == "account dev@example.com"


async def test_an_unknown_card_is_refused_before_any_call(scene: Scene) -> None:
    with pytest.raises(UserError, match="no GPU called 'T5'"):
        await scene.acquire(gpu="T5")
    assert scene.colab.requests == []


@API
async def test_the_ladder_is_tried_in_order_and_what_was_obtained_is_said(scene: Scene, api: str) -> None:
    scene.colab.state.capacity.update({"A100": 0, "L4": 0})
    handle = await scene.acquire(gpu="A100,L4,T4", api=api)
    assert handle.data["hardware"]["accelerator"] == "T4"
    assert handle.data["asked_for"] == ["A100", "L4", "T4"]
    assert scene.said[1:4] == ["asking Colab for A100", "asking Colab for L4", "asking Colab for T4"]


@pytest.mark.parametrize("options", [EmulatorOptions(tier="pro_plus")])
async def test_the_memory_shape_is_asked_for_only_where_there_is_a_choice(scene: Scene) -> None:
    for card in ("L4", "T4"):
        handle = await scene.acquire(gpu=card, high_mem=True)
        shapes = [dict(each.query).get("shape") for each in scene.colab.requests if each.method == "POST"]
        assert shapes[-1] == (None if card == "L4" else "hm")
        assert handle.data["hardware"]["high_memory"]


async def test_a_wrong_card_is_released_and_reported(scene: Scene) -> None:
    scene.colab.faults.add(
        kind="drift", service="colab", method="POST", path=ASSIGN, set={"accelerator": "L4"}, count=None
    )
    with pytest.raises(QuotaError, match="asked for T4, but Colab gave L4; it was released"):
        await scene.acquire(gpu="T4")
    assert scene.running == []
    assert scene.said[-1] == "asked for T4, but Colab gave L4; releasing it"


async def test_waiting_goes_on_until_a_machine_is_free(scene: Scene) -> None:
    scene.colab.state.capacity["T4"] = 0

    def free() -> None:
        if len(scene.pauses) == 4:
            del scene.colab.state.capacity["T4"]

    scene.on_pause = free
    handle = await scene.acquire(gpu="T4", wait_s=7200.0)
    assert scene.running == [handle.id]
    assert len([line for line in scene.said if "trying T4 again in" in line]) == 4
    assert scene.pauses == sorted(scene.pauses)


async def test_waiting_ends_when_its_time_is_over(scene: Scene) -> None:
    scene.colab.state.capacity["T4"] = 0
    with pytest.raises(QuotaError, match="no such machine free"):
        await scene.acquire(gpu="T4", wait_s=600.0)
    assert 590 <= sum(scene.pauses) <= 600
    assert list((scene.folder / "requests").iterdir()) == []


async def test_who_stops_waiting_leaves_no_runtime(scene: Scene) -> None:
    scene.fault("delay", delay_s=0.4)
    with anyio.move_on_after(0.25) as scope:
        await scene.acquire(gpu="T4")
    assert scope.cancelled_caught
    with anyio.fail_after(5):
        while scene.asked("POST", ASSIGN) == 0:
            await anyio.sleep(0.02)
    await scene.provider.aclose()
    scene.provider = scene.another()
    with anyio.fail_after(5):
        while scene.running or list((scene.folder / "requests").iterdir()):
            await scene.provider.reconcile(frozenset())
            await scene.colab.advance(60)


async def test_who_stops_waiting_after_the_machine_was_made_gives_it_back(scene: Scene) -> None:
    scene.fault("hang_after")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.acquire)
        with anyio.fail_after(5):
            while not scene.running:
                await anyio.sleep(0.02)
        tasks.cancel_scope.cancel()
    assert scene.running == []
    assert list((scene.folder / "requests").iterdir()) == []


async def test_a_killed_process_leaves_at_most_one_runtime_which_the_next_one_adopts(
    scene: Scene, tmp_path: Path
) -> None:
    copied = await _killed_in_the_post(scene, tmp_path)
    handle = await scene.acquire(gpu="T4")
    assert [handle.id] == scene.running == copied
    assert scene.asked("POST", ASSIGN) == 1


async def test_a_killed_process_leaves_at_most_one_runtime_which_the_next_one_releases(
    scene: Scene, tmp_path: Path
) -> None:
    orphan = await _killed_in_the_post(scene, tmp_path)
    released = await scene.provider.reconcile(frozenset())
    assert [each.id for each in released] == orphan
    assert scene.running == []
    assert list((scene.folder / "requests").iterdir()) == []


async def _killed_in_the_post(scene: Scene, tmp_path: Path) -> list[str]:
    """Make the runtime of a request whose asker never saw the answer, and a new provider over its folder."""
    handle = await scene.acquire(gpu="T4")
    entry = next((scene.folder / "requests").iterdir())
    value = json.loads(entry.read_bytes())
    assert value["runtime"] == handle.id
    entry.write_text(json.dumps(value | {"runtime": "", "name": ""}))  # as it was before the answer
    await scene.provider.aclose()
    scene.provider = scene.another()
    return [handle.id]


async def test_a_runtime_that_a_session_never_got_is_released_at_the_next_start(scene: Scene) -> None:
    await scene.acquire()
    kept = await scene.acquire()
    await scene.provider.aclose()
    scene.provider = scene.another()
    released = await scene.provider.reconcile(frozenset({kept.id}))
    assert len(released) == 1
    assert scene.running == [kept.id]


async def test_what_is_being_made_is_not_released_by_reconciling(scene: Scene) -> None:
    handle = await scene.acquire()
    assert await scene.provider.reconcile(frozenset()) == []
    assert scene.running == [handle.id]


async def test_foreign_runtimes_are_shown_and_never_released_unasked(scene: Scene) -> None:
    other = type(scene)(scene.colab, scene.folder.with_name("other"), scene.tokens)
    handle = await other.acquire(gpu="T4")

    assert [(each.id, each.ours) for each in await scene.provider.runtimes()] == [(handle.id, False)]
    assert await scene.provider.reconcile(frozenset()) == []
    adopted = await scene.provider.adopt(handle.id)
    assert (await scene.provider.attach(adopted)).base_url.endswith("/8080")
    await scene.provider.aclose()
    scene.provider = scene.another()
    assert await scene.provider.reconcile(frozenset()) == []  # what was adopted is not ours to end by itself
    assert scene.running == [handle.id]
    await scene.provider.release(adopted)
    assert scene.running == []
    await other.provider.aclose()


async def test_a_runtime_that_is_not_there_cannot_be_adopted(scene: Scene) -> None:
    for name in ("gpu-none", "../x", ""):
        with pytest.raises(RuntimeLostError):
            await scene.provider.adopt(name)


async def test_what_the_account_may_have_and_has_left(scene: Scene) -> None:
    handle = await scene.acquire(gpu="T4")
    balance = await scene.provider.balance()
    offers = await scene.provider.offers()
    assert balance.rate_hourly
    assert balance.runtimes == 1
    assert (offers.tier, set(offers.eligible)) == ("pro", {"T4", "L4", "A100", "V5E1", "V6E1"})
    assert offers.rates == {"T4": balance.rate_hourly}  # seen: it was the only runtime
    await scene.provider.release(handle)


@pytest.mark.parametrize("options", [EmulatorOptions(internal_api=False)])
async def test_without_the_internal_api_everything_but_ports_works(scene: Scene) -> None:
    handle = await scene.acquire(gpu="T4")
    assert (await scene.provider.balance()).units is not None
    assert (await scene.provider.offers()).tier == ""
    with pytest.raises(AuthError, match="does not let this sign-in forward port 6006") as caught:
        await scene.provider.forward(handle, 6006)
    assert short(caught.value)


async def test_another_port_has_a_way_in_of_its_own(scene: Scene) -> None:
    handle = await scene.acquire()
    first, jupyter = await scene.provider.forward(handle, 6006), await scene.provider.forward(handle, 8080)
    assert first.base_url.endswith("/6006")
    assert first.headers != jupyter.headers
    assert jupyter == await scene.provider.attach(handle)


async def test_credentials_reach_a_runtime_after_consent(scene: Scene) -> None:
    handle = await scene.acquire()
    before = await scene.provider.propagate(handle, "drive", dry_run=True)
    assert not before.granted
    assert before.consent_url.startswith("http://127.0.0.1")
    scene.colab.state.account("dev@example.com").drive_consent.add("dfs_ephemeral")
    assert (await scene.provider.propagate(handle, "drive", dry_run=True)).granted
    assert (await scene.provider.propagate(handle, "drive", dry_run=False)).granted
    assert scene.colab.state.runtimes[handle.id].propagated == {"dfs_ephemeral": "dev@example.com"}


async def test_a_release_that_fails_says_that_the_machine_may_still_run(scene: Scene) -> None:
    handle = await scene.acquire()
    scene.fault("status", f"/tun/m/unassign/{handle.id}", status=500, count=None)
    with pytest.raises(TransientError, match="may still run") as caught:
        await scene.provider.release(handle)
    assert caught.value.hint == f"try again: colab-bridge stop {handle.id}"
    scene.colab.faults.clear()
    await scene.provider.release_id(handle.id)
    assert scene.running == []
    assert list((scene.folder / "requests").iterdir()) == []


async def test_a_disk_that_takes_nothing_means_that_nothing_is_asked_for(scene: Scene) -> None:
    scene.folder.write_text("in the way")
    with pytest.raises(UserError, match="nothing is asked for"):
        await scene.acquire()
    assert scene.asked("POST", ASSIGN) == 0


async def test_who_stops_waiting_after_a_refusal_leaves_nothing_on_the_list(scene: Scene) -> None:
    scene.colab.state.capacity["T4"] = 0
    async with anyio.create_task_group() as tasks:
        scene.on_pause = tasks.cancel_scope.cancel
        await scene.acquire(gpu="T4", wait_s=7200.0)
    assert scene.pauses
    assert list((scene.folder / "requests").iterdir()) == []


async def test_a_request_is_either_taken_up_or_released_and_never_both(scene: Scene, tmp_path: Path) -> None:
    await _killed_in_the_post(scene, tmp_path)
    found = []

    async def take_up() -> None:
        found.append(await scene.acquire(gpu="T4"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.provider.reconcile, frozenset())
        tasks.start_soon(take_up)
    assert scene.running == [found[0].id]
    assert (await scene.provider.attach(found[0])).base_url
