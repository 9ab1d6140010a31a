"""Make runs: from the settings to the stored result. Data goes one way.

    RunConfig              settings, validated                             settings/
      │ resolve            names become specs; the kind of the backbone    finders, decider, kinds/
      ▼
    Resolved
      │ ask                classes, prompts, located weights               prepare, borrowed
      ▼
    RunQuestion            no image needed: checks, problems, price        question.py
      │ prepared_run       images, identity, folder                        manifest.py
      ▼
    PreparedRun            all that a run is; nothing heavy is loaded
      │ settled            `--risk`: the strategy that a test chose        risk.py, risk_sweep.py
      ▼
    execute                Until: the order of the images, and the end     execute.py, until.py
      │ ids                      ▲ decisions: one durable line each
      ▼                          │
    OpenRun ── samples ──▶ Engine.score(samples, strategy)             question.py, or plugins
      │
      ▼
    Finished               manifest, summary, answer, comparisons

`lifecycle.run` is all of this, for `bench run`, Python and the self-test; a study makes its runs by
the same steps. Other modules plan, classify, merge or decide again with a question or a run.
"""
