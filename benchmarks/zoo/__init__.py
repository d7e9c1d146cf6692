"""What can be pruned: every architecture of a zoo, its gates closed at random, cut and folded."""
