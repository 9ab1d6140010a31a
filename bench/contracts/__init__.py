"""What a plugin author reads: datasets, backbones, strategies, hooks and their specs."""
