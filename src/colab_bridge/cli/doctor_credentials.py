"""What ``doctor`` says about signing in: who is, whether that still holds, and where secrets are kept. Asks nobody."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from colab_bridge.cli.doctor_checks import Check, Machine, Status
from colab_bridge.credentials.choice import SourceKind
from colab_bridge.credentials.failures import ended_error
from colab_bridge.credentials.manager import Credentials, Standing
from colab_bridge.credentials.scopes import box_names
from colab_bridge.errors import AuthError, ColabBridgeError
from colab_bridge.model.credentials import DRIVE_SCOPES

if TYPE_CHECKING:
    from colab_bridge.credentials.accounts import Account

__all__ = ["check_credentials"]

#: No secret has this name, so that reading it shows whether the place can be read at all.
_PROBE = "doctor"


def check_credentials(machine: Machine) -> list[Check]:
    """Say which account would be used here, what it allowed, and which place for secrets is live."""
    settings = machine.resolved.settings if machine.resolved else None
    store = settings.credential_store if settings else "auto"
    credentials = Credentials(machine.paths, machine.environ, store=store)
    return [_account(credentials, settings.account if settings else ""), _place(credentials)]


def _account(credentials: Credentials, account: str) -> Check:
    try:
        standing = anyio.run(credentials.standing, account)
    except ColabBridgeError as error:  # a file of ours that is damaged
        return Check(id="account", status=Status.FAIL, text=error.message, fix=error.hint)
    if standing.source is SourceKind.LOGIN:
        return _login(standing.accounts.accounts[standing.account], len(standing.accounts.accounts))
    return Check(id="account", status=Status.OK, text=_without_login(standing, account))


def _without_login(standing: Standing, account: str) -> str:
    if standing.source is SourceKind.GIVEN:
        return "Google account: that of the token in COLAB_BRIDGE_ACCESS_TOKEN"
    if standing.source is SourceKind.ADC:
        return f"Google account: that of {standing.adc[0].source}"
    # Colab is one of several kinds of runtime, so this is no fault.
    wanted = f"{account} is not signed in" if account else "nobody is signed in"
    return f"Google account: {wanted}; needed for Colab alone (colab-bridge auth login)"


def _login(account: Account, count: int) -> Check:
    more = f"; {count} are signed in" if count > 1 else ""
    if account.ended:
        problem = ended_error(account.email, account.ended)
        return Check(
            id="account", status=Status.WARN, text=f"Google account: {problem.message}{more}", fix=problem.hint
        )
    allowed = box_names(account.scopes & DRIVE_SCOPES)
    return Check(id="account", status=Status.OK, text=f"Google account: {account.email}, allowed: {allowed}{more}")


def _place(credentials: Credentials) -> Check:
    try:
        kind, place = anyio.run(credentials.vaults.place)
        anyio.run(partial(credentials.vaults.get, kind, _PROBE))
    except AuthError as error:
        return Check(id="secrets", status=Status.WARN, text=f"secrets: {error.message}", fix=error.hint)
    return Check(id="secrets", status=Status.OK, text=f"secrets are kept in the {place}")
