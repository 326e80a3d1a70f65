"""Renewal under everything that can happen in between: a model of the service, and random histories against it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.credentials.accounts import Account, AccountBook
from colab_bridge.credentials.client_file import OAuthClient
from colab_bridge.credentials.failures import Failure, FailureKind
from colab_bridge.credentials.grants import Grant
from colab_bridge.credentials.logins import LoginSecrets, LoginTokens
from colab_bridge.credentials.service import RefusedError
from colab_bridge.errors import AuthError, TransientError
from colab_bridge.model.credentials import COLAB_SCOPES, AccessToken
from colab_bridge.model.runtime import Secret

ADA = "ada@example.org"
CLIENT = OAuthClient(client_id="me", secret=Secret("s"))
LIFE_S = 3600.0


@dataclass
class Model:
    """Google as far as renewal goes, the clock, and the vault."""

    now: float = 1e9
    answers: str = "well"
    rotates: bool = False
    refreshes: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    valid: set[str] = field(default_factory=set)
    ends: dict[str, float] = field(default_factory=dict)

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    # -- the service

    async def refresh(self, client: OAuthClient, refresh: Secret) -> Grant:
        if self.answers == "not at all":
            raise TransientError("no answer", hint="wait")
        if self.answers == "badly":
            raise RefusedError(Failure(kind=FailureKind.TEMPORARY, status=503))
        if self.answers == "revoked" or refresh.reveal() != self.kept["r"]:
            raise RefusedError(Failure(kind=FailureKind.REVOKED, status=400))
        self.refreshes += 1
        value = f"ya29.{self.refreshes}"
        self.valid.add(value)
        self.ends[value] = self.now + LIFE_S
        rotated = None
        if self.rotates:
            rotated = Secret(f"1//{self.refreshes}")
            self.kept["r"] = rotated.reveal()
        return Grant(access=Secret(value), life_s=LIFE_S, scopes=COLAB_SCOPES, refresh=rotated)

    # -- the vault

    async def get(self, kind: str, name: str) -> str | None:
        return self.kept.get(name)

    async def put(self, name: str, value: str) -> tuple[str, str]:
        self.kept[name] = value
        return "file", ""


steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(0, 2 * LIFE_S)),
        st.tuples(st.just("answers"), st.sampled_from(["well", "well", "badly", "not at all", "revoked"])),
        st.tuples(st.just("rotates"), st.booleans()),
        st.tuples(st.just("refused"), st.just(0)),
        st.tuples(st.just("process"), st.just(0)),
        st.tuples(st.just("ask"), st.just(0)),
    ),
    max_size=20,
)


async def live(folder: Path, history: list[tuple[str, float | str | bool]]) -> None:
    model = Model(kept={"r": "1//0"})
    book = AccountBook(folder / "accounts.json")
    account = Account(email=ADA, scopes=COLAB_SCOPES, signed_in_at=1.0)
    book.put(account, current=True)
    model.kept[account.item] = LoginSecrets(refresh=Secret("1//0"), client=CLIENT).to_text()
    tokens = LoginTokens(folder, book, model, model)
    stale: AccessToken | None = None
    token: AccessToken | None = None
    for step, value in [*history, ("ask", 0)]:
        if step == "wait":
            model.now += float(value)
        elif step in ("answers", "rotates"):
            setattr(model, step, value)
        elif step == "refused":
            stale = token
            if token is not None:
                model.valid.discard(token.value.reveal())
        elif step == "process":
            tokens = LoginTokens(folder, AccountBook(folder / "accounts.json"), model, model)
        else:
            before, ended = model.refreshes, book.read().accounts[ADA].ended
            try:
                token = await tokens.token(ADA, model, COLAB_SCOPES, stale)
            except TransientError:
                assert model.answers in ("badly", "not at all")
                continue
            except AuthError:
                assert ended or model.answers == "revoked"
                assert book.read().accounts[ADA].ended
                continue
            assert not ended
            assert stale is None or token.value != stale.value
            left = model.ends[token.value.reveal()] - model.now
            assert left >= (300 if model.answers == "well" and before != model.refreshes else 30)
            assert model.refreshes <= before + 1


@settings(max_examples=60, deadline=None)
@given(steps)
def test_no_history_gives_a_token_that_was_refused_or_has_run_out(
    history: list[tuple[str, float | str | bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(live, Path(folder), history)
