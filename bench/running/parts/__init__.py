"""The settings of a run, one module per part, each with its refusals and identity entries.

data       which images, labels and class names are read
texts      prompts, templates and trees of classes
model      which network or classifier scores them, and its checkpoint
measure    draws, noise levels and their weights, noise, and views of an image
decision   the strategy, its parameters and price, and where it cannot decide
machine    device, precision and executor
record     what is stored, and what one command does with a run

A chapter is a class with one field per setting, which declares its setting with the vocabulary of
`declaration`. A module also finds what its settings name, such as the dataset, and makes their
entries in the identity; those that depend on the kind of the backbone (draws, levels, guidance) are
in `kinds`. `settings` has the class of all settings, `RunConfig`.
"""
