"""Google Colab as a provider of runtimes; :mod:`.provider` is the way in."""
