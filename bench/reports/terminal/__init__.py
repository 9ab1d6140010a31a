"""Print runs, plans and tables on a terminal."""
