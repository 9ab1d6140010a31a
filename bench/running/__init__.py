"""Make runs: from the settings to the stored result. Data goes one way.

    RunConfig                 settings, validated                             settings.py, parts/
      │ resolve               names become specs; which kind of backbone      resolve.py, scorers/
      ▼
    Resolved
      │ ask                   classes, prompts, located weights               prepare.py, preparing/
      ▼
    RunQuestion               no image needed: checks, problems, price        question.py
      │ prepared_run          images, identity, folder                        manifest.py
      ▼
    PreparedRun               all that a run is; nothing heavy is loaded      prepared.py
      │ settled               `--risk`: sweep, test, choose the strategy      preparing/sweep.py
      ▼
    execute                   Until: the order of the images, and the end     execute.py, until.py
      │ ids                      ▲ decisions → one durable line each
      ▼                          │
    Executor ── samples ──▶ Engine.score(samples, strategy)                   executors/
      │
      ▼
    Finished                  manifest, summary, answer, comparisons

`run.run` is all of this, for `bench run`, Python and the self-test; a study makes its runs by the
same steps. `verbs/` does other things with a question or a run: plan, classify, merge, and more.
"""
