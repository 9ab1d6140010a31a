"""The leaderboard: its rows and columns, how they are ranked, and the published results."""
