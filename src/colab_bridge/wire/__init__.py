"""Codecs and folds for Jupyter messages: bytes in, values out. Pure: no socket, no clock, no disk."""
