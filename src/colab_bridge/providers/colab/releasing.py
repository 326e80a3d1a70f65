"""Gives machines back, and makes sure of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from colab_bridge.errors import TransientError
from colab_bridge.providers.colab.classify import to_error
from colab_bridge.providers.colab.control import ControlPlane
from colab_bridge.providers.colab.http import CallFailedError
from colab_bridge.providers.colab.values import Assignment
from colab_bridge.providers.colab.ways import Ways

__all__ = ["give_back"]

_CONFIRM_TRIES = 5
_CONFIRM_PAUSE_S = 1.5


async def give_back(
    control: ControlPlane, ways: Ways, assignment: Assignment, pause: Callable[[float], Awaitable[None]]
) -> None:
    """Release a machine and wait until Google lists it no more.

    Args:
        control: Where to ask.
        ways: Forgets its way in.
        assignment: The machine.
        pause: Waits some seconds.

    Raises:
        ColabBridgeError: that could not be done or seen now; the machine may still run.
    """
    try:
        await control.release(assignment)
        for number in range(_CONFIRM_TRIES):
            if all(listed.id != assignment.id for listed in await control.listing()):
                ways.forget(assignment.id)
                return
            await pause(_CONFIRM_PAUSE_S * (number + 1))
    except CallFailedError as error:
        failed = to_error(error.failure)
        raise type(failed)(
            f"the Colab runtime {assignment.id} may still run: {failed.message}",
            hint=f"try again: colab-bridge stop {assignment.id}",
            code=failed.code,
        ) from error
    raise TransientError(
        f"Colab still lists the runtime {assignment.id} after it was released",
        hint=f"try again in a minute: colab-bridge stop {assignment.id}",
        code="CB-COLAB-023",
    )
