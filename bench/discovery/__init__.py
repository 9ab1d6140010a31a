"""Discovery of plugins, and isolation of those that fail."""
