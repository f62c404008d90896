"""Many recipes from one file: a grid, a random choice, a search; here or on a Ray cluster, each done once.

`file` reads what is asked, `progress` does it. results/sweeps/<name>.json says what was asked and which runs came of
it; whether a run is done stands in its own folder, so the same sweep started again goes on where it was.
"""

from lab.sweep.entries import Entry, Sweep
from lab.sweep.file import check_record, read
from lab.sweep.here import Here
from lab.sweep.progress import Place, carry_out, is_done, stages_of
from lab.sweep.search import Search
from lab.sweep.space import Space, iso

__all__ = ["Entry", "Here", "Place", "Search", "Space", "Sweep", "carry_out", "check_record", "is_done", "iso", "read",
           "stages_of"]  # fmt: skip
