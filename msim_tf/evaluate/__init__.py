"""Scores with honest statistics, from NumPy arrays only."""
