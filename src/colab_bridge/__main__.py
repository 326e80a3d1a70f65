"""``python -m colab_bridge`` is the command line."""

from colab_bridge.cli.main import main

if __name__ == "__main__":
    main()
