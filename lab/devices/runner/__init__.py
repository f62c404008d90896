"""Times a network on the machine it runs on. Python >= 3.10, the standard library alone.

The protocol: look at the machine first (`preflight`), warm up until two windows of 20 calls agree,
time every single call on a monotonic clock, leave no outlier out, and say how sure the median is
(`time_calls`). What runs on a CUDA device is timed by the device's own clock, with the host's beside
it. Two contenders are timed in turns, A B B A, with a rest before each change, so that both meet the
same disturbances and neither is the other's (`compare`). Where the machine tells its clocks,
temperature, power, memory, swap, throttling and load, they are kept beside the figures; what it does
not tell is None, never a guess.

In an unpacked pack (`python -m lab pack`) all of it is one file, runner.py, and a command: it verifies
the pack's checksums, runs the network by onnxruntime, torch or trtexec, whichever is there, holds its
images against the pack's, and writes one device report: `python3 runner.py --preset quick`, or `--help`.

Times are integer nanoseconds inside and milliseconds in the result.
"""

from lab.devices.runner.calls import CudaEvents, sample, time_calls
from lab.devices.runner.command import AMBIENT_C
from lab.devices.runner.errors import Refused, TooLarge
from lab.devices.runner.in_process import cuda_versions
from lab.devices.runner.machine import BOARDS, HERE, Machine
from lab.devices.runner.memory import check_fit
from lab.devices.runner.pack import PACK_FORMAT
from lab.devices.runner.preset import PRESETS, Preset, preset_of
from lab.devices.runner.quiet import MAX_LOAD_PER_CPU, Before, look, not_quiet, preflight, wait_until_quiet
from lab.devices.runner.report import NAME, VERSION, energy_of, with_id
from lab.devices.runner.turns import Comparison, compare
from lab.devices.runner.watch import Watch, idle_w

__all__ = [
    "AMBIENT_C", "BOARDS", "HERE", "MAX_LOAD_PER_CPU", "NAME", "PACK_FORMAT", "PRESETS",
    "VERSION", "Before", "Comparison", "CudaEvents", "Machine", "Preset", "Refused", "TooLarge", "Watch", "check_fit",
    "compare", "cuda_versions", "energy_of", "idle_w", "look", "not_quiet", "preflight", "preset_of",
    "sample", "time_calls", "wait_until_quiet", "with_id",
]  # fmt: skip
