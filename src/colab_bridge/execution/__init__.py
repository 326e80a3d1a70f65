"""Runs: code, scripts, modules, commands and notebooks, from request to final status."""
