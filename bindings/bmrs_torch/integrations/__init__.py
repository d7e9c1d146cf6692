"""Ready callbacks for training frameworks; each needs its framework, which this package doesn't."""
