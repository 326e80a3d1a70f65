"""``colab-bridge whoami``: which Google account would be used, asked of Google."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.root import json_option
from colab_bridge.cli.sign_in import open_credentials

if TYPE_CHECKING:
    from colab_bridge.credentials.manager import Credentials
    from colab_bridge.model.credentials import AccessToken

__all__ = ["whoami"]


@click.command()
@click.option("--account", default="", metavar="NAME", help="Another account than the one in use here.")
@json_option
@click.pass_obj
def whoami(invocation: Invocation, account: str) -> None:
    """Show which Google account would be used here, and ask Google whether it still can be."""
    import anyio

    credentials, settings = open_credentials(invocation)
    token, checked = anyio.run(_ask, credentials, account or settings.account)
    if invocation.as_json:
        invocation.console.json(_view(token, checked))
        return
    invocation.console.out(f"{token.account or 'unknown account'}\n")
    invocation.console.hint(f"from: {token.source}; allowed: {_allowed(token)}")
    if not checked:
        invocation.console.note("not checked: Google's sign-in service does not answer")


async def _ask(credentials: Credentials, account: str) -> tuple[AccessToken, bool]:
    """Return a token that Google has just accepted, and true; or the one at hand, and false, when nobody answers."""
    from dataclasses import replace

    from colab_bridge.credentials.failures import ended_error
    from colab_bridge.errors import TransientError

    service = credentials.service()
    token = await credentials.token(account=account, scopes=frozenset())
    for _ in range(2):
        try:
            found = await service.inspect(token.value)
        except TransientError:
            return token, False
        if found is not None:
            known = replace(token, account=found.email or token.account, scopes=found.scopes or token.scopes)
            return known, True
        token = await credentials.token(account=account, scopes=frozenset(), stale=token)
    raise ended_error(token.account, "revoked")


def _allowed(token: AccessToken) -> str:
    from colab_bridge.credentials.scopes import short_scope

    return ", ".join(sorted(short_scope(scope) for scope in token.scopes)) or "unknown"


def _view(token: AccessToken, checked: bool) -> dict[str, Any]:
    return {
        "account": token.account or None,
        "source": token.source,
        "scopes": sorted(token.scopes),
        "expires_at": token.expires_at,
        "checked": checked,
    }
