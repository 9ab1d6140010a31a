"""Statistics of decided images: metrics, intervals, probabilities and comparison."""
