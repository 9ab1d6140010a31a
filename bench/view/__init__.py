"""`bench view`: a small read-only server that shows the stored runs in a browser."""
