"""Refusals and trouble of Colab's control plane, one row of the failure catalogue each."""

from __future__ import annotations

import json

import anyio
import pytest

from colab_bridge.errors import (
    AuthError,
    ColabBridgeError,
    InternalError,
    QuotaError,
    RuntimeLostError,
    TransientError,
    UserError,
)
from colab_bridge.model.runtime import Endpoint, RuntimeHandle
from colab_bridge.testing.colab import EmulatorOptions
from colab_scenes import ASSIGN, Scene

LISTING = "/tun/m/assignments"
SCOPE_BODY = [7, "Request had insufficient authentication scopes.", [["x", [[], "... SCOPE_NOT_PERMITTED ..."]]]]


async def refusal(scene: Scene, kind: type[ColabBridgeError], **options: object) -> ColabBridgeError:
    """Acquire, expect an error, and check what holds for every refusal."""
    with pytest.raises(kind) as caught:
        await scene.acquire(**options)
    error = caught.value
    assert "\n" not in error.message + error.hint
    assert error.hint
    assert scene.running == []
    assert list((scene.folder / "requests").iterdir()) == []
    return error


# -- on the way to a runtime ----------------------------------------------------------------------------------------


async def test_f7_412_with_other_runtimes_says_how_many_and_how_to_end_one(scene: Scene) -> None:
    scene.colab.state.account("dev@example.com").max_runtimes = 1
    held = await scene.acquire()
    with pytest.raises(QuotaError, match="it has 1 already") as caught:
        await scene.acquire(gpu="T4")
    assert "colab-bridge stop" in caught.value.hint
    assert scene.running == [held.id]


async def test_f7_412_without_any_runtime_is_a_refusal_for_usage(scene: Scene) -> None:
    scene.fault("status", status=412, count=None)
    error = await refusal(scene, QuotaError, gpu="T4")
    assert error.code == "CB-COLAB-006"


async def test_f8_no_capacity_is_told_with_the_way_to_wait(scene: Scene) -> None:
    scene.colab.state.capacity["T4"] = 0
    error = await refusal(scene, QuotaError, gpu="T4")
    assert error.code == "CB-COLAB-001"
    assert "--wait" in error.hint


@pytest.mark.parametrize("api", ["v1", "v1beta"])
async def test_f9_a_card_that_the_account_may_not_have_is_refused_with_the_list_of_those_it_may(
    scene: Scene, api: str
) -> None:
    error = await refusal(scene, UserError, gpu="H100", api=api)
    assert error.code == "CB-COLAB-003"
    assert "T4, L4, A100" in error.hint
    asked = scene.asked("POST", ASSIGN) + scene.asked("POST", "/v1beta/runtimes")
    assert asked == 1  # not entitled is final


@pytest.mark.parametrize(("outcome", "code"), [(1, "CB-COLAB-005"), (2, "CB-COLAB-006")])
async def test_f10_a_refusal_inside_a_200_is_read_before_anything_else(scene: Scene, outcome: int, code: str) -> None:
    scene.fault("refuse", outcome=outcome, count=None)
    error = await refusal(scene, QuotaError, gpu="A100,T4", wait_s=600.0)
    assert error.code == code
    assert scene.asked("POST", ASSIGN) == 1


@pytest.mark.parametrize("api", ["v1", "v1beta"])
async def test_f10_a_blocked_account_is_told_once_and_never_tried_again(scene: Scene, api: str) -> None:
    scene.colab.state.account("dev@example.com").denylisted = True
    error = await refusal(scene, AuthError, gpu="A100,T4", wait_s=600.0, api=api)
    assert error.code == "CB-COLAB-007"
    assert scene.asked("POST", ASSIGN) + scene.asked("POST", "/v1beta/runtimes") == 1
    assert scene.pauses == []


async def test_f11_names_that_nobody_knows_are_listed_as_they_are(scene: Scene) -> None:
    handle = await scene.acquire(gpu="T4")
    scene.fault("drift", LISTING, method="GET", set={"assignments.*.accelerator": "B300"}, remove=())
    assert [str(each.hardware) for each in await scene.provider.runtimes()] == ["B300"]
    assert [each.id for each in await scene.provider.runtimes()] == [handle.id]


@pytest.mark.parametrize("kind", ["close_after", "cut"])
async def test_f12_a_runtime_whose_answer_was_lost_is_adopted(scene: Scene, kind: str) -> None:
    scene.fault(kind)
    handle = await scene.acquire(gpu="T4")
    assert [handle.id] == scene.running
    assert scene.asked("POST", ASSIGN) == 1


async def test_f12_a_question_that_never_arrived_is_put_again_after_its_time(scene: Scene) -> None:
    scene.fault("close")
    handle = await scene.acquire(gpu="T4")
    assert [handle.id] == scene.running
    assert scene.asked("POST", ASSIGN) == 2
    assert sum(scene.pauses) >= 45
    assert scene.asked("GET", ASSIGN) > 2


async def test_f12_of_the_public_api_a_lost_answer_is_looked_up_by_the_id_that_was_chosen(scene: Scene) -> None:
    scene.fault("close_after", "/v1beta/runtimes", service="public_api")
    handle = await scene.acquire(api="v1beta")
    assert [handle.id] == scene.running
    assert scene.asked("POST", "/v1beta/runtimes") == 1


async def test_f14_the_memory_shape_is_left_out_for_cards_that_have_no_choice(scene: Scene) -> None:
    await scene.acquire(gpu="L4", high_mem=True)
    posted = [each for each in scene.colab.requests if (each.method, each.path) == ("POST", ASSIGN)]
    assert "shape" not in dict(posted[0].query)


async def test_f15_missing_and_quoted_figures_are_no_failure(scene: Scene) -> None:
    scene.fault("drift", "/v1/user-info", method="GET", service="gapi", remove=("paidComputeUnitsBalance",), count=None)
    scene.fault("drift", "/tun/m/ccu-info", method="GET", remove=("currentBalance", "eligibleGpus"), count=None)
    assert (await scene.provider.balance()).units is None
    assert (await scene.provider.offers()).tier == "pro"


async def test_f47_the_request_is_on_disk_before_it_is_put(scene: Scene) -> None:
    scene.fault("delay", delay_s=0.3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.acquire)
        with anyio.fail_after(5):
            while scene.asked("POST", ASSIGN) == 0:
                await anyio.sleep(0.01)
        written = json.loads(next((scene.folder / "requests").iterdir()).read_bytes())
        assert (written["session"], written["runtime"]) == ("s", "")
    assert len(scene.running) == 1


# -- who we are -----------------------------------------------------------------------------------------------------


async def test_f16_a_revoked_sign_in_is_told_once_with_the_command_that_helps(scene: Scene) -> None:
    scene.tokens.values = ["revoked"]
    error = await refusal(scene, AuthError)
    assert error.hint == "colab-bridge auth login"
    assert scene.tokens.refused == 1
    scene.colab.violations.clear()  # a bad token is one


async def test_f17_a_stray_401_is_answered_by_one_refresh_and_nobody_is_signed_out(scene: Scene) -> None:
    scene.tokens.values = [scene.colab.access_token, scene.colab.identity.access_token(account="dev@example.com").value]
    scene.fault("status", "/tun/m/assign", method="GET", status=401)
    handle = await scene.acquire()
    assert [handle.id] == scene.running
    assert scene.tokens.refused == 1


async def test_a_sign_in_without_the_scope_names_the_box(scene: Scene) -> None:
    scene.fault("status", "/tun/m/assign", method="GET", status=403, body=SCOPE_BODY)
    error = await refusal(scene, AuthError)
    assert error.code == "CB-COLAB-009"
    assert "boxes ticked" in error.hint


# -- a runtime that lives ---------------------------------------------------------------------------------------------


async def test_f1_f2_a_refused_token_is_renewed_once_for_all_who_met_it(scene: Scene) -> None:
    handle = await scene.acquire(gpu="T4")
    old = await scene.provider.attach(handle)
    before = scene.asked("GET", LISTING)
    found = []

    async def renew() -> None:
        found.append(await scene.provider.attach(handle, stale=old))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(renew)
    assert len({each.headers["X-Colab-Runtime-Proxy-Token"] for each in found}) == 1
    assert found[0] != old
    assert scene.asked("GET", LISTING) == before + 1


async def test_f1_a_token_is_renewed_before_it_ends(scene: Scene) -> None:
    handle = await scene.acquire()
    first = await scene.provider.attach(handle)
    await scene.colab.advance(3000)
    assert await scene.provider.attach(handle) == first
    await scene.colab.advance(350)
    renewed = await scene.provider.attach(handle)
    assert renewed != first
    assert renewed.expires_at is not None
    assert renewed.expires_at > scene.colab.clock.time() + 3000


async def test_f1_an_address_that_changed_is_taken_over_with_the_token(scene: Scene) -> None:
    handle = await scene.acquire()
    old = await scene.provider.attach(handle)
    new = "http://127.0.0.1:10/moved"
    scene.fault("drift", LISTING, method="GET", set={"assignments.*.runtimeProxyInfo.url": new})
    assert (await scene.provider.attach(handle, stale=old)).base_url == new


@pytest.mark.parametrize("api", ["v1", "v1beta"])
async def test_a_runtime_is_gone_only_after_two_listings_without_it(scene: Scene, api: str) -> None:
    handle = await scene.acquire(api=api)
    old = await scene.provider.attach(handle)
    await scene.colab.kill(handle.id)
    with pytest.raises(RuntimeLostError, match="lists it no more"):
        await scene.provider.attach(handle, stale=old)
    assert sum(scene.pauses) >= 9.9


async def test_a_runtime_that_one_listing_lacked_lives_on(scene: Scene) -> None:
    handle = await scene.acquire()
    old = await scene.provider.attach(handle)
    scene.fault("drift", LISTING, method="GET", set={"assignments": []})
    assert await scene.provider.attach(handle, stale=old) != old


@pytest.mark.parametrize("trouble", [{"kind": "status", "status": 500}, {"kind": "close"}])
async def test_a_listing_that_fails_decides_nothing(scene: Scene, trouble: dict[str, object]) -> None:
    handle = await scene.acquire()
    old = await scene.provider.attach(handle)
    scene.colab.faults.add(service="colab", method="GET", path=LISTING, count=None, **trouble)
    for _ in range(3):
        with pytest.raises(TransientError, match="not known"):
            await scene.provider.attach(handle, stale=old)
        await scene.colab.advance(60)
    scene.colab.faults.clear()
    assert await scene.provider.attach(handle, stale=old) != old


async def test_while_nobody_answers_the_old_token_serves_until_its_end(scene: Scene) -> None:
    handle = await scene.acquire()
    old = await scene.provider.attach(handle)
    scene.fault("status", LISTING, method="GET", status=503, count=None)
    await scene.colab.advance(3400)
    assert await scene.provider.attach(handle) == old
    await scene.colab.advance(210)
    with pytest.raises(TransientError):
        await scene.provider.attach(handle)


@pytest.mark.parametrize("options", [EmulatorOptions(keep_alive="hang")])
async def test_f4_a_ping_without_an_answer_has_worked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colab_bridge.providers.colab.control_v1.PING_TIMEOUT_S", 0.3)
    handle = await scene.acquire()
    await scene.colab.advance(5000)
    await scene.provider.keep_alive(handle)
    await scene.colab.advance(5000)
    assert scene.running == [handle.id]


async def test_f4_a_ping_that_could_not_be_sent_has_not_worked(scene: Scene) -> None:
    handle = await scene.acquire()
    scene.fault("close", f"/tun/m/{handle.id}/keep-alive/", method="GET")
    with pytest.raises(TransientError):
        await scene.provider.keep_alive(handle)


async def test_a_ping_to_a_runtime_that_is_gone_is_verified_by_the_listing(scene: Scene) -> None:
    handle = await scene.acquire()
    path = f"/tun/m/{handle.id}/keep-alive/"
    scene.fault("status", path, method="GET", status=404)
    await scene.provider.keep_alive(handle)  # it is listed: the 404 said nothing
    await scene.colab.kill(handle.id)
    with pytest.raises(RuntimeLostError):
        await scene.provider.keep_alive(handle)


async def test_f3_pings_go_through_the_tunnel_with_what_it_wants(scene: Scene) -> None:
    handle = await scene.acquire()
    await scene.provider.keep_alive(handle)
    ping = scene.colab.requests[-1]
    assert ping.path == f"/tun/m/{handle.id}/keep-alive/"
    assert dict(ping.query) == {"authuser": "0"}
    assert scene.colab.violations == []


async def test_f36_f13_a_browsers_runtime_can_be_adopted_and_one_broken_entry_hides_no_other(scene: Scene) -> None:
    first, second = await scene.acquire(), await scene.acquire(gpu="T4")
    scene.fault("drift", LISTING, method="GET", remove=("assignments.0.endpoint",))
    assert len(await scene.provider.runtimes()) == 1
    assert {each.id for each in await scene.provider.runtimes()} == {first.id, second.id}


async def test_f37_the_link_for_a_browser_has_both_forms(scene: Scene) -> None:
    handle = await scene.acquire()
    base, backend = scene.colab.urls["COLAB_BRIDGE_COLAB_URL"], f"/tun/m/{handle.id}"
    url = scene.provider.browser_url(handle)
    assert url == (f"{base}/notebooks/empty.ipynb?dbu={backend.replace('/', '%2F')}#datalabBackendUrl={base}{backend}")
    assert scene.provider.browser_url(handle, file_id="a/b").startswith(f"{base}/drive/a%2Fb?dbu=")


async def test_f38_jupyter_is_never_asked_through_the_tunnel(scene: Scene) -> None:
    handle = await scene.acquire()
    await scene.provider.keep_alive(handle)
    await scene.provider.release(handle)
    assert [each.path for each in scene.colab.requests if "/api/" in each.path] == []


@pytest.mark.parametrize(
    ("path", "method", "field"),
    [
        (ASSIGN, "POST", "endpoint"),
        (ASSIGN, "GET", "token"),
        (ASSIGN, "POST", "runtimeProxyInfo.token"),
        (ASSIGN, "POST", "runtimeProxyInfo.url"),
    ],
)
async def test_f46_a_field_that_is_missing_is_named(scene: Scene, path: str, method: str, field: str) -> None:
    scene.fault("drift", path, method=method, remove=(field,), count=None)
    with pytest.raises(InternalError, match=rf"^protocol changed: assign\.{field}$"):
        await scene.acquire()
    scene.colab.faults.clear()
    # Whatever was made meanwhile is in the ledger, and found again.
    await scene.provider.aclose()
    scene.provider = scene.another()
    await scene.colab.advance(700)
    await scene.provider.reconcile(frozenset())
    assert scene.running == []


async def test_f46_a_listing_that_cannot_be_read_is_no_loss(scene: Scene) -> None:
    handle = await scene.acquire()
    old = await scene.provider.attach(handle)
    scene.fault("drift", LISTING, method="GET", remove=("assignments.*.endpoint",), count=None)
    with pytest.raises(InternalError, match="protocol changed"):
        await scene.provider.attach(handle, stale=old)
    scene.colab.faults.clear()
    assert await scene.provider.attach(handle, stale=old) != old


async def test_a_day_with_an_hours_token_gaps_and_twenty_troubles_loses_nothing(scene: Scene) -> None:
    """24 hours: a ping every four minutes, an attach every ten, ten gaps of half an hour, twenty troubles."""
    handle = await scene.acquire(gpu="T4")
    endpoint = await scene.provider.attach(handle)
    troubles = [
        {"kind": "status", "status": 401},
        {"kind": "status", "status": 404},
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503},
        {"kind": "close"},
    ] * 4
    scene.tokens.values = [scene.tokens.values[0]] + [
        scene.colab.identity.access_token(account="dev@example.com").value for _ in range(20)
    ]
    minute, gaps, failures = 0, 10, 0
    while minute < 23 * 60 + 50:
        step = 30 if gaps and minute % 140 == 0 and minute else 4
        gaps -= step == 30
        minute += step
        await scene.colab.advance(step * 60)
        if troubles and minute % 68 < 4:
            scene.colab.faults.add(service="colab", method="GET", path="/tun/m/*", **troubles.pop())
        for ping in (True, False):
            try:
                endpoint = await _ping_or_attach(scene, handle, endpoint, ping=ping)
            except TransientError:
                failures += 1  # said as passing, and passed
                endpoint = await _ping_or_attach(scene, handle, endpoint, ping=ping)
    assert scene.running == [handle.id]
    assert troubles == []
    assert failures <= 20
    await scene.provider.release(handle)
    assert scene.running == []


async def _ping_or_attach(scene: Scene, handle: RuntimeHandle, endpoint: Endpoint, *, ping: bool) -> Endpoint:
    if ping:
        await scene.provider.keep_alive(handle)
        return endpoint
    return await scene.provider.attach(handle, stale=endpoint)
