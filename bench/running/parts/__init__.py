"""The settings of a run by what they are about: one module per chapter of `bench run --help`."""
