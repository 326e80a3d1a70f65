"""The session backend and the internal API."""

from __future__ import annotations

import uuid

import anyio
import httpx2
import pytest

from colab_bridge.testing.colab import ColabEmulator, EmulatorOptions
from colab_bridge.testing.colab.identity import SCOPE_COLAB, SCOPE_EMAIL
from emulator_caller import Caller, decoded, nbh_of, open_caller

NBH = nbh_of("123e4567-e89b-42d3-a456-426614174000")


async def test_a_get_never_makes_a_runtime(colab: ColabEmulator, caller: Caller) -> None:
    for _ in range(3):
        answer = decoded(await caller.tun("GET", "/tun/m/assign", {"nbh": NBH, "variant": "GPU", "accelerator": "T4"}))
        token = answer.pop("token")
        assert answer == {"acc": "T4", "nbh": NBH, "p": False, "variant": "GPU"}
        assert token
    assert colab.state.runtimes == {}
    assert colab.violations == []


async def test_a_post_makes_a_runtime_and_a_get_then_returns_it_with_another_token(caller: Caller) -> None:
    made = decoded(await caller.assign(NBH, variant="GPU", accelerator="T4"))
    assert (made["variant"], made["accelerator"], made["machineShape"], made["outcome"]) == (1, "T4", 0, 4)
    assert made["endpoint"].startswith("gpu-t4-s-")
    again = decoded(await caller.tun("GET", "/tun/m/assign", {"nbh": NBH}))
    assert again["variant"] == "GPU"
    assert again["endpoint"] == made["endpoint"]
    assert again["runtimeProxyInfo"]["url"] == made["runtimeProxyInfo"]["url"]
    assert again["runtimeProxyInfo"]["token"] != made["runtimeProxyInfo"]["token"]
    assert again["runtimeProxyInfo"]["tokenExpiresInSeconds"] == 3600


async def test_calls_for_one_notebook_are_one_call(colab: ColabEmulator, caller: Caller) -> None:
    found: list[str] = []

    async def assign() -> None:
        answer = await caller.tun("POST", "/tun/m/assign", {"nbh": NBH}, xsrf=token)
        found.append(decoded(answer)["endpoint"])

    token = decoded(await caller.tun("GET", "/tun/m/assign", {"nbh": NBH}))["token"]
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(assign)
    assert len(found) == 5
    assert len(set(found)) == 1
    assert list(colab.state.runtimes) == [found[0]]


async def test_two_notebooks_have_two_runtimes(caller: Caller) -> None:
    assert await caller.endpoint() != await caller.endpoint()
    assert len(await caller.endpoints()) == 2


async def test_a_notebook_is_its_accounts_own(colab: ColabEmulator, caller: Caller) -> None:
    mine = decoded(await caller.assign(NBH))["endpoint"]
    token = colab.identity.access_token(account="other@example.com").value
    async with open_caller(colab, token) as other:
        assert decoded(await other.assign(NBH))["endpoint"] != mine
        assert mine not in await other.endpoints()
        assert (await other.keep_alive(mine)).status_code == 404


async def test_an_xsrf_token_is_bound_to_its_url_and_account(colab: ColabEmulator, caller: Caller) -> None:
    token = decoded(await caller.tun("GET", "/tun/m/assign", {"nbh": NBH}))["token"]
    other = {"nbh": nbh_of(uuid.uuid4())}
    assert (await caller.tun("POST", "/tun/m/assign", other, xsrf=token)).status_code == 403
    assert (await caller.tun("POST", "/tun/m/assign", {"nbh": NBH, "variant": "GPU"}, xsrf=token)).status_code == 403
    assert (await caller.tun("POST", "/tun/m/assign", {"nbh": NBH})).status_code == 403
    foreign = colab.identity.access_token(account="other@example.com").value
    async with open_caller(colab, foreign) as thief:
        assert (await thief.tun("POST", "/tun/m/assign", {"nbh": NBH}, xsrf=token)).status_code == 403
    assert len(colab.violations) == 4
    assert colab.state.runtimes == {}


async def test_both_listings_show_the_same_runtimes(caller: Caller) -> None:
    await caller.assign(NBH, variant="GPU", accelerator="L4", runtime_version_label="2025.10")
    await caller.assign()
    tunnel = decoded(await caller.tun("GET", "/tun/m/assignments"))["assignments"]
    internal = (await caller.call("GET", "gapi", "/v1/assignments")).json()["assignments"]
    assert [entry["endpoint"] for entry in tunnel] == [entry["endpoint"] for entry in internal]
    assert [entry["variant"] for entry in tunnel] == [1, 0]
    assert [entry["variant"] for entry in internal] == ["VARIANT_GPU", "VARIANT_UNSPECIFIED"]
    assert [entry["machineShape"] for entry in tunnel] == [1, 0]
    assert [entry["machineShape"] for entry in internal] == ["SHAPE_HIGH_MEM", "SHAPE_DEFAULT"]
    assert internal[0]["notebookIdHash"] == NBH
    assert internal[0]["runtimeVersionLabel"] == "2025.10"
    assert internal[1]["runtimeVersionLabel"] == "2026.01"


async def test_listings_of_nothing(caller: Caller) -> None:
    assert decoded(await caller.tun("GET", "/tun/m/assignments")) == {"assignments": []}
    assert (await caller.call("GET", "gapi", "/v1/assignments")).json() == {}
    assert (await caller.call("GET", "public_api", "/v1beta/runtimes")).json() == {}


async def test_every_listing_mints_tokens_that_work(colab: ColabEmulator, caller: Caller) -> None:
    endpoint = await caller.endpoint()
    seen = set()
    for _ in range(2):
        seen.add(decoded(await caller.tun("GET", "/tun/m/assignments"))["assignments"][0]["runtimeProxyInfo"]["token"])
        answer = await caller.call("GET", "gapi", "/v1/assignments")
        seen.add(answer.json()["assignments"][0]["runtimeProxyInfo"]["token"])
    assert len(seen) == 4
    assert {colab.tokens.check(endpoint, 8080, token).value for token in seen} == {"valid"}


async def test_unassign_releases_and_then_knows_nothing(colab: ColabEmulator, caller: Caller) -> None:
    endpoint = await caller.endpoint()
    machine = colab.state.runtimes[endpoint].machine
    assert (await caller.unassign(endpoint)).status_code == 200
    assert machine.ends == ["release"]  # type: ignore[attr-defined]
    assert await caller.endpoints() == []
    assert (await caller.tun("GET", f"/tun/m/unassign/{endpoint}")).status_code == 404
    assert (await caller.keep_alive(endpoint)).status_code == 404


async def test_a_token_for_another_port_has_a_url_of_its_own(colab: ColabEmulator, caller: Caller) -> None:
    endpoint = await caller.endpoint()
    query = {"endpoint": endpoint, "port": "7860"}
    answer = (await caller.call("GET", "gapi", "/v1/runtime-proxy-token", params=query)).json()
    assert answer["tokenTtl"] == "3600s"
    assert "7860" in answer["url"]
    assert colab.tokens.check(endpoint, 7860, answer["token"]).value == "valid"
    assert colab.tokens.check(endpoint, 8080, answer["token"]).value == "wrong"
    await caller.unassign(endpoint)
    assert (await caller.call("GET", "gapi", "/v1/runtime-proxy-token", params=query)).status_code == 404


@pytest.mark.parametrize(
    ("refusal", "status", "outcome"),
    [
        ("too_many", 412, None),
        ("capacity", 503, None),
        ("not_entitled", 400, None),
        ("quota", 200, 1),
        ("usage_time", 200, 2),
        ("denylisted", 200, 5),
    ],
)
async def test_a_refusal_has_the_status_that_clients_know(
    colab: ColabEmulator, caller: Caller, refusal: str, status: int, outcome: int | None
) -> None:
    colab.faults.add(kind="refuse", service="colab", method="POST", path="/tun/m/assign", refusal=refusal)
    answer = await caller.assign(variant="GPU", accelerator="T4")
    assert answer.status_code == status
    if outcome is not None:
        assert decoded(answer) == {"outcome": outcome}
    assert colab.state.runtimes == {}


async def test_an_outcome_that_nobody_knows(colab: ColabEmulator, caller: Caller) -> None:
    colab.faults.add(kind="refuse", path="/tun/m/assign", method="POST", outcome=3)
    assert decoded(await caller.assign()) == {"outcome": 3}


async def test_limits_of_the_account_refuse_by_themselves(colab: ColabEmulator, caller: Caller) -> None:
    account = colab.state.account(colab.options.email)
    colab.state.capacity["T4"] = 1
    assert (await caller.assign(variant="GPU", accelerator="T4")).status_code == 200
    assert (await caller.assign(variant="GPU", accelerator="T4")).status_code == 503
    assert (await caller.assign(variant="GPU", accelerator="H100")).status_code == 400
    account.max_runtimes = 1
    assert (await caller.assign()).status_code == 412
    account.denylisted = True
    assert decoded(await caller.assign()) == {"outcome": 5}
    assert colab.violations == []


@pytest.mark.parametrize("options", [EmulatorOptions(tier="free")])
async def test_the_free_tier(caller: Caller) -> None:
    assert (await caller.assign(shape="hm")).status_code == 400
    made = decoded(await caller.assign(variant="GPU", accelerator="T4"))
    assert (made["sub"], made["subTier"]) == (1, 0)
    told = (await caller.call("GET", "gapi", "/v1/user-info", params={"get_ccu_consumption_info": "true"})).json()
    assert told["subscriptionTier"] == "SUBSCRIPTION_TIER_NONE"
    assert told["paidComputeUnitsBalance"] == 0
    assert told["freeCcuQuotaInfo"]["remainingTokens"].isdecimal()


async def test_units_are_used_up_by_the_hour_and_then_nothing_is_had(colab: ColabEmulator, caller: Caller) -> None:
    account = colab.state.account(colab.options.email)
    account.paid_units, account.free_milli_units = 2.0, 0.0
    endpoint = await caller.endpoint(variant="GPU", accelerator="T4")
    told = decoded(await caller.tun("GET", "/tun/m/ccu-info"))
    assert (told["assignmentsCount"], told["consumptionRateHourly"]) == (1, 1.76)
    assert told["eligibleGpus"] == ["T4", "L4", "A100"]
    await colab.advance(3600)
    told = decoded(await caller.tun("GET", "/tun/m/ccu-info"))
    assert told["currentBalance"] == pytest.approx(0.24, abs=0.01)
    await caller.keep_alive(endpoint)
    await colab.advance(3600)
    assert decoded(await caller.tun("GET", "/tun/m/ccu-info"))["currentBalance"] == 0
    assert decoded(await caller.assign()) == {"outcome": 2}


async def test_an_idle_runtime_is_taken_away_and_a_ping_keeps_it(colab: ColabEmulator, caller: Caller) -> None:
    kept, idle = await caller.endpoint(), await caller.endpoint()
    await colab.advance(5000)
    assert (await caller.keep_alive(kept)).status_code == 200
    await colab.advance(500)
    assert await caller.endpoints() == [kept]
    assert colab.state.ended == {idle: "idle"}


async def test_pings_do_not_make_a_runtime_immortal(colab: ColabEmulator, caller: Caller) -> None:
    endpoint = await caller.endpoint()
    for _ in range(24):
        await colab.advance(3590)
        await caller.keep_alive(endpoint)
    assert await caller.endpoints() == [endpoint]
    await colab.advance(600)
    assert await caller.endpoints() == []
    assert colab.state.ended == {endpoint: "life"}


async def test_an_idle_runtime_ends_without_any_request(colab: ColabEmulator, caller: Caller) -> None:
    endpoint = await caller.endpoint()
    machine = colab.state.runtimes[endpoint].machine
    colab.clock.advance(6000)
    with anyio.fail_after(5):
        while machine.alive:
            await anyio.sleep(0)
    assert colab.state.ended == {endpoint: "idle"}


@pytest.mark.parametrize("options", [EmulatorOptions(idle_timeout_s=0.2)])
async def test_real_time_passes_too(colab: ColabEmulator, caller: Caller) -> None:
    endpoint = await caller.endpoint()
    machine = colab.state.runtimes[endpoint].machine
    with anyio.fail_after(5):
        while machine.alive:
            await anyio.sleep(0.01)
    assert colab.state.ended == {endpoint: "idle"}


@pytest.mark.parametrize("options", [EmulatorOptions(keep_alive="hang")])
async def test_a_ping_that_hangs_counts_all_the_same(colab: ColabEmulator, caller: Caller) -> None:
    endpoint = await caller.endpoint()
    await colab.advance(5000)
    with pytest.raises(httpx2.ReadTimeout):
        async with httpx2.AsyncClient(trust_env=False, timeout=0.3) as http:
            await http.get(
                caller.url("colab", f"/tun/m/{endpoint}/keep-alive/"),
                params={"authuser": "0"},
                headers={**caller.headers, "X-Colab-Tunnel": "Google"},
            )
    await colab.advance(5000)
    assert await caller.endpoints() == [endpoint]


async def test_experiments_are_for_everybody(colab: ColabEmulator, caller: Caller) -> None:
    answer = await caller.tun("GET", "/vscode/experiment-state", headers={"Authorization": None})
    assert decoded(answer) == {"experiments": {}, "selectedIds": []}
    assert colab.violations == []


async def test_the_token_of_a_service_is_not_taken_by_the_wrong_one(colab: ColabEmulator, caller: Caller) -> None:
    reader = colab.identity.access_token(account="a@example.com", scopes=frozenset({SCOPE_EMAIL})).value
    async with open_caller(colab, reader) as poor:
        refused = await poor.tun("GET", "/tun/m/assignments")
        assert refused.status_code == 403
        assert refused.json()[0] == 7
        assert "SCOPE_NOT_PERMITTED" in refused.text
        assert (await poor.call("GET", "gapi", "/v1/assignments")).status_code == 403
    nameless = colab.identity.access_token(account="a@example.com", scopes=frozenset({SCOPE_COLAB})).value
    async with open_caller(colab, nameless) as poor:
        assert (await poor.tun("GET", "/tun/m/assignments")).status_code == 401
        assert (await poor.call("GET", "gapi", "/v1/assignments")).status_code == 200


async def test_credentials_go_to_a_runtime_after_consent(colab: ColabEmulator, caller: Caller) -> None:
    endpoint = await caller.endpoint()
    path = f"/tun/m/credentials-propagation/{endpoint}"
    query = {"authtype": "dfs_ephemeral", "version": "2", "propagate": "true", "record": "false", "dryrun": "true"}
    token = decoded(await caller.tun("GET", path, query))["token"]
    asked = decoded(await caller.tun("POST", path, query, xsrf=token))
    assert asked["success"] is False
    assert (await caller.tun("POST", path, {**query, "dryrun": "false"}, xsrf=token)).status_code == 400
    assert (await caller.http.get(asked["unauthorized_redirect_uri"])).status_code == 200
    assert decoded(await caller.tun("POST", path, query, xsrf=token)) == {"success": True}
    assert decoded(await caller.tun("POST", path, {**query, "dryrun": "false"}, xsrf=token)) == {"success": True}
    assert colab.state.runtimes[endpoint].propagated == {"dfs_ephemeral": colab.options.email}
    assert colab.violations == []


async def test_consent_of_another_account_or_with_boxes_unticked_does_not_count(
    colab: ColabEmulator, caller: Caller
) -> None:
    endpoint = await caller.endpoint()
    path = f"/tun/m/credentials-propagation/{endpoint}"
    query = {"authtype": "dfs_ephemeral", "version": "2", "propagate": "true", "record": "false", "dryrun": "true"}
    token = decoded(await caller.tun("GET", path, query))["token"]
    page = decoded(await caller.tun("POST", path, query, xsrf=token))["unauthorized_redirect_uri"]
    final = {**query, "dryrun": "false"}
    colab.identity.consent.account = "other@example.com"
    await caller.http.get(page)
    assert (await caller.tun("POST", path, final, xsrf=token)).status_code == 400
    colab.identity.consent.account = ""
    colab.identity.consent.withheld = frozenset({SCOPE_EMAIL})
    await caller.http.get(page)
    assert decoded(await caller.tun("POST", path, final, xsrf=token)) == {"success": False}
    assert colab.state.runtimes[endpoint].propagated == {}
