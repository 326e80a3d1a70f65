"""Shells on the runtime that outlive the connection to them."""
