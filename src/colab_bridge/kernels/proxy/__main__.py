"""``python -m colab_bridge.kernels.proxy``: wires the parts together."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from colab_bridge.client.address import Address
from colab_bridge.client.connect import connect
from colab_bridge.errors import ColabBridgeError
from colab_bridge.kernels.proxy.arguments import Arguments, parse_arguments
from colab_bridge.kernels.proxy.connection_file import ConnectionInfo, read_connection_file
from colab_bridge.kernels.proxy.daemon_kernel import DaemonKernel
from colab_bridge.kernels.proxy.frontend import FrontEnd
from colab_bridge.kernels.proxy.identity import front_end_of, kernel_request
from colab_bridge.kernels.proxy.local_messages import LocalMessages
from colab_bridge.kernels.proxy.outbox import Outbox
from colab_bridge.kernels.proxy.process_events import SignalPipe, in_thread, parent_gone, say
from colab_bridge.kernels.proxy.relay import KernelRelay
from colab_bridge.kernels.proxy.sockets import KernelSockets
from colab_bridge.wire.message import MessageError
from colab_bridge.wire.zmq_frames import to_message

__all__ = ["main"]

#: Milliseconds that the last messages get to leave; jupyter_client kills us 2.5 s later.
LINGER_MS = 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Be a kernel until the front end is done with it.

    Args:
        argv: Arguments after the program's name; those of the process when omitted.

    Returns:
        0 after a shutdown, 1 when the kernel died, another number when it could not begin.
    """
    signals = SignalPipe()
    try:
        return _run(parse_arguments(sys.argv[1:] if argv is None else argv), signals)
    finally:
        signals.close()


def _run(arguments: Arguments, signals: SignalPipe) -> int:
    try:
        info = read_connection_file(arguments.connection_file)
        sockets = KernelSockets(info)
    except ColabBridgeError as error:
        say(error.message)
        say(error.hint)
        return error.exit_status
    try:
        # ZMQ's descriptors need a selector, which the default loop of Windows is not.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(_serve(arguments, info, sockets, signals))
    finally:
        sockets.close(linger_ms=LINGER_MS)


async def _serve(arguments: Arguments, info: ConnectionInfo, sockets: KernelSockets, signals: SignalPipe) -> int:
    outbox = Outbox()
    frontend = FrontEnd(sockets, info.signer, outbox, LocalMessages())
    request = kernel_request(arguments, os.environ, Path.cwd(), os.getppid())
    relay = KernelRelay(DaemonKernel(connect, request), _reach, frontend, outbox, asks=arguments.asks)

    def take(channel: str, frames: list[bytes]) -> None:
        if channel == "iopub":
            _subscribed(frontend, frames[0])
            return
        try:
            identities, message = to_message(channel, frames, info.signer)
            relay.take(message, identities)
        except MessageError as error:
            say(f"a message on {channel} was dropped: {error}")

    sockets.listen(take)
    signals.listen(relay.signalled)
    watch = asyncio.create_task(_leave_with_parent(relay))
    try:
        return await relay.run()
    finally:
        watch.cancel()


def _subscribed(frontend: FrontEnd, event: bytes) -> None:
    # First byte: 1 subscribes, 0 ends a subscription (ZMTP 3.1).
    if event[:1] == b"\x01":
        frontend.welcome(event[1:])


async def _leave_with_parent(relay: KernelRelay) -> None:
    await parent_gone(os.environ, watch=front_end_of(os.environ) == "vscode")
    await relay.vanish()


async def _reach(start: bool) -> Address:
    return (await in_thread(lambda: connect(start=start))).address


if __name__ == "__main__":
    sys.exit(main())
