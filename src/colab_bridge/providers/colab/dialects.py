"""The three dialects of Colab's control plane, read into one vocabulary. Pure.

==========  ==============================  ===================================  =============================
concept     session backend ``/tun/m``      internal API ``/v1``                 public API ``/v1beta``
==========  ==============================  ===================================  =============================
GPU         ``"GPU"`` or ``1``              ``VARIANT_GPU``                      ``VARIANT_GPU``
CPU         ``"DEFAULT"`` or ``0``          ``VARIANT_UNSPECIFIED``              ``VARIANT_CPU``
high memory ``1``                           ``SHAPE_HIGH_MEM``                   ``SHAPE_HIGHMEM``
lifetime    ``tokenExpiresInSeconds: 3600`` ``tokenTtl: "3600s"``                ``expireTime``, RFC 3339
==========  ==============================  ===================================  =============================

A name that is not known is kept as it is: new cards appear in answers before they appear in clients.

Source: Google's public clients for Colab, and the reference of the Colab API, revision 20260802.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable
from typing import Literal
from urllib.parse import urlsplit

from colab_bridge.model.account import Balance, Offers, Propagation
from colab_bridge.model.hardware import ACCELERATORS, Hardware
from colab_bridge.model.runtime import Secret
from colab_bridge.providers.colab.foreign import Fields, ProtocolChangedError, jwt_claims
from colab_bridge.providers.colab.values import Assignment, Proxy, Ticket, is_endpoint_id

__all__ = [
    "DEFAULT_TTL_S",
    "read_assign",
    "read_assignment",
    "read_assignments",
    "read_balance",
    "read_consent",
    "read_offers",
    "read_outcome",
    "read_proxy",
    "read_runtime",
    "read_runtimes",
    "read_specs",
    "read_ticket",
    "read_tier",
]

Kind = Literal["cpu", "gpu", "tpu"]
Reader = Callable[[Fields, float], Assignment]

#: Life of a proxy token where an answer names none that makes sense, as Google's own extension assumes.
DEFAULT_TTL_S = 3600.0
_MOST_TTL_S = 86_400.0
_TTL = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
_KINDS: dict[object, Kind] = {0: "cpu", 1: "gpu", 2: "tpu", "DEFAULT": "cpu", "GPU": "gpu", "TPU": "tpu"}
_TIERS = {"NONE": "free", "UNSPECIFIED": "free", "FREE": "free", "PRO": "pro", "PRO_PLUS": "pro+"}
#: A free allowance is counted in thousandths of a compute unit.
_MILLI = 1000.0


# -- session backend and internal API ------------------------------------------------------------------------------


def read_outcome(answer: Fields) -> int | None:
    """Return the outcome of an assign answer; to be read before anything else, since a refusal holds nothing else."""
    number = answer.number("outcome")
    return int(number) if number is not None else None


def read_assign(answer: Fields) -> Ticket | Assignment:
    """Read the answer to a GET: either a runtime that is there, or leave to ask for one.

    Raises:
        ProtocolChangedError: it is neither.
    """
    if answer.has("endpoint"):
        return read_assignment(answer, now=0.0)
    return Ticket(xsrf=read_ticket(answer))


def read_ticket(answer: Fields) -> Secret:
    """Return what a POST to the same address must carry.

    Raises:
        ProtocolChangedError: there is none.
    """
    return Secret(_header_text(answer, "token"))


def read_assignments(answer: Fields, now: float) -> list[Assignment]:
    """Read a listing, in the dialect of either service; an entry that cannot be read does not hide the others.

    Args:
        answer: The document.
        now: Unix seconds.

    Raises:
        ProtocolChangedError: entries are there, and none of them can be read.
    """
    return _readable([*answer.each("assignments")], now, read_assignment)


def read_assignment(answer: Fields, now: float) -> Assignment:
    """Read one runtime.

    Raises:
        ProtocolChangedError: it has no usable id, or a way in that is none.
    """
    endpoint = answer.text("endpoint")
    if not is_endpoint_id(endpoint):
        raise ProtocolChangedError(f"{answer.where}.endpoint")
    proxy = answer.maybe("runtimeProxyInfo")
    return Assignment(
        endpoint=endpoint,
        hardware=_hardware(answer, shape="machineShape"),
        proxy=read_proxy(proxy, now) if proxy is not None else None,
        nbh=answer.word("notebookIdHash"),
        version=answer.word("runtimeVersionLabel"),
    )


def read_proxy(answer: Fields, now: float) -> Proxy:
    """Read a way in, in any dialect.

    Args:
        answer: The object that holds address and token.
        now: Unix seconds, for the dialect that gives a point in time.

    Raises:
        ProtocolChangedError: address or token are missing or cannot be used.
    """
    return Proxy(url=_proxy_url(answer), token=Secret(_header_text(answer, "token")), ttl_s=_ttl(answer, now))


def _proxy_url(answer: Fields) -> str:
    url = answer.text("url")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
        usable = usable and url.isascii() and url.isprintable() and " " not in url and not parts.query
    except ValueError:
        usable = False
    # The token goes there: in the open only on this machine, where an emulator lives.
    if not usable or (parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1")):
        raise ProtocolChangedError(f"{answer.where}.url")
    return url.rstrip("/")


def _header_text(answer: Fields, name: str) -> str:
    # It becomes the value of a header.
    text = answer.text(name)
    if not text.isascii() or not text.isprintable() or len(text) > 16_384:
        raise ProtocolChangedError(f"{answer.where}.{name}")
    return text


def _ttl(answer: Fields, now: float) -> float:
    seconds = answer.number("tokenExpiresInSeconds")
    if seconds is None and (found := _TTL.fullmatch(answer.word("tokenTtl"))):
        seconds = float(found.group(1))
    if seconds is None and answer.has("expireTime"):
        seconds = _expiry(answer.word("expireTime"), now)
    if seconds is None or not 0 < seconds <= _MOST_TTL_S:
        return DEFAULT_TTL_S
    return seconds


def _expiry(text: str, now: float) -> float | None:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.timestamp() - now


def _hardware(answer: Fields, *, shape: str) -> Hardware | None:
    name = answer.word("accelerator").upper()
    accelerator = "" if name in ("NONE", "ACCELERATOR_UNSPECIFIED") else name
    kind = _kind(answer)
    if kind is None:
        card = ACCELERATORS.get(accelerator)
        if card is None and not name:
            return None  # the answer says nothing about the machine
        kind = card.kind if card else ("gpu" if accelerator else "cpu")
    return Hardware(kind=kind, accelerator=accelerator, high_memory=_is_high_memory(answer.values.get(shape)))


def _kind(answer: Fields) -> Kind | None:
    value = answer.values.get("variant")
    if isinstance(value, str):
        word = value.upper().removeprefix("VARIANT_")
        return "cpu" if word in ("UNSPECIFIED", "CPU") else _KINDS.get(word)
    return _KINDS.get(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _is_high_memory(value: object) -> bool:
    if isinstance(value, str):
        return value.upper().replace("_", "").endswith("HIGHMEM") or value == "hm"
    return value in (1, 2)  # 2: very high, no longer given


def read_balance(ccu: Fields, user_info: Fields | None = None) -> Balance:
    """Read what is left: compute units of the session backend, completed by the internal API where it answers."""
    units, free, refill = ccu.number("currentBalance"), None, None
    if user_info is not None:
        paid = user_info.number("paidComputeUnitsBalance")
        units = paid if units is None else units
        if quota := user_info.maybe("freeCcuQuotaInfo"):
            tokens = quota.number("remainingTokens")
            free = tokens / _MILLI if tokens is not None else None
            refill = quota.number("nextRefillTimestampSec")
    count = ccu.number("assignmentsCount")
    return Balance(
        units=units,
        rate_hourly=ccu.number("consumptionRateHourly"),
        runtimes=int(count) if count is not None else None,
        free_units=free,
        next_refill_at=refill,
    )


def read_offers(ccu: Fields, user_info: Fields | None = None) -> Offers:
    """Read what the account may have: compute units of the session backend, and the internal API's tier."""
    eligible = _each_once([*ccu.words("eligibleGpus"), *ccu.words("eligibleTpus")])
    ineligible = _each_once([*ccu.words("ineligibleGpus"), *ccu.words("ineligibleTpus")])
    tier = ""
    if user_info is not None:
        tier = read_tier(user_info.word("subscriptionTier"))
        eligible = eligible or _models(user_info, "eligibleAccelerators")
        ineligible = ineligible or _models(user_info, "ineligibleAccelerators")
    return Offers(tier=tier, eligible=eligible, ineligible=ineligible)


def _models(user_info: Fields, name: str) -> tuple[str, ...]:
    return _each_once(model for entry in user_info.each(name) for model in entry.words("models"))


def _each_once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name != "NONE"))


def read_tier(text: str) -> str:
    """Return the name of a subscription as people know it; an unknown one in lower case, empty when there is none."""
    word = text.upper().removeprefix("SUBSCRIPTION_TIER_")
    return _TIERS.get(word, word.lower())


def read_consent(answer: Fields, *, loopback: bool) -> Propagation:
    """Read the answer to a propagation of credentials.

    Args:
        answer: The document.
        loopback: Whether the service is an emulator on this machine, whose page may be so too.

    Raises:
        ProtocolChangedError: it says neither yes nor no, or names a page that must not be opened.
    """
    if not isinstance(answer.values.get("success"), bool):
        raise ProtocolChangedError(f"{answer.where}.success")
    url = answer.values.get("unauthorized_redirect_uri")
    if answer.flag("success") or not url:
        return Propagation(granted=answer.flag("success"))
    if not isinstance(url, str) or not _may_be_opened(url, loopback=loopback):
        raise ProtocolChangedError(f"{answer.where}.unauthorized_redirect_uri")
    return Propagation(granted=False, consent_url=url)


def _may_be_opened(url: str, *, loopback: bool) -> bool:
    """Whether a person may be sent there: a page of Google's, since they will sign in on it."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if not url.isascii() or not url.isprintable() or " " in url or parts.username is not None or "\\" in url:
        return False
    if loopback and host in ("127.0.0.1", "localhost", "::1"):
        return parts.scheme in ("http", "https")
    return parts.scheme == "https" and (host == "google.com" or host.endswith(".google.com"))


# -- public API ----------------------------------------------------------------------------------------------------


def read_runtimes(answer: Fields, now: float) -> list[Assignment]:
    """Read a listing of the public API; entries that cannot be used are left out as its own clients do.

    Raises:
        ProtocolChangedError: entries are there, and none of them can be read.
    """
    return _readable([*answer.each("runtimes")], now, read_runtime)


def read_runtime(answer: Fields, now: float) -> Assignment:
    """Read one runtime of the public API.

    Raises:
        ProtocolChangedError: it has no usable name.
    """
    name = answer.text("name")
    if not name.startswith("runtimes/") or not is_endpoint_id(name.removeprefix("runtimes/")):
        raise ProtocolChangedError(f"{answer.where}.name")
    connection, spec = answer.maybe("connectionInfo"), answer.maybe("runtimeSpec")
    proxy = read_proxy(connection, now) if connection is not None and connection.has("token") else None
    endpoint = connection.word("endpoint") if connection is not None else ""
    if not endpoint and proxy is not None:
        # The public API may keep the id to itself; the token was made for the same machine.
        endpoint = jwt_claims(proxy.token.reveal()).word("aud")
    return Assignment(
        endpoint=endpoint if is_endpoint_id(endpoint) else "",
        name=name,
        hardware=_hardware(spec, shape="shape") if spec is not None else None,
        proxy=proxy,
        version=answer.word("version"),
    )


def read_specs(answer: Fields) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the accelerators that the account may have, and those that it may not have."""
    allowed: list[str] = []
    refused: list[str] = []
    for entry in answer.each("runtimeSpecs"):
        hardware = _hardware(entry.maybe("key") or entry, shape="shape")
        if hardware is not None and hardware.accelerator:
            (allowed if entry.flag("eligible") else refused).append(hardware.accelerator)
    return _each_once(allowed), _each_once(name for name in refused if name not in allowed)


def _readable(entries: list[Fields], now: float, read: Reader) -> list[Assignment]:
    found: list[Assignment] = []
    first: ProtocolChangedError | None = None
    for entry in entries:
        try:
            found.append(read(entry, now))
        except ProtocolChangedError as error:
            first = first or error
    if first is not None and not found:
        raise first
    return found
