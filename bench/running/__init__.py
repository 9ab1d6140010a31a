"""Make runs: from the settings to the stored result. Data goes one way.

    RunConfig              settings, validated: the chapters of the parts  parts/
      │ resolve
      ▼
    Names                  what they name; no file is read                 parts/
      │ ask
      ▼
    Content                texts, checkpoint, images, what other runs give content.py, borrowed.py
      │ prepared_run       identity and folder: checks, problems, price    manifest.py, estimate.py
      ▼
    PreparedRun            all that a run is; nothing heavy is loaded
      │ settled            `--risk`: the strategy that a test chose        risk.py
      ▼
    Task ──▶ execute       Until: the order of the images, and the end     execute.py, until.py
      │ ids                      ▲ decisions: one durable line each
      ▼                          │
    OpenRun ── samples ──▶ Engine.score(samples, strategy)                 kinds.py, or plugins
      │
      ▼
    Finished               manifest, summary, answer, comparisons

`lifecycle.run` is all of this, for `bench run`, Python and the self-test; a study makes its runs by
the same steps, and a replay is a `Task` whose errors are recorded. Other modules classify, merge or
decide again with the content or a run.
"""
