"""Everything around one remote kernel: its record on disk, the hub that relays its messages, and the links to it."""
