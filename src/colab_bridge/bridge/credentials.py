"""Signing in to Google from a program or a notebook."""

from __future__ import annotations

import os
import threading
import webbrowser
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from colab_bridge.config.paths import Paths
from colab_bridge.config.project import find_root
from colab_bridge.config.settings import Settings, load_settings
from colab_bridge.credentials.accounts import Account
from colab_bridge.credentials.choice import SourceKind
from colab_bridge.credentials.client_file import read_client
from colab_bridge.credentials.manager import Credentials
from colab_bridge.credentials.sign_in import DEFAULT_TIMEOUT_S, SignIn, Wish
from colab_bridge.errors import AuthError, UserError
from colab_bridge.model.credentials import COLAB_SCOPES, DRIVE_SCOPES

__all__ = ["CredentialManager"]

_T = TypeVar("_T")


class CredentialManager:
    """Who is signed in to Google on this machine; the same accounts as those of ``colab-bridge auth``.

    Args:
        folder: Working folder, whose project may choose an account; the current one when omitted.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._project = find_root(Path(folder or Path.cwd()).resolve())

    def setup_credentials(
        self,
        client: str | os.PathLike[str] | None = None,
        *,
        drive: bool = False,
        account: str = "",
        browser: bool = True,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        ask: Callable[[str], str] = input,
    ) -> str:
        """Make sure that Colab can be used, and return the e-mail address of the account; empty when unknown.

        What is there already (an access token in the environment, a sign-in, Application Default Credentials) is used
        without a question. Otherwise Google's page is opened.

        Args:
            client: JSON file of the user's own OAuth client, of type Desktop app; remembered, so it is given once.
            drive: Also ask for Drive files of this app.
            account: E-mail address or short name; the one in use when empty.
            browser: Whether to open a browser. Without one the address is printed, and the address that the browser
                ends at is asked for.
            timeout_s: Seconds that the user has to agree.
            ask: Asks the user for a line, only without a browser.

        Raises:
            AuthError: the user did not agree, or not to what is needed.
            UserError: there is no OAuth client yet.
        """
        scopes = DRIVE_SCOPES if drive else COLAB_SCOPES
        name = account or self._settings().account
        if client is None:
            try:
                return _wait(partial(self._there, name, scopes))
            except AuthError as error:
                if self._cannot_ask():
                    raise error from None
        wish = Wish(scopes=scopes, account=self._address(name), current=not name, timeout_s=timeout_s)
        return _wait(partial(self._ask, client, wish, _Notebook(browser=browser, ask=ask)))

    def accounts(self) -> list[Account]:
        """Return the accounts that are signed in, in the order of signing in."""
        return list(self._credentials().accounts().accounts.values())

    @property
    def current(self) -> str:
        """E-mail address of the account in use; empty when nobody is signed in."""
        return self._credentials().accounts().current

    def use(self, account: str) -> str:
        """Use an account from now on, and return its e-mail address.

        Args:
            account: E-mail address or short name.

        Raises:
            AuthError: it is not signed in.
        """
        return self._credentials().use(account).email

    def sign_out(self, account: str = "", *, revoke: bool = False) -> str:
        """Forget an account on this machine, and return its e-mail address.

        Args:
            account: E-mail address or short name; the one in use when empty.
            revoke: Also take back at Google what was allowed.

        Raises:
            AuthError: it is not signed in.
            TransientError: Google does not answer; nothing was forgotten then.
        """
        return _wait(partial(self._credentials().sign_out, account, revoke=revoke)).email

    # -- the work --------------------------------------------------------------------------------------------

    def _settings(self) -> Settings:
        return load_settings(self._paths(), self._project, os.environ).settings

    def _paths(self) -> Paths:
        return Paths.from_env(os.environ)

    def _credentials(self) -> Credentials:
        return Credentials(self._paths(), os.environ, store=self._settings().credential_store)

    async def _there(self, account: str, scopes: frozenset[str]) -> str:
        return (await self._credentials().token(account=account, scopes=scopes)).account

    def _cannot_ask(self) -> bool:
        """Whether a token of the environment is what is at fault, which no sign-in would change."""
        return _wait(self._credentials().standing).source is SourceKind.GIVEN

    def _address(self, name: str) -> str:
        if not name:
            return ""
        try:
            return self._credentials().find(name).email
        except AuthError:
            return name  # a new one

    async def _ask(self, client: str | os.PathLike[str] | None, wish: Wish, face: _Notebook) -> str:
        credentials, settings = self._credentials(), self._settings()
        named = client or settings.oauth_client
        found = read_client(Path(named).expanduser()) if named else await credentials.client()
        if found is None:
            raise UserError(
                "signing in needs an OAuth client of your own (how: docs/how-to/sign-in.md)",
                hint="setup_credentials(client='client_secret.json')",
                code="CB-USER-079",
            )
        return (await SignIn(credentials).ask(found, wish, face)).account.email


class _Notebook:
    """Talks to the user of a program or a notebook: by printing, and by whatever asks there."""

    def __init__(self, *, browser: bool, ask: Callable[[str], str]) -> None:
        self._browser = browser
        self._ask = ask

    def show(self, url: str) -> None:
        """Print the page's address and open it."""
        print(f"Open this page and agree:\n{url}")  # noqa: T201  # a program's user is asked something
        if self._browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    async def pasted(self) -> str | None:
        """Ask for the address that the browser ended at; only without a browser."""
        if self._browser:
            return None
        return await anyio.to_thread.run_sync(
            self._ask, "the whole address that the browser ended at: ", abandon_on_cancel=True
        )

    def complain(self, text: str) -> None:
        """Print why an answer is of no use."""
        print(text)  # noqa: T201  # see above


def _wait(call: Callable[[], Awaitable[_T]]) -> _T:
    """Run a coroutine to its end in a thread of its own, so that it also works where a loop runs, as in notebooks."""
    with anyio.from_thread.start_blocking_portal() as portal:
        return portal.call(call)
