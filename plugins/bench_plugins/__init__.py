"""First-party plugins, registered through the entry-point group `bench` like anybody else's."""
