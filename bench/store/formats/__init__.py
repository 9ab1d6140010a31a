"""What the files of a run hold: documents, records, errors and draws, and their checks."""
