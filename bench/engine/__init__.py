"""From images to decisions, in full batches. This is the path of one request.

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

`CheckedDenoiser`, `CheckedClassifier`, `CheckedLikelihood` and `CheckedStrategy` validate every
output of a plugin. A classifier or a likelihood takes the place of Latents and Evaluator
(direct.py).
"""
