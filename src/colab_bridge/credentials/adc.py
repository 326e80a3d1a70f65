"""Application Default Credentials: what other Google tools of this machine sign in with.

Source: Google's AIP-4110 (where they are looked for) and AIP-4113 (user credentials). The metadata server of a machine
in Google's cloud is not asked: its account is a machine's, and Colab belongs to people.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from colab_bridge.credentials.access_cache import token_of
from colab_bridge.credentials.client_file import OAuthClient
from colab_bridge.credentials.failures import FailureKind, adc_error, failure_error, missing_error
from colab_bridge.credentials.grants import is_usable, needs_refresh
from colab_bridge.credentials.scopes import missing_scopes
from colab_bridge.credentials.service import RefusedError, SignInService
from colab_bridge.errors import AuthError, TransientError, UserError
from colab_bridge.model.credentials import AccessToken
from colab_bridge.model.runtime import Secret
from colab_bridge.ports.clock import Clock

__all__ = ["ADC_VARIABLES", "AdcFile", "AdcTokens", "adc_files"]

#: What decides where the files are.
ADC_VARIABLES: Final = ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG")
_MAX_FILE: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AdcFile:
    """A file that may hold such credentials.

    Attributes:
        path: Where it is.
        source: What names it, for people.
        named: Whether the user has named it, so that it must be usable.
    """

    path: Path
    source: str
    named: bool


def adc_files(env: Mapping[str, str], home: Path, platform: str = sys.platform) -> list[AdcFile]:
    """Return the files to look at, best first. Pure.

    Args:
        env: Environment variables.
        home: The user's home folder.
        platform: ``sys.platform`` of the machine.
    """
    found = []
    if named := env.get("GOOGLE_APPLICATION_CREDENTIALS", ""):
        found.append(AdcFile(path=Path(named), source="GOOGLE_APPLICATION_CREDENTIALS", named=True))
    if folder := env.get("CLOUDSDK_CONFIG", ""):
        gcloud = Path(folder)
    elif platform == "win32":
        gcloud = Path(env.get("APPDATA", "") or home / "AppData" / "Roaming") / "gcloud"
    else:
        gcloud = home / ".config" / "gcloud"
    path = gcloud / "application_default_credentials.json"
    found.append(AdcFile(path=path, source="gcloud's Application Default Credentials", named=False))
    return found


class AdcTokens:
    """Access tokens from such files, kept in memory.

    Args:
        clock: Time source.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[tuple[Path, float, frozenset[str]], AccessToken] = {}
        self._lock = anyio.Lock()

    async def token(
        self, files: list[AdcFile], service: SignInService, scopes: frozenset[str], stale: AccessToken | None
    ) -> AccessToken:
        """Return a token of the first file that is good enough.

        Args:
            files: As :func:`adc_files` returned them.
            service: Google's sign-in service.
            scopes: What the call needs.
            stale: A token that was refused.

        Raises:
            AuthError: none of them is; tells about the first one that is there.
            TransientError: the sign-in service does not answer.
            UserError: the file that the user named is not there or not usable.
        """
        refusal: AuthError | None = None
        for file in files:
            if not file.named and not file.path.is_file():
                continue
            try:
                token = await self._of_file(file, service, scopes, stale)
                if missing := missing_scopes(token.scopes, scopes):
                    raise missing_error(token.account, missing, source="adc")
                return token
            except AuthError as error:
                refusal = refusal or error
        raise refusal or adc_error("there are none")

    async def _of_file(
        self, file: AdcFile, service: SignInService, scopes: frozenset[str], stale: AccessToken | None
    ) -> AccessToken:
        info, changed_at = _read(file)
        user = info.get("type") == "authorized_user"
        # What a user allowed was fixed when they signed in; the others get what is asked for.
        key = (file.path, changed_at, frozenset() if user else scopes)
        async with self._lock:
            kept, now = self._kept.get(key), self._clock.time()
            if kept is not None and not needs_refresh(kept, now, stale):
                return kept
            try:
                token = await (self._user(info, file, service) if user else _other(info, file, service, scopes))
            except TransientError:
                if kept is not None and is_usable(kept, now, stale):
                    return kept
                raise
            self._kept[key] = token
            return token

    async def _user(self, info: dict[str, Any], file: AdcFile, service: SignInService) -> AccessToken:
        client_id, refresh = info.get("client_id"), info.get("refresh_token")
        if not all(isinstance(value, str) and value for value in (client_id, refresh)):
            raise _unusable(file, "lacks client_id or refresh_token")
        asked_at = self._clock.time()
        client = OAuthClient(client_id=str(client_id), secret=Secret(str(info.get("client_secret") or "")))
        try:
            grant = await service.refresh(client, Secret(str(refresh)))
        except RefusedError as error:
            if error.failure.kind is FailureKind.TEMPORARY:
                raise failure_error(error.failure, "") from error
            raise adc_error(error.failure.text or str(error.failure.kind)) from error
        account, scopes = "", grant.scopes
        try:
            told = await service.inspect(grant.access)
        except TransientError:
            told = None  # only the name is missing then
        if told is not None:
            account, scopes = told.email, scopes or told.scopes
        token = token_of(grant, account=account, scopes=scopes, asked_at=asked_at, source=file.source)
        quota = info.get("quota_project_id")
        return token if not isinstance(quota, str) else _with_quota(token, quota)


def _with_quota(token: AccessToken, quota: str) -> AccessToken:
    return replace(token, quota_project=quota) if quota.isascii() and quota.isprintable() else token


async def _other(info: dict[str, Any], file: AdcFile, service: SignInService, scopes: frozenset[str]) -> AccessToken:
    """Have google-auth make a token: of a service account, or by impersonating one."""
    # Here, because google-auth takes 100 ms that hardly any user needs.
    from colab_bridge.credentials.adc_library import library_token

    def make() -> AccessToken:
        return library_token(info, scopes=scopes, source=file.source, urls=service.urls)

    return await anyio.to_thread.run_sync(make, abandon_on_cancel=True)


def _read(file: AdcFile) -> tuple[dict[str, Any], float]:
    try:
        with file.path.open("rb") as opened:
            changed_at = os.fstat(opened.fileno()).st_mtime
            value = json.loads(opened.read(_MAX_FILE))
    except OSError as error:
        raise _unusable(file, f"cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise _unusable(file, "is not JSON") from error
    if not isinstance(value, dict):
        raise _unusable(file, "is not JSON of credentials")
    return value, changed_at


def _unusable(file: AdcFile, reason: str) -> UserError:
    return UserError(
        f"{file.path} ({file.source}) {reason}",
        hint="correct or unset GOOGLE_APPLICATION_CREDENTIALS, or sign in: colab-bridge auth login"
        if file.named
        else "make it anew with gcloud auth application-default login, or sign in: colab-bridge auth login",
        code="CB-USER-074",
    )
