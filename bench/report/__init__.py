"""What people look at before they read: pictures of a run."""
