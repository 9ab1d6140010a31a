"""What a study says: its methods, what moves them and how they differ, as a report and tables."""
