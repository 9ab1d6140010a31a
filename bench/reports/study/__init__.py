"""Reports of studies: methods, sources of variation and differences, as documents and tables."""
