"""Make a run: from its settings to its summary."""
