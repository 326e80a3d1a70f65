"""One runtime in the words of each service. Pure: state in, JSON out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final, Literal

from colab_bridge.testing.colab.accounts import Account
from colab_bridge.testing.colab.faults import RefusalKind
from colab_bridge.testing.colab.hardware import CARDS, Ask, Variant
from colab_bridge.testing.colab.state import Runtime
from colab_bridge.testing.colab.tokens import MintedToken

__all__ = [
    "OUTCOMES",
    "PUBLIC_REASONS",
    "internal_listed",
    "internal_proxy",
    "internal_user",
    "public_runtime",
    "public_spec",
    "tunnel_assignment",
    "tunnel_listed",
    "tunnel_proxy",
    "tunnel_to_assign",
    "tunnel_units",
]

_GRANTED: Final = 4
#: Refusals that the session backend answers with status 200 and a number; the others have a status of their own.
OUTCOMES: Final[dict[RefusalKind, int]] = {"quota": 1, "usage_time": 2, "denylisted": 5}
#: Reasons by which the public API refuses. Those that clients are known to look for stand first; for the others any
#: reason with FAILED_PRECONDITION means that this accelerator cannot be had.
PUBLIC_REASONS: Final[dict[RefusalKind, str]] = {
    "too_many": "TOO_MANY_ACTIVE_RUNTIMES",
    "denylisted": "DENYLISTED",
    "usage_time": "QUOTA_EXCEEDED_USAGE_TIME",
    "quota": "QUOTA_DENIED_REQUESTED_VARIANTS",
    "not_entitled": "ACCELERATOR_NOT_ELIGIBLE",
    "capacity": "ACCELERATOR_UNAVAILABLE",
    "invalid": "INVALID_RUNTIME_SPEC",
}


def tunnel_proxy(token: MintedToken, url: str) -> dict[str, Any]:
    """Return ``runtimeProxyInfo`` of the session backend."""
    return {"token": token.value, "tokenExpiresInSeconds": token.ttl_s, "url": url}


def tunnel_to_assign(ask: Ask, nbh: str, xsrf: str) -> dict[str, Any]:
    """Return the answer to a GET on a notebook that has no runtime."""
    return {"acc": ask.accelerator, "nbh": nbh, "p": False, "token": xsrf, "variant": ask.variant.tunnel}


def tunnel_assignment(
    runtime: Runtime, proxy: dict[str, Any], fit_s: int, *, answer_to: Literal["GET", "POST"]
) -> dict[str, Any]:
    """Return a runtime as ``/tun/m/assign`` does: a GET names the variant, a POST numbers it and adds the outcome."""
    account, ask = runtime.account, runtime.ask
    common = {
        "accelerator": ask.accelerator,
        "endpoint": runtime.endpoint,
        "variant": ask.variant.tunnel if answer_to == "GET" else ask.variant.number,
        "machineShape": int(ask.high_memory),
        "fit": fit_s,
        "sub": 1 if account.tier == "free" else 2,
        "subTier": account.rules.number,
        "allowedCredentials": True,
        "runtimeProxyInfo": proxy,
    }
    return common if answer_to == "GET" else {**common, "outcome": _GRANTED}


def tunnel_listed(runtime: Runtime, proxy: dict[str, Any]) -> dict[str, Any]:
    """Return a runtime as ``/tun/m/assignments`` does: numbers, and no member left out."""
    return {
        "accelerator": runtime.ask.accelerator,
        "endpoint": runtime.endpoint,
        "variant": runtime.ask.variant.number,
        "machineShape": int(runtime.ask.high_memory),
        "runtimeProxyInfo": proxy,
    }


def tunnel_units(account: Account, *, count: int, rate: float) -> dict[str, Any]:
    """Return the answer of ``/tun/m/ccu-info``."""
    yes, no = _cards(account, True), _cards(account, False)
    return {
        "assignmentsCount": count,
        "consumptionRateHourly": rate,
        "currentBalance": account.paid_units,
        "eligibleGpus": yes[Variant.GPU],
        "eligibleTpus": yes[Variant.TPU],
        "ineligibleGpus": no[Variant.GPU],
        "ineligibleTpus": no[Variant.TPU],
    }


def internal_proxy(token: MintedToken, url: str) -> dict[str, Any]:
    """Return a runtime proxy token of the internal API."""
    return {"token": token.value, "tokenTtl": f"{token.ttl_s}s", "url": url}


def internal_listed(runtime: Runtime, proxy: dict[str, Any], version: str) -> dict[str, Any]:
    """Return a runtime as ``/v1/assignments`` does: names instead of numbers."""
    listed = {
        "endpoint": runtime.endpoint,
        "accelerator": runtime.ask.accelerator,
        "variant": runtime.ask.variant.internal,
        "machineShape": "SHAPE_HIGH_MEM" if runtime.ask.high_memory else "SHAPE_DEFAULT",
        "runtimeProxyInfo": proxy,
        "runtimeVersionLabel": runtime.ask.version or version,
    }
    return {**listed, "notebookIdHash": runtime.nbh} if runtime.nbh else listed


def internal_user(account: Account, *, consumption: bool, count: int, rate: float, refill_at: float) -> dict[str, Any]:
    """Return the answer of ``/v1/user-info``; ``consumption`` adds what is used now."""
    info: dict[str, Any] = {
        "subscriptionTier": account.rules.internal,
        "paidComputeUnitsBalance": account.paid_units,
        "eligibleAccelerators": _models(_cards(account, True)),
        "ineligibleAccelerators": _models(_cards(account, False)),
    }
    if consumption:
        info |= {"consumptionRateHourly": rate, "assignmentsCount": count}
        if account.paid_units <= 0:
            # An int64 of ProtoJSON is a string; the other number is not one.
            left = str(int(account.free_milli_units))
            info["freeCcuQuotaInfo"] = {"remainingTokens": left, "nextRefillTimestampSec": int(refill_at)}
    return info


def public_runtime(
    runtime: Runtime, token: MintedToken, url: str, *, version: str, with_endpoint: bool
) -> dict[str, Any]:
    """Return a runtime as the public API does."""
    expires = dt.datetime.fromtimestamp(token.expires_at, dt.UTC)
    connection = {"url": url, "token": token.value, "expireTime": expires.strftime("%Y-%m-%dT%H:%M:%SZ")}
    if with_endpoint:
        connection["endpoint"] = runtime.endpoint
    return {
        "name": f"runtimes/{runtime.id}",
        "runtimeSpec": public_spec(runtime.ask),
        "version": runtime.ask.version or version,
        "connectionInfo": connection,
    }


def public_spec(ask: Ask) -> dict[str, str]:
    """Return a machine type in the public API's words."""
    return {
        "variant": ask.variant.public,
        "accelerator": ask.accelerator,
        "shape": "SHAPE_HIGHMEM" if ask.high_memory else "SHAPE_STANDARD",
    }


def _cards(account: Account, eligible: bool) -> dict[Variant, list[str]]:
    found: dict[Variant, list[str]] = {Variant.GPU: [], Variant.TPU: []}
    for name, card in CARDS.items():
        if card.variant is not Variant.CPU and (name in account.cards) == eligible:
            found[card.variant].append(name)
    return found


def _models(cards: Mapping[Variant, list[str]]) -> list[dict[str, Any]]:
    """Group cards by variant; a variant without any has no member, as ProtoJSON leaves empty lists out."""
    return [{"variant": variant.internal, "models": names} for variant, names in cards.items() if names]
