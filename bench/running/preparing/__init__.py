"""What a run is prepared from beside its settings: texts, candidates, learned weights, a risk."""
