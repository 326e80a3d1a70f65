"""Runtimes that another program opens, as a browser does."""

from __future__ import annotations

import json
import uuid

import httpx2

from colab_bridge.testing.colab.identity import ALL_SCOPES
from colab_bridge.testing.colab.threaded import ThreadedEmulator

__all__ = ["opened_in_a_browser"]

_START_S = 60.0
_PREFIX = ")]}'\n"


def opened_in_a_browser(colab: ThreadedEmulator, account: str) -> str:
    """Make a CPU runtime of an account, and return its id."""
    grant = colab.identity.access_token(account=account, scopes=ALL_SCOPES, ttl_s=None)
    colab.state.account(account)
    headers = {"Authorization": f"Bearer {grant.value}", "X-Colab-Client-Agent": "web", "Accept": "application/json"}
    params = {"nbh": uuid.uuid4().hex.ljust(44, "."), "authuser": "0"}
    url = f"{colab.env()['COLAB_BRIDGE_COLAB_URL']}/tun/m/assign"
    with httpx2.Client(trust_env=False, params=params, headers=headers, timeout=_START_S) as client:
        ticket = json.loads(client.get(url).text.removeprefix(_PREFIX))["token"]
        made = client.post(url, headers={"X-Goog-Colab-Token": ticket})
    return str(json.loads(made.text.removeprefix(_PREFIX))["endpoint"])
