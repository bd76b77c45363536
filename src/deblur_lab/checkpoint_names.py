"""What the checkpoints of a run are called, in its folder ``checkpoints``."""

LAST = "last.ckpt"
"""What a run goes on from, and what most commands take."""
PREVIOUS = "previous.ckpt"
"""What was the last one before, to go back to should that be damaged."""
BEST = "best.ckpt"
"""That which did best in validation."""
