"""What a run is made of, one module each; `names` has them together.

data       which images, labels and class names are read
model      which network or classifier scores them, and its weights
precision  what the network computes in, and what images are encoded in
decision   the strategy, its parameters, and where it cannot decide
measure    draws, noise levels, noise, weights and views
texts      prompts, templates and trees of classes
machine    executor and trackers
"""
