"""How long the first use takes, when nothing is compiled yet: a short script, and kernel by kernel."""
