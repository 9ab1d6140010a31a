"""Reports of runs and studies: what came of them, for people and for other programs.

`run_view` and `facts` say what is known of a run; `text` writes tables in each format. On these
stand `leaderboard`, `study`, `figures`, `terminal`, `page` (HTML) and `result` (notebooks).
"""
