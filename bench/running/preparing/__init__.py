"""What a run needs besides its settings: texts, candidates, learned weights, a tested risk."""
