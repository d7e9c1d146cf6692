"""All that is to be known of a GPU in one command: ``make gpu``."""
