"""What a run is made of, one module each: its chapter of settings, and what becomes of them.

data       which images, labels and class names are read
texts      prompts, templates and trees of classes
model      which network or classifier scores them, and its weights
measure    draws, noise levels, noise, weights and views
decision   the strategy, its parameters and price, and where it cannot decide
machine    device, precision and executor
record     what is stored, and what one command does with a run

A chapter has the help of its settings and declares (`declaration`) what each is about. Its module
resolves them, refuses what does not fit, and makes their entries in the identity; those that depend
on the kind of the backbone (draws, levels, guidance) are in `kinds`. `settings` has all chapters,
and `Names`, what they name.
"""
