"""Bytes between two sides: batches of small files, chunks of large ones, deltas. Pure functions and open files only."""
