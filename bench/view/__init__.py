"""`bench view`: the stored runs in a browser, from a small server that only reads."""
