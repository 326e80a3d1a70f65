"""The way from any process of ours to the daemon: find it, start it, talk to it, follow a run.

Standard library only, and as little of it as possible: every command pays for these imports before it does anything.
Import what you need from the modules themselves:

* :mod:`colab_bridge.client.address`: where the running daemon listens.
* :mod:`colab_bridge.client.daemon`: calls and event streams.
* :mod:`colab_bridge.client.connect`: find it, start it when there is none.
* :mod:`colab_bridge.client.follow`: the events of one run, across a daemon that dies.
"""
