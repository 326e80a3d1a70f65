"""Where our files live, which folder is the project, and what the user has set.

Importing this package loads nothing: the command line reads only :mod:`colab_bridge.config.paths` on its fast path.
"""
