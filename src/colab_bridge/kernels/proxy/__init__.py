"""The proxy kernel: a small process that looks like an ordinary kernel and hands every message to the daemon.

``python -m colab_bridge.kernels.proxy -f connection.json`` binds the five ZMQ sockets of a Jupyter kernel and relays
what passes, byte for byte, between them and the daemon's WebSocket. Only the signatures are local. It holds nothing
that cannot be asked for again, so it may be killed at any time.

There is no guard process that outlives it. The daemon is no descendant of the front end, sees the WebSocket close
within milliseconds of any death of this process, and decides by its own rules (``sessions.reattach``): an idle kernel
is removed, a busy one is kept until its outputs are recorded. An editor that kills everything below it cannot prevent
that.

=====================  ==========================================================================================
module                 its job
=====================  ==========================================================================================
``arguments``          the command line
``connection_file``    addresses and keys that the front end chose
``sockets``            the five ZMQ sockets, heartbeat, subscriptions
``outbox``             which request came from whom, and what must be sent again after a lost connection
``link``               the WebSocket to the daemon, over reconnects
``daemon_kernel``      the REST calls about our kernel
``local_messages``     messages that the proxy makes itself
``frontend``           signs, routes and sends to the front end
``notices``            what is told to the user inside a cell
``process_events``     signals, and the death of the parent process
``relay``              decides what happens to each message and when the process ends
=====================  ==========================================================================================
"""
