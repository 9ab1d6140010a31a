"""The store: one folder a run, one durable line an image. Knows nothing of torch."""
