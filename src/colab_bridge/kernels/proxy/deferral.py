"""Being a kernel without a machine, until the first cell is run: opening a notebook must not cost anything."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from colab_bridge.errors import ColabBridgeError, UserError
from colab_bridge.kernels.proxy.frontend import FrontEnd
from colab_bridge.kernels.proxy.local_messages import error_content, idle_content, kernel_info_content
from colab_bridge.kernels.proxy.outbox import Outbox
from colab_bridge.model.hardware import ACCELERATORS, parse_ladder
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["Deferral", "chosen_hardware"]

Identities = Sequence[bytes]

_QUESTION: Final = "Which machine? cpu, a GPU such as T4, L4 or A100, or a TPU such as V5E1: "
_TRIES: Final = 3
_BANNER: Final = "Colab Bridge: the machine is started when you run the first cell."


class Deferral:
    """Answers what can be answered without a kernel, and keeps the rest.

    Args:
        frontend: Where answers go.
        outbox: Keeps what a kernel must see.
        asks: Ask in the first cell which machine it is to be.
    """

    def __init__(self, frontend: FrontEnd, outbox: Outbox, *, asks: bool) -> None:
        self._frontend = frontend
        self._outbox = outbox
        self._asks = asks
        self._setup: list[RawMessage] = []
        self._first: tuple[RawMessage, Identities] | None = None
        self._wanted = asyncio.Event()
        self._answer: asyncio.Future[str] | None = None
        self.active = False

    async def wait(self) -> Mapping[str, Any]:
        """Wait for the first cell.

        Returns:
            Options for the machine that its user has chosen; empty where nothing was asked.
        """
        self.active = True
        waiting = self._outbox.take()
        for message, identities in waiting:  # what came before it was known that there is no machine
            self.take(message, identities)
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                options = await self._choose() if self._asks else {}
            except ColabBridgeError as error:
                for request, identities in self._outbox.take("execute_request"):
                    self._frontend.answer(request, identities, error_content(error))
                continue
            self._asks = False
            self.active = False
            self._put_setup_first()
            return options

    def take(self, message: RawMessage, identities: Identities) -> None:
        """Take a message of a front end.

        Raises:
            MessageError: it cannot be read.
        """
        if message.msg_type == "execute_request":
            self._execute(message, identities)
        elif message.msg_type == "kernel_info_request":
            self._frontend.answer(message, identities, kernel_info_content(_BANNER))
        elif message.msg_type.endswith("_request"):
            self._frontend.answer(message, identities, idle_content(message))
        else:
            self._outbox.add(message, identities)

    def _execute(self, message: RawMessage, identities: Identities) -> None:
        content = message.content_fields()
        if content.get("silent") or content.get("store_history") is False:
            # Set-up code that an editor sends by itself; it is run when there is a machine, and no reason to get one.
            self._setup.append(message)
            self._frontend.answer(message, identities, idle_content(message))
            return
        self._outbox.add(message, identities)
        self._first = (message, identities)
        self._wanted.set()

    def _put_setup_first(self) -> None:
        waiting = self._outbox.take()
        for message in self._setup:
            self._outbox.add(message, ())  # answered already
        self._setup.clear()
        for message, identities in waiting:
            self._outbox.add(message, identities)

    # -- asking ------------------------------------------------------------------------------------------------

    async def _choose(self) -> dict[str, Any]:
        assert self._first is not None  # what has woken us
        request, identities = self._first
        if request.content_fields().get("allow_stdin") is False:
            raise UserError(
                "this kernel asks which machine it is to be, and this run takes no input",
                hint="use a kernel that says so itself, such as colab-bridge-t4",
            )
        reason = ""
        for _ in range(_TRIES):
            try:
                return chosen_hardware(await self._ask(request, identities, reason + _QUESTION))
            except UserError as error:
                reason = f"{error.message}; {error.hint}\n"
        raise UserError("no machine was chosen", hint="run the cell again, and answer cpu or T4, for example")

    async def _ask(self, request: RawMessage, identities: Identities, prompt: str) -> str:
        self._answer = asyncio.get_running_loop().create_future()
        self._frontend.ask(request, identities, prompt)
        try:
            return await self._answer
        finally:
            self._answer = None

    def answered(self, message: RawMessage) -> bool:
        """Look at an ``input_reply``; True when it answers our question."""
        if self._answer is None or self._answer.done():
            return False
        try:
            value = message.content_fields().get("value")
        except MessageError:
            value = ""
        self._answer.set_result(value if isinstance(value, str) else "")
        return True

    def interrupted(self) -> None:
        """Give up a question that waits for its answer."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(UserError("stopped before a machine was chosen", hint="run the cell again"))


def chosen_hardware(answer: str) -> dict[str, Any]:
    """Return the options for what a user typed. Pure.

    Raises:
        UserError: there is no such machine.
    """
    text = answer.strip()
    if text.lower() == "cpu":
        return {}
    first = text.partition(",")[0].strip().upper()
    kind: Literal["gpu", "tpu"] = "tpu" if first in ACCELERATORS and ACCELERATORS[first].kind == "tpu" else "gpu"
    return {kind: ",".join(each.accelerator for each in parse_ladder(text, kind))}
