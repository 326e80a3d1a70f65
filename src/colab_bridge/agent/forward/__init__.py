"""TCP connections to programs on the runtime, over the channel."""
