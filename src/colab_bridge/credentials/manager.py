"""Access tokens from whatever there is to sign in with, always fresh, and who is signed in.

All state is in files and the keychain, so any number of processes may have one of these: daemon, commands, programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from colab_bridge.config.paths import Paths
from colab_bridge.config.services import SERVICE_VARIABLES, service_urls
from colab_bridge.credentials.accounts import Account, AccountBook, AccountList
from colab_bridge.credentials.adc import ADC_VARIABLES, AdcFile, AdcTokens, adc_files
from colab_bridge.credentials.choice import Choice, Situation, SourceKind, choose, resolve_name
from colab_bridge.credentials.client_file import OAuthClient, is_foreign
from colab_bridge.credentials.failures import nobody_error, unknown_account_error
from colab_bridge.credentials.given import CallerTokens
from colab_bridge.credentials.logins import LoginSecrets, LoginTokens
from colab_bridge.credentials.service import SignInService
from colab_bridge.credentials.vaults import PASSPHRASE_VARIABLE, StoreChoice, Vaults, credentials_dir
from colab_bridge.errors import AuthError
from colab_bridge.model.credentials import COLAB_SCOPES, AccessToken
from colab_bridge.model.runtime import Secret
from colab_bridge.ports.clock import Clock, SystemClock

__all__ = ["Credentials", "Standing"]

_CLIENT_ITEM: Final = "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What there is to sign in with; nobody was asked.

    Attributes:
        accounts: Who is signed in.
        source: Where a token would come from now; None when from nowhere.
        account: Whose it would be; empty when unknown.
        adc: The files with Application Default Credentials that are there.
        place: Where new secrets are kept, a sentence.
    """

    accounts: AccountList
    source: SourceKind | None
    account: str
    adc: tuple[AdcFile, ...]
    place: str


class Credentials:
    """The :class:`~colab_bridge.ports.credentials.TokenSource` of this machine's user.

    Args:
        paths: Our folders.
        environ: Environment of this process; callers bring their own, see :meth:`learn`.
        store: Where new secrets go: ``keychain``, ``file``, or ``auto`` for the best there is.
        clock: Time source; the machine's own when omitted.
    """

    def __init__(
        self, paths: Paths, environ: Mapping[str, str], *, store: StoreChoice = "auto", clock: Clock | None = None
    ) -> None:
        self._paths = paths
        self._clock = clock or SystemClock()
        self._env: dict[str, str] = {}
        # Of this process alone: a token must not go wherever some caller's environment says.
        self._addresses = {name: environ[name] for name in SERVICE_VARIABLES if name in environ}
        self._service: SignInService | None = None
        folder = credentials_dir(paths)
        self._folder = folder
        self.vaults = Vaults(paths, store, self._passphrase)
        self._book = AccountBook(folder / "accounts.json")
        self._given = CallerTokens(self._clock)
        self._adc = AdcTokens(self._clock)
        self._logins = LoginTokens(folder, self._book, self.vaults, self._clock)
        self._take(environ)
        self._given.learn(environ, default=True)

    def learn(self, env: Mapping[str, str]) -> None:
        """Take what the environment of a caller says about signing in, for everything that its request starts.

        An access token in it is remembered in memory only, so that work that outlives the request can go on with it.

        Args:
            env: As :func:`~colab_bridge.config.caller.caller_env` returned it.
        """
        self._take(env)
        self._given.learn(env)

    def _take(self, env: Mapping[str, str]) -> None:
        for name in (*ADC_VARIABLES, PASSPHRASE_VARIABLE):
            if env.get(name):
                self._env[name] = env[name]

    # -- tokens ----------------------------------------------------------------------------------------------

    async def token(
        self, *, account: str = "", scopes: frozenset[str] = COLAB_SCOPES, stale: AccessToken | None = None
    ) -> AccessToken:
        """Return a token, see :meth:`~colab_bridge.ports.credentials.TokenSource.token`.

        Args:
            account: E-mail address or short name.
            scopes: What the call needs.
            stale: A token that was refused.
        """
        service = self.service()
        await self._given.look(service)
        book = self._book.read()
        choice = self._choose(account, book)
        if choice.kind is SourceKind.GIVEN:
            return await self._given.token(choice.account, scopes, stale)
        if choice.kind is SourceKind.ADC:
            token = await self._adc.token(self._adc_files(), service, scopes, stale)
            if choice.account and token.account not in ("", choice.account):
                raise unknown_account_error(choice.account, [*book.accounts, token.account])
            return token
        return await self._logins.token(choice.account, service, scopes, stale)

    def _choose(self, account: str, book: AccountList) -> Choice:
        situation = Situation(
            given=self._given.accounts(),
            given_now=self._given.present(),
            logins=book.names(),
            current=book.current,
            adc=bool(self._adc_files()),
        )
        return choose(account, situation)

    def _adc_files(self) -> list[AdcFile]:
        return [file for file in adc_files(self._env, _home()) if file.named or file.path.is_file()]

    def service(self) -> SignInService:
        """Return Google's sign-in service, where the environment of this process says that it is.

        Raises:
            UserError: the environment names an address that is not usable.
        """
        if self._service is None:
            self._service = SignInService(service_urls(self._addresses))
        return self._service

    def _passphrase(self) -> Secret | None:
        value = self._env.get(PASSPHRASE_VARIABLE, "")
        return Secret(value) if value else None

    # -- who is signed in ------------------------------------------------------------------------------------

    def accounts(self) -> AccountList:
        """Return who is signed in.

        Raises:
            UserError: our file of accounts is damaged.
        """
        return self._book.read()

    def find(self, name: str) -> Account:
        """Return the account that an address, a short name or the beginning of either means; the one in use when empty.

        Raises:
            AuthError: it is not signed in.
            UserError: the name means more than one.
        """
        book = self._book.read()
        email = resolve_name(name, book.names()) if name else book.current
        if email not in book.accounts:
            raise unknown_account_error(name, book.accounts) if name else nobody_error()
        return book.accounts[email]

    def account(self, name: str = "") -> str:
        """Return whose token would be used, as far as that is known without asking anybody; empty when it is not.

        Args:
            name: The account that is meant; the one in use when empty.

        Raises:
            UserError: the name means more than one.
        """
        try:
            return self._choose(name, self._book.read()).account
        except AuthError:
            return ""

    def everybody(self) -> tuple[str, ...]:
        """Return all accounts that a token can be had for, the one in use first; empty where only a token tells."""
        return tuple(dict.fromkeys([self.account(), *self._book.read().accounts]))

    async def standing(self, account: str = "") -> Standing:
        """Return what there is to sign in with, without asking anybody.

        Args:
            account: The account that is meant; the one in use when empty.
        """
        book = self._book.read()
        try:
            choice: Choice | None = self._choose(account, book)
        except AuthError:
            choice = None
        try:
            _, place = await self.vaults.place()
        except AuthError as error:
            place = error.message
        return Standing(
            accounts=book,
            source=choice.kind if choice else None,
            account=choice.account if choice else "",
            adc=tuple(self._adc_files()),
            place=place,
        )

    def use(self, name: str) -> Account:
        """Make an account the one in use. Arguments and errors as for :meth:`find`."""
        account = self.find(name)
        self._book.use(account.email)
        return account

    async def keep(self, account: Account, secrets: LoginSecrets, token: AccessToken, *, current: bool) -> str:
        """Keep a sign-in.

        Args:
            account: Whose it is; where its secrets are is found out here.
            secrets: What keeps it going.
            token: Its first access token.
            current: Whether it is the account in use from now on.

        Returns:
            One sentence about where its secrets are when that is not the keychain; else empty.

        Raises:
            AuthError: no place takes its secrets.
        """
        self._prepare()
        before = self._book.read().accounts.get(account.email)
        kind, note = await self.vaults.put(account.item, secrets.to_text())
        if before is not None and before.store != kind:
            await self._forget_in(before)
        account = replace(account, store=kind, name=account.name or (before.name if before else ""))
        self._logins.remember(account, secrets, token)
        self._book.put(account, current=current)
        return note

    async def _forget_in(self, account: Account) -> None:
        try:
            await self.vaults.drop(account.store, account.item)
        except AuthError:
            return  # that place cannot be reached now; what lies there is not looked at any more

    async def sign_out(self, name: str, *, revoke: bool = False) -> Account:
        """Forget an account on this machine. At Google nothing changes, unless that is asked for.

        Args:
            name: Which one, as for :meth:`find`.
            revoke: Also have Google forget what the user allowed this OAuth client.

        Raises:
            AuthError: it is not signed in.
            TransientError: Google does not answer; nothing was forgotten then.
        """
        account = self.find(name)
        if revoke:
            secrets = await self._logins.secrets(account)
            await self.service().revoke(secrets.refresh)
        self._book.drop(account.email)
        self._logins.forget(account)
        await self._forget_in(account)
        return account

    # -- the user's own OAuth client ---------------------------------------------------------------------------

    async def client(self) -> OAuthClient | None:
        """Return the OAuth client that the user has given; None before.

        Raises:
            AuthError: its secret cannot be read from here.
        """
        book = self._book.read()
        text = await self.vaults.get(book.client_store, _CLIENT_ITEM) if book.client_id else None
        return OAuthClient(client_id=book.client_id, secret=Secret(text)) if text is not None else None

    async def client_of(self, email: str) -> OAuthClient | None:
        """Return the OAuth client that an account has signed in with; None when that is another product's, or unknown.

        Raises:
            AuthError: its secrets cannot be read from here.
        """
        account = self._book.read().accounts.get(email)
        if account is None or is_foreign(account.client_id):
            return None
        text = await self.vaults.get(account.store, account.item)
        secrets = LoginSecrets.from_text(text) if text is not None else None
        return secrets.client if secrets is not None else None

    async def remember_client(self, client: OAuthClient) -> None:
        """Keep the user's own OAuth client for the next time.

        Raises:
            AuthError: no place takes its secret.
        """
        self._prepare()
        kind, _ = await self.vaults.put(_CLIENT_ITEM, client.secret.reveal())
        self._book.remember_client(client.client_id, kind)

    def _prepare(self) -> None:
        self._paths.ensure()
        self._folder.mkdir(mode=0o700, exist_ok=True)


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no entry for this user and no HOME, as in some containers
        return Path("/nonexistent")
