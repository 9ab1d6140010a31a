"""This machine: devices, versions, the cache folder and remembered speeds."""
