"""``colab-bridge gpus``."""

from __future__ import annotations

from typing import Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.root import json_option
from colab_bridge.model.hardware import ACCELERATORS

__all__ = ["gpus"]


@click.command()
@json_option
@click.pass_obj
def gpus(invocation: Invocation) -> None:
    """See which GPUs and TPUs the account may have, and what they cost.

    Rates are compute units an hour. Google tells one figure for all runtimes together, so a rate is known here once a
    machine of that kind ran alone.
    """
    invocation.doing = "asking Colab"
    found = invocation.client().post("/v1/account/offers", {"env": invocation.environment()})
    invocation.console.clear_progress()
    if invocation.as_json:
        invocation.console.json(found)
        return
    tier = f", {found['tier']}" if found.get("tier") else ""
    invocation.console.note(f"account {found.get('account') or 'unknown'}{tier}")
    invocation.console.table(("name", "kind", "may be had", "units/h", "ask for it"), _rows(found))


def _rows(found: dict[str, Any]) -> list[list[object]]:
    rates = found.get("rates") or {}
    rows: list[list[object]] = [["CPU", "cpu", "yes", _rate(rates.get("")), "--provider colab"]]
    for name in [*(found.get("eligible") or []), *(found.get("ineligible") or [])]:
        card = ACCELERATORS.get(name)
        kind = card.kind if card else "?"
        may = "yes" if name in (found.get("eligible") or []) else "no"
        rows.append([name, kind, may, _rate(rates.get(name)), f"--{kind} {name}" if card and may == "yes" else ""])
    return rows


def _rate(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, (int, float)) else "not seen yet"
