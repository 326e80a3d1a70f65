"""Carries the messages of the server's kernels, and keeps them in a journal, whoever listens."""
