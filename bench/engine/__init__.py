"""From images to decisions, in full batches. One request of a strategy goes round once.

    Sample ── open_images ──▶ pictures ── Latents ──▶ latents          images.py, denoising.py
       │                                                 │
       ▼                                                 ▼
    SampleInProgress, a CheckedSession per image ◀─── ImageInProgress  items.py, asking.py
       │ ask: Evaluate(prompts, draws)  or Linearise     ▲
       ▼                                                 │ CheckedSession.tell(request, errors)
    Block ──▶ Queue ── cut ──▶ Batch of cells            │            batching.py
                                 │                       │
                                 ▼                       │
              Evaluator: noise, denoise, reduce ──▶ errors, float32   scoring.py, denoising.py
                                                                      (linearising.py: gradients)
    the last image of a sample is decided: SampleInProgress.finish_image ──▶ Decided

`CheckedDenoiser`, `CheckedClassifier`, `CheckedLikelihood` and `CheckedStrategy` are plugins whose
every output is validated. A classifier or a likelihood takes the place of latents and Evaluator
(direct.py).
"""
