"""The engine: evaluates cells in full batches. With the backbones, the only place with torch."""
