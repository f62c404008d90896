"""Follows."""
def of_run(run): return {}
