"""The agent process: one event loop on the runtime that serves the daemon. docs/design/agent.md explains it."""
