"""The machine: devices, versions, files, network, the cache folder and remembered speeds."""
