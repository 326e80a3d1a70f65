"""How often a listing that fails is asked for again."""

from __future__ import annotations

import pytest

from colab_bridge.errors import ColabBridgeError, TransientError, UserError
from colab_bridge.ports.clock import SystemClock
from colab_bridge.providers.colab.classify import Failure, Verdict
from colab_bridge.providers.colab.http import CallFailedError
from colab_bridge.providers.colab.values import Assignment
from colab_bridge.providers.colab.ways import Ways

pytestmark = pytest.mark.anyio


class Service:
    """Fails some times, then lists nothing."""

    def __init__(self, *failures: Failure) -> None:
        self.failures = list(failures)
        self.calls = 0
        self.pauses: list[float] = []
        self.ways = Ways(self.listing, SystemClock(), pause=self.pause)

    async def listing(self) -> list[Assignment]:
        self.calls += 1
        if self.failures:
            raise CallFailedError(self.failures.pop(0))
        return []

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.mark.parametrize("verdict", [Verdict.SERVER_ERROR, Verdict.UNCERTAIN, Verdict.UNREACHABLE, Verdict.NOT_FOUND])
async def test_what_fails_in_passing_is_asked_for_again(verdict: Verdict) -> None:
    service = Service(Failure(verdict=verdict), Failure(verdict=verdict))
    assert await service.ways.list_now() == []
    assert service.pauses == [0.5, 2.0]


async def test_the_third_failure_is_said() -> None:
    service = Service(*[Failure(verdict=Verdict.SERVER_ERROR)] * 3)
    with pytest.raises(TransientError, match="whether the runtime lives is not known"):
        await service.ways.list_now()


async def test_after_a_silence_there_is_one_more_try() -> None:
    service = Service(*[Failure(verdict=Verdict.UNCERTAIN, silent=True)] * 2)
    with pytest.raises(TransientError):
        await service.ways.list_now()
    assert service.calls == 2


async def test_a_service_that_wants_to_be_left_alone_is() -> None:
    service = Service(Failure(verdict=Verdict.RATE_LIMITED, retry_after_s=60.0))
    with pytest.raises(TransientError):
        await service.ways.list_now()
    assert service.calls == 1


async def test_a_refusal_is_said_at_once() -> None:
    service = Service(Failure(verdict=Verdict.DENYLISTED))
    with pytest.raises(ColabBridgeError, match="block") as raised:
        await service.ways.list_now()
    assert not isinstance(raised.value, (TransientError, UserError))
    assert service.calls == 1
