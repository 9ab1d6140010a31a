"""What a run is fed: images, prompts, weights and draws."""
