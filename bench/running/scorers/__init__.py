"""One object per kind of backbone: what its runs ask, refuse and cost, and how they are scored."""
