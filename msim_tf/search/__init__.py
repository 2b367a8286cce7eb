"""Ranking by weighted dimensions."""
