"""Make runs: parts (settings) → prepare → content → manifest → execute; `lifecycle` calls them.

    RunConfig              all settings, validated                         parts/
      │ resolve
      ▼
    Names                  what settings name; no file is read             prepare.py, parts/
      │ read_content
      ▼
    Content                texts, checkpoint, images, what other runs give prepare.py, borrowed.py
      │ prepared_run       identity, manifest and folder                   manifest.py
      ▼
    PreparedRun            all that a run is; no weights are loaded        content.py
      │ settled            `--risk`: the strategy that a test chose        risk.py
      ▼
    Task ──▶ execute       Until: the order of the images, and the end     execute.py, until.py
      │ ids                      ▲ decisions: one durable line each
      ▼                          │
    OpenRun ── samples ──▶ Engine.score(samples, strategy)                 kinds.py, or plugins
      │                    `LoadedResources` has its weights loaded        lifecycle.py
      ▼
    Finished               manifest, summary, answer, comparisons

A study makes its runs by the same steps, and a replay is a `Task` whose errors are recorded.
"""
