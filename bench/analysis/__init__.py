"""What the stored results say. Knows of records and manifests, not of models."""
