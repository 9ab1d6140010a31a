"""The inputs of a run: images, prompts, weights and draws."""
