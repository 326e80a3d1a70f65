"""An emulator of Google Colab's back end, for tests: control plane, runtime proxy, machines and Drive."""
