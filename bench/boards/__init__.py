"""Leaderboards: published and reported results, and how they are written down."""
