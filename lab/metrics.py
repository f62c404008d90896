"""Follows."""
def evaluate(run, store, *, device): pass
