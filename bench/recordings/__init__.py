"""Recorded errors: replays of other strategies, sweeps, and what is learned from them."""
