"""Where runtimes come from: adapters of :mod:`colab_bridge.ports.provider`, one a module, and their registry."""
