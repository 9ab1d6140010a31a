"""Output for people: tables on a terminal, HTML pages, figures and pictures."""
