"""Where the images of a run are scored: in this process, or by workers of Ray."""
