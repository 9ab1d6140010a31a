"""Statistics of decided images: metrics, intervals, calibration and comparison."""
