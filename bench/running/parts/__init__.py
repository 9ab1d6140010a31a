"""The settings of a run by subject: one module per chapter of `bench run --help-all`."""
