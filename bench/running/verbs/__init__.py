"""What can be done with settings beside making a run, each a short caller of its stages."""
