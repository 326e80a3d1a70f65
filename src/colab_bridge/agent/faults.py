"""What can go wrong with a channel, apart from a broken link.

``ChannelError`` is the root: ``ProtocolError`` (the peer broke a rule), ``BufferFull`` (wait for room),
``ChannelMisuse`` (the caller broke a rule). Faults of the peer leave a channel as events, never as exceptions.
"""

from __future__ import annotations

__all__ = ["BufferFull", "ChannelError", "ChannelMisuse", "ProtocolError"]


class ChannelError(Exception):
    """Root of the channel's errors."""


class ProtocolError(ChannelError):
    """The peer broke a rule of the protocol; the channel is closed."""


class BufferFull(ChannelError):
    """Nothing was taken over: the send buffer or the table of calls has no room now."""


class ChannelMisuse(ChannelError):
    """The caller asked for something that cannot be: an unknown stream, a closed channel, a value without JSON form."""
