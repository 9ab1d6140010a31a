"""Reports of runs and studies: what came of them, for people and for other programs.

`run_view` has what is known of a run, `rows` its row in tables, `facts` values with units, and
`text` tables in each format. On these stand `leaderboard`, `study`, `figures`, `terminal`, `page`
and `html`, `comparisons`, `inventory` (stored runs) and `result` (notebooks).
"""
