"""The data side of the emulator: machines with real Jupyter servers behind a runtime proxy."""
