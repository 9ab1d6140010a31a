"""Runs, plans and the leaderboard on a terminal: tables fit its width."""
