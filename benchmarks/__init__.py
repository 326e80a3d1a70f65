"""Measurements side by side with what Colab Bridge stands in for; run ``python -m benchmarks``."""
