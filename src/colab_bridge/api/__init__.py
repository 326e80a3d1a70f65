"""The daemon's local HTTP API; ``docs/design/daemon-api.md`` is its contract."""
