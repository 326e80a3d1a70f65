"""The public Colab API as the emulator plays it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from colab_bridge.testing.colab import ColabEmulator, EmulatorOptions
from colab_bridge.testing.colab.identity import SCOPE_COLAB_READ
from emulator_caller import Caller, decoded, open_caller

RUNTIMES = "/v1beta/runtimes"
T4 = {"runtimeSpec": {"variant": "VARIANT_GPU", "accelerator": "T4", "shape": "SHAPE_STANDARD"}, "version": "2026.01"}


async def create(caller: Caller, body: dict[str, Any] | None = None, **query: str) -> dict[str, Any]:
    """Ask for a runtime; return the operation as it is then."""
    query = {"requestId": str(uuid.uuid4()), **query}
    answer = await caller.call("POST", "public_api", RUNTIMES, params=query, json=body or T4)
    assert answer.status_code == 200, answer.text
    operation: dict[str, Any] = answer.json()
    return operation


async def finished(caller: Caller, operation: dict[str, Any]) -> dict[str, Any]:
    path = f"/v1/{operation['name']}:wait"
    answer = await caller.call("GET", "public_api", path, params={"timeout": "200s"})
    ended: dict[str, Any] = answer.json()
    assert ended["done"] is True
    return ended


async def test_a_creation_is_an_operation_that_ends_with_the_runtime(colab: ColabEmulator, caller: Caller) -> None:
    begun = await create(caller)
    assert begun["done"] is False
    assert "response" not in begun
    made = (await finished(caller, begun))["response"]
    assert begun["metadata"]["runtime"] == made["name"]
    assert made["runtimeSpec"] == T4["runtimeSpec"]
    assert made["version"] == "2026.01"
    endpoint = made["connectionInfo"]["endpoint"]
    assert colab.tokens.check(endpoint, 8080, made["connectionInfo"]["token"]).value == "valid"
    again = (await caller.call("GET", "public_api", f"/v1beta/{made['name']}")).json()
    assert again["connectionInfo"]["token"] != made["connectionInfo"]["token"]
    assert await caller.endpoints() == [endpoint]
    assert colab.violations == []


async def test_a_request_id_makes_a_repeated_creation_the_same(colab: ColabEmulator, caller: Caller) -> None:
    request_id = str(uuid.uuid4())
    first = await create(caller, requestId=request_id)
    second = await create(caller, requestId=request_id)
    assert first["name"] == second["name"]
    await finished(caller, first)
    assert len(colab.state.runtimes) == 1
    other = {"runtimeSpec": {"variant": "VARIANT_CPU"}}
    query = {"requestId": request_id}
    assert (await caller.call("POST", "public_api", RUNTIMES, params=query, json=other)).status_code == 400


async def test_a_creation_without_a_request_id_is_made_twice_and_noted(colab: ColabEmulator, caller: Caller) -> None:
    for _ in range(2):
        operation = (await caller.call("POST", "public_api", RUNTIMES, json=T4)).json()
        await finished(caller, operation)
    assert len(colab.state.runtimes) == 2
    assert [violation.what for violation in colab.violations] == ["no requestId"] * 2


async def test_a_runtime_id_is_given_once(colab: ColabEmulator, caller: Caller) -> None:
    first = await create(caller, runtimeId="mine-1")
    second = await create(caller, runtimeId="mine-1")
    assert (await finished(caller, first))["response"]["name"] == "runtimes/mine-1"
    assert (await finished(caller, second))["error"]["code"] == 6
    assert len(colab.state.runtimes) == 1


async def test_a_deleted_runtime_is_nowhere(caller: Caller) -> None:
    made = (await finished(caller, await create(caller)))["response"]
    assert (await caller.call("DELETE", "public_api", f"/v1beta/{made['name']}")).json() == {}
    assert (await caller.call("GET", "public_api", f"/v1beta/{made['name']}")).status_code == 404
    assert await caller.endpoints() == []


async def test_runtimes_of_all_services_are_listed(caller: Caller) -> None:
    endpoint = decoded(await caller.assign(variant="GPU", accelerator="L4"))["endpoint"]
    await finished(caller, await create(caller))
    listed = (await caller.call("GET", "public_api", RUNTIMES)).json()["runtimes"]
    assert listed[0]["connectionInfo"]["endpoint"] == endpoint
    assert listed[0]["runtimeSpec"] == {"variant": "VARIANT_GPU", "accelerator": "L4", "shape": "SHAPE_HIGHMEM"}
    internal = (await caller.call("GET", "gapi", "/v1/assignments")).json()["assignments"]
    assert ["notebookIdHash" in entry for entry in internal] == [True, False]


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        ("too_many", "TOO_MANY_ACTIVE_RUNTIMES"),
        ("denylisted", "DENYLISTED"),
        ("usage_time", "QUOTA_EXCEEDED_USAGE_TIME"),
        ("capacity", "ACCELERATOR_UNAVAILABLE"),
    ],
)
async def test_a_refusal_is_the_error_of_the_operation(
    colab: ColabEmulator, caller: Caller, refusal: str, reason: str
) -> None:
    colab.faults.add(kind="refuse", service="public_api", method="POST", refusal=refusal)
    error = (await finished(caller, await create(caller)))["error"]
    assert error["code"] == 9
    assert error["details"][0]["reason"] == reason


async def test_every_spec_tells_whether_it_may_be_had(caller: Caller) -> None:
    specs = (await caller.call("GET", "public_api", "/v1beta/runtimespecs")).json()["runtimeSpecs"]
    by_key = {tuple(spec["key"].values()): spec["eligible"] for spec in specs}
    assert by_key["VARIANT_GPU", "T4", "SHAPE_STANDARD"] is True
    assert by_key["VARIANT_GPU", "H100", "SHAPE_HIGHMEM"] is False
    assert ("VARIANT_GPU", "L4", "SHAPE_STANDARD") not in by_key
    assert by_key["VARIANT_CPU", "NONE", "SHAPE_HIGHMEM"] is True


async def test_the_subscription_and_what_is_not_implemented(caller: Caller) -> None:
    told = (await caller.call("GET", "public_api", "/v1beta/subscription")).json()
    assert told == {"name": "subscription", "tier": "SUBSCRIPTION_TIER_PRO"}
    assert (await caller.call("GET", "public_api", "/v1/operations")).status_code == 501


async def test_a_token_for_reading_reads_only(colab: ColabEmulator, caller: Caller) -> None:
    email = colab.options.email
    token = colab.identity.access_token(account=email, scopes=frozenset({SCOPE_COLAB_READ})).value
    async with open_caller(colab, token) as reader:
        assert (await reader.call("GET", "public_api", RUNTIMES)).status_code == 200
        query = {"requestId": str(uuid.uuid4())}
        refused = await reader.call("POST", "public_api", RUNTIMES, params=query, json=T4)
        assert refused.status_code == 403
        assert refused.json()["error"]["details"][0]["reason"] == "ACCESS_TOKEN_SCOPE_INSUFFICIENT"


@pytest.mark.parametrize("options", [EmulatorOptions(public_endpoints=False)])
async def test_the_endpoint_may_be_withheld(caller: Caller) -> None:
    made = (await finished(caller, await create(caller)))["response"]
    assert set(made["connectionInfo"]) == {"url", "token", "expireTime"}


@pytest.mark.parametrize("options", [EmulatorOptions(allocation_s=0.4)])
async def test_a_wait_may_return_before_the_end(colab: ColabEmulator, caller: Caller) -> None:
    operation = await create(caller)
    path = f"/v1/{operation['name']}"
    early = (await caller.call("GET", "public_api", f"{path}:wait", params={"timeout": "0.05s"})).json()
    assert early["done"] is False
    assert (await caller.call("GET", "public_api", f"{path}:wait", params={"timeout": "long"})).status_code == 400
    assert (await finished(caller, operation))["response"]


async def test_an_operation_is_its_accounts_own(colab: ColabEmulator, caller: Caller) -> None:
    operation = await create(caller)
    token = colab.identity.access_token(account="other@example.com").value
    async with open_caller(colab, token) as other:
        assert (await other.call("GET", "public_api", f"/v1/{operation['name']}")).status_code == 404
    await finished(caller, operation)
