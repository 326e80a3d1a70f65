"""Signing in: where access tokens and secrets come from, and where they are kept."""
