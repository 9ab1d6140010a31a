"""The engine evaluates cells in full batches. Only it and the backbones import torch."""
