"""One user with a home, the emulated sign-in service, and a browser that does what a test says."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2

from colab_bridge.config.paths import Paths
from colab_bridge.credentials.client_file import OAuthClient
from colab_bridge.credentials.manager import Credentials
from colab_bridge.credentials.sign_in import SignedIn, SignIn, Wish
from colab_bridge.model.runtime import Secret
from colab_bridge.testing.colab import ColabEmulator, EmulatorOptions, emulator

EMAIL = "dev@example.com"
CLIENT = OAuthClient(client_id="407408718192-emulator.apps.googleusercontent.com", secret=Secret("GOCSPX-emulator"))


@dataclass
class Browser:
    """Opens the page and follows it, as a person's browser does; ``before`` gets the address that brings the answer."""

    before: Callable[[str], Any] | None = None
    follow: bool = True
    texts: list[str] = field(default_factory=list)
    pastes: list[str | Callable[[str], str]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    pages: list[httpx2.Response] = field(default_factory=list)
    url: str = ""
    opened: anyio.Event = field(default_factory=anyio.Event)
    target: str = ""

    def show(self, url: str) -> None:
        self.url = url
        self.opened.set()

    async def pasted(self) -> str | None:
        await self.opened.wait()
        if self.follow and not self.pages:
            await self.browse()
        if not self.pastes:
            return None
        text = self.pastes.pop(0)
        return text if isinstance(text, str) else text(await self.answer_address())

    def complain(self, text: str) -> None:
        self.complaints.append(text)

    async def answer_address(self) -> str:
        """Agree on the page, and return where the browser is sent."""
        if not self.target:
            async with httpx2.AsyncClient(trust_env=False) as client:
                got = await client.get(self.url)
            assert got.status_code == 302, got.text
            self.target = got.headers["location"]
        return self.target

    async def browse(self) -> None:
        target = await self.answer_address()
        async with httpx2.AsyncClient(trust_env=False) as client:
            if self.before is not None:
                await self.before(target)
            self.pages.append(await client.get(target))

    def asked(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.url).query).items()}


@dataclass
class Desk:
    """The user.

    Attributes:
        colab: The service.
        paths: Their folders.
        home: What they call home: gcloud and google-colab-cli keep their files below it.
    """

    colab: ColabEmulator
    paths: Paths
    home: Path

    def credentials(self, **environ: str) -> Credentials:
        """Return what a process of theirs would see; each call is another process."""
        env = {**self.colab.urls, "CLOUDSDK_CONFIG": str(self.home / "gcloud"), **environ}
        return Credentials(self.paths, env, store="file", clock=self.colab.clock)

    async def sign_in(self, browser: Browser | None = None, **wish: Any) -> SignedIn:
        made = Wish(**{"timeout_s": 10.0, **wish})
        return await SignIn(self.credentials(), self.colab.clock).ask(CLIENT, made, browser or Browser())

    def token_calls(self) -> int:
        """Return how often a token was asked for."""
        return sum(record.path == "/token" for record in self.colab.requests)

    def calls(self, path: str) -> int:
        return sum(record.path == path for record in self.colab.requests)

    def everything_on_disk(self) -> bytes:
        """Return the bytes of every file below the home, names included."""
        found = b""
        for folder, _, names in os.walk(self.paths.state_dir.parent):
            for name in names:
                found += name.encode() + b"\n" + Path(folder, name).read_bytes() + b"\n"
        return found

    def secrets(self) -> list[str]:
        """Return every token and code that the service has ever handed out."""
        identity = self.colab.identity
        return [*identity.refreshes, *identity.accesses, *identity.codes]


@contextlib.asynccontextmanager
async def open_desk(folder: Path, **options: Any) -> AsyncIterator[Desk]:
    home = folder / "user"
    home.mkdir()
    async with emulator(EmulatorOptions(**options)) as colab:
        paths = Paths.from_env({"COLAB_BRIDGE_HOME": str(folder / "home")})
        yield Desk(colab, paths, home)
        # Of signing in alone: ports are used again, and a daemon of another test may still look for its machine here.
        assert [str(violation) for violation in colab.violations if violation.service == "oauth"] == []
