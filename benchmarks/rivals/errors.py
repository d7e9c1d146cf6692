"""What a method may fail with: it is a result like another."""


class PruningError(ValueError):
    """A method can't prune this network to this budget."""
