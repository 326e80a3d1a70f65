"""The process that owns all state: one per user, started when it is needed."""
