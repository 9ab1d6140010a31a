"""Measuring: how fast a backbone is here, and how much of that the engine hands on."""
