"""Reports of the results of runs and studies, for people and for other programs.

`run_view` reads a stored run, `rows` makes its row in tables, `facts` are values with units, and
`text` writes tables in each format. `leaderboard`, `study`, `figures`, `terminal`, `page`, `html`,
`comparisons`, `inventory` (stored runs) and `result` (notebooks) are built on these.
"""
