"""The Python API: thin, blocking faces over the daemon.

They use plain sockets and no event loop, so they work the same in a script, in a notebook and inside a running loop
(there they block it, as any function call does; use ``asyncio.to_thread`` where that matters).
"""
