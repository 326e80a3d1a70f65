"""What the settings and flags of a runtime mean to Colab. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from colab_bridge.errors import UserError
from colab_bridge.model.hardware import CPU, Hardware, parse_ladder

__all__ = ["Wanted", "read_options"]

#: No kind of subscription keeps a runtime longer than a day, so nobody waits longer for one.
MOST_WAIT_S = 86_400.0
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}")
_ACCOUNT = re.compile(r"[^\s@]{1,100}@[^\s@]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a session wants.

    Attributes:
        ladder: Machine types, best first.
        version: Label of the image; empty for the newest.
        wait_s: Seconds that a free machine may be waited for.
        account: E-mail address; the account in use when empty.
        api: Which control plane is used.
    """

    ladder: tuple[Hardware, ...] = (CPU,)
    version: str = ""
    wait_s: float = 0.0
    account: str = ""
    api: Literal["v1", "v1beta"] = "v1"


def read_options(options: Mapping[str, Any]) -> Wanted:
    """Read a provider's options; no network is asked.

    Args:
        options: ``gpu`` or ``tpu`` (order of preference, ``A100,L4,T4``), ``high_mem``, ``runtime_version``,
            ``wait_s``, ``account``, ``api``; others are ignored.

    Raises:
        UserError: a name is unknown, or a value does not fit.
    """
    gpu, tpu = str(options.get("gpu") or ""), str(options.get("tpu") or "")
    high_memory = options.get("high_mem") is True
    if gpu and tpu:
        raise UserError("a runtime has a GPU or a TPU, not both", hint="give --gpu or --tpu", code="CB-USER-062")
    if gpu:
        ladder = parse_ladder(gpu, "gpu", high_memory=high_memory)
    elif tpu:
        ladder = parse_ladder(tpu, "tpu", high_memory=high_memory)
    else:
        ladder = (Hardware(high_memory=high_memory),)
    version, account = str(options.get("runtime_version") or ""), str(options.get("account") or "")
    if version and not _VERSION.fullmatch(version):
        raise UserError("this is no label of a runtime version", hint="write it like 2026.01", code="CB-USER-062")
    if account and not _ACCOUNT.fullmatch(account):
        raise UserError("this is no account", hint="give the e-mail address: --account me@example.com")
    wait_s = _wait(options.get("wait_s"))
    return Wanted(ladder=ladder, version=version, wait_s=wait_s, account=account, api=_api(options.get("api")))


def _api(value: object) -> Literal["v1", "v1beta"]:
    if not value or value == "v1":
        return "v1"
    if value == "v1beta":
        return "v1beta"
    raise UserError("there is no such interface of Colab", hint="api is v1 or v1beta", code="CB-USER-062")


def _wait(value: object) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise UserError("wait_s is no number of seconds", hint="write it like 7200, or --wait 2h", code="CB-USER-062")
    return min(float(value), MOST_WAIT_S)
