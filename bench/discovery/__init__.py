"""Finding plugins, and keeping those that fail from harming the others."""
