"""Boards that are not here: trees of files, and stand-ins for the commands that a Jetson and a Raspberry Pi have."""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from onefile import runner

from lab.choose import Budget, timings
from lab.devices import report
from lab.devices.incoming import import_reports
from lab.results import Store

Before, Machine, Preset = runner.Before, runner.Machine, runner.Preset
SHORT = Preset(iters=8, seconds=0.0, warmup_iters=2, warmup_s=0.0, warmup_cap_s=1.0)
QUIET = Before(load=0.1, swap_mb=0.0, free_mb=5000.0)
OPTIONS = ["--iters", "20", "--seconds", "1", "--threads", "6"]

# Lines of tegrastats of JetPack 6.2 on an Orin Nano, of one that is no root there, and of a Xavier NX with JetPack 4.
ORIN = (
    "11-23-2026 18:00:00 RAM 2345/7620MB (lfb 3x4MB) SWAP 0/3810MB (cached 0MB) "
    "CPU [12%@1510,0%@1512,off,off,1%@1510,0%@1508] EMC_FREQ 3%@2133 GR3D_FREQ 45%@[624] NVDEC off NVJPG off "
    "NVJPG1 off VIC off OFA off APE 200 cpu@48.5C soc2@47.5C soc0@47.9C gpu@49.1C cv0@-256C tj@49.2C soc1@47.7C "
    "VDD_IN 4856mW/4700mW VDD_CPU_GPU_CV 680mW/680mW VDD_SOC 1480mW/1480mW"
)
NO_ROOT = ORIN.replace("EMC_FREQ 3%@2133 GR3D_FREQ 45%@[624]", "GR3D_FREQ 0%")
XAVIER = (
    "RAM 1863/7771MB (lfb 1x4MB) SWAP 0/3885MB (cached 0MB) CPU [5%@1190,2%@1190,off,off,off,off] EMC_FREQ 0%@1600 "
    "GR3D_FREQ 0%@114 APE 150 MTS fg 0% bg 0% AO@35C GPU@36C PMIC@100C AUX@35.5C CPU@37C thermal@36.05C "
    "VDD_IN 3180/3180 VDD_CPU_GPU_CV 367/367 VDD_SOC 940/940"
)
AGX = (  # an AGX Orin with JetPack 5
    "RAM 3000/30000MB (lfb 1x1MB) SWAP 0/15000MB (cached 0MB) CPU [1%@2201,0%@2201] GR3D_FREQ 0% cpu@52.8C tj@52.9C "
    "VDD_GPU_SOC 4000mW/3900mW VDD_CPU_CV 800mW/800mW VIN_SYS_5V0 4500mW/4500mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 500mW/500mW NC 0mW/0mW"
)
NANO = (  # without units of power, with JetPack 4
    "RAM 1234/3964MB (lfb 200x4MB) SWAP 0/1982MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [25%@1479,10%@1479] "
    "EMC_FREQ 0%@1600 GR3D_FREQ 55%@921 APE 25 PLL@38C CPU@41C PMIC@100C GPU@40.5C AO@39C thermal@40.75C "
    "POM_5V_IN 4532/4400 POM_5V_GPU 1202/1101 POM_5V_CPU 851/840"
)
AGX_XAVIER = (  # with JetPack 5: no rail of the whole, six of its parts
    "RAM 3000/31925MB (lfb 1x4MB) CPU [1%@2265,1%@2265] EMC_FREQ 0%@2133 GR3D_FREQ 0%@1377 AO@35.5C GPU@37C PMIC@100C "
    "CPU@37.5C GPU 1234mW/1200mW CPU 311mW/311mW SOC 1246mW/1246mW CV 0mW/0mW VDDRQ 155mW/155mW SYS5V 2056mW/2056mW"
)
THOR = (  # with JetPack 7
    "RAM 4721/125772MB (lfb 4x4MB) CPU [0%@972,1%@2601] EMC_FREQ 0%@665 GR3D_FREQ @[1575,1575,1575] NVENC0 off "
    "gpu@41.906C/41.906C tj@42.875C/42.875C VDD_GPU 0mW/0mW VDD_CPU_SOC_MSS 3151mW/3151mW VIN_SYS_5V0 3924mW/3924mW "
    "VIN 21000mW/21000mW"
)
AGX_RAIL = "VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0"
NVPMODEL_CONF = """
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
"""
JETSON = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "proc/meminfo": "MemTotal: 7802880 kB\nMemAvailable: 5000000 kB\nSwapTotal: 3901440 kB\nSwapFree: 3901440 kB\n",
    "proc/loadavg": "0.10 0.1 0.1 1/100 4242",
    "etc/os-release": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "etc/nvpmodel.conf": NVPMODEL_CONF,
    "var/lib/nvpmodel/status": "pmode:0002",
    "usr/local/cuda/version.json": '{"cuda" : {\n "name" : "CUDA SDK",\n "version" : "12.6.11"}, "nvcc": {}}',
    "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000",
    "sys/class/devfreq/17000000.gpu/min_freq": "1020000000",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN",
    "sys/class/hwmon/hwmon1/in1_input": "5000",
    "sys/class/hwmon/hwmon1/curr1_input": "1200",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV",
    "sys/class/hwmon/hwmon1/in2_input": "5000",
    "sys/class/hwmon/hwmon1/curr2_input": "300",
    "sys/class/hwmon/hwmon2/oc1_event_cnt": "0",
    "sys/class/hwmon/hwmon3/pwm1": "80",
    "sys/class/thermal/thermal_zone0/temp": "51500",
    "sys/class/thermal/thermal_zone1/temp": "-256000",
    **{f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_{end}_freq": "1728000"
       for i in range(6) for end in ("cur", "min", "max")},
    **{f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_governor": "schedutil" for i in range(6)},
}  # fmt: skip
PI = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
    "proc/meminfo": "MemTotal: 8255360 kB\nMemAvailable: 7000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
    "sys/class/thermal/thermal_zone0/temp": "48300",
    **{f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_{end}_freq": "2400000"
       for i in range(4) for end in ("cur", "min", "max")},
    **{f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_governor": "performance" for i in range(4)},
}  # fmt: skip


def put(root: Path, files: dict[str, str]) -> Machine:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(root)


def stand_in(root: Path, name: str, script: str, folder: str = "usr/bin") -> Path:
    """A command of the board, as a shell script."""
    path = root / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def timed(machine: Machine, call: Callable[[], object] = lambda: None) -> runner.Timed:
    """A measurement of calls that take a millisecond each by a clock of its own."""
    return runner.time_calls(call, SHORT, QUIET, machine=machine, clock=itertools.count(0, 1_000_000).__next__)


def state_of(machine: Machine, call: Callable[[], object] = lambda: None) -> dict[str, Any]:
    return timed(machine, call).state


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "board"


@pytest.fixture
def jetson(root: Path) -> Machine:
    return put(root, JETSON)


@pytest.fixture
def pi(root: Path) -> Machine:
    return put(root, PI)


# --- what a Jetson tells ---


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (ORIN, {"cpu_mhz": 1510, "gpu_mhz": 624, "emc_mhz": 2133, "temp_c": 49.2, "power_w": 4.856}),
        (NO_ROOT, {"cpu_mhz": 1510, "temp_c": 49.2, "power_w": 4.856}),
        (XAVIER, {"cpu_mhz": 1190, "gpu_mhz": 114, "emc_mhz": 1600, "temp_c": 37, "power_w": 3.18}),
        (AGX, {"cpu_mhz": 2201, "temp_c": 52.9, "power_w": 9.3}),
        ("VIN_SYS_5V0 4500mW/4500mW", {}),
        (NANO, {"cpu_mhz": 1479, "gpu_mhz": 921, "emc_mhz": 1600, "temp_c": 41, "power_w": 4.532}),
        (AGX_XAVIER, {"cpu_mhz": 2265, "gpu_mhz": 1377, "emc_mhz": 2133, "temp_c": 37.5, "power_w": 5.002}),
        (THOR, {"cpu_mhz": 1786.5, "gpu_mhz": 1575, "emc_mhz": 665, "temp_c": 42.875, "power_w": 21}),
        (
            THOR.replace("GR3D_FREQ @[1575,1575,1575] ", ""),
            {"cpu_mhz": 1786.5, "emc_mhz": 665, "temp_c": 42.875, "power_w": 21},
        ),
        ("GR3D_FREQ 12%@[918,918]", {"gpu_mhz": 918}),
        ("", {}),
        ("tegrastats: command failed [x] 12%@", {}),
    ],
    ids=[
        "JetPack 6",
        "no root",
        "JetPack 4",
        "AGX Orin",
        "a part",
        "Nano",
        "AGX Xavier",
        "Thor",
        "Thor without GPU",
        "two GPU clusters",
        "nothing",
        "nonsense",
    ],
)
def test_a_line_of_tegrastats_is_read(line: str, told: dict[str, float]) -> None:
    assert runner.tegrastats(line) == pytest.approx(told)


def test_a_dummy_thermometer_is_none(root: Path) -> None:
    zones = {"PLL-therm": 38000, "CPU-therm": 41000, "PMIC-Die": 100000, "pmic_tz": 99000, "cv": -256000, "off": 0,
             "failed": 2147483647, "endless": "inf", "none": "nan"}  # fmt: skip
    files = {f"sys/class/thermal/thermal_zone{i}/{name}": str(text) for i, zone in enumerate(zones.items())
             for name, text in zip(("type", "temp"), zone)}  # fmt: skip
    assert put(root, files).temp_c() == 41.0
    (root / "sys/class/thermal/thermal_zone1/temp").unlink()  # one that can't be read
    assert Machine(root).temp_c() == 38.0


BARE = {"format": runner.PACK_FORMAT}


@pytest.mark.parametrize("lacking", [{}, {"files": None}, {"files": []}, {"files": {"a": {}}, "networks": []},
                                     {"files": {}, "networks": [{"kind": "onnx"}], "reference": {}}])  # fmt: skip
def test_a_manifest_that_lacks_something_is_a_sentence(root: Path, lacking, capsys: pytest.CaptureFixture) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "manifest.json").write_text(json.dumps(BARE | lacking))
    assert runner.main(["--runtime", "onnxruntime"], folder=root) != 0
    said = capsys.readouterr()
    assert "manifest.json lacks what a pack's has; unpack it again" in said.out + said.err


@pytest.mark.parametrize("text", ["[]", "null", "{}", '"x"'])
def test_a_manifest_of_nothing_is_a_sentence(root: Path, text: str, capsys: pytest.CaptureFixture) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "manifest.json").write_text(text)
    assert runner.main(["--runtime", "onnxruntime"], folder=root) != 0
    said = capsys.readouterr()
    assert "manifest.json is none of a pack's; unpack it again" in said.out + said.err


ARM = "processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {}\n\n"


def test_processors_without_a_name_are_told_apart(root: Path) -> None:
    told = ["0xd0c", "0xd40", "0xd4f"]
    files = [*(ARM.format(part) for part in told), ARM.format("0xd03") + ARM.format("0xd09"),
             "model name\t: ARMv8 Processor rev 1 (v8l)\n" + ARM.format("0xd07"), "uarch : sifive,u74-mc\n",
             "uarch : sifive,u74-mc\nmimpid : 0x4210427\n", "cpu\t\t: POWER9 (architected)\n",
             "cpu model\t\t: MIPS 24Kc V7.4\n", "cpu model\t\t: MIPS 74Kc V5.0\n",
             "vendor_id : IBM/S390\nprocessor 0: version = FF, machine = 8561\n",
             "vendor_id : IBM/S390\nprocessor 0: version = FF, machine = 3931\n"]  # fmt: skip
    names = [put(root / str(i), {"proc/cpuinfo": text})._cpu_name() for i, text in enumerate(files)]
    assert len(set(names)) == len(files)
    assert "implementer 0x41" in names[0] and all(part in name for part, name in zip(told, names))
    assert "part 0xd03" in names[3] and "part 0xd09" in names[3], "cores of two kinds"


@pytest.mark.parametrize(
    ("files", "quota", "throttles"),
    [
        ({"sys/fs/cgroup/cpu.max": "30000 100000", "sys/fs/cgroup/cpu.stat": "nr_periods 176\nnr_throttled 171"}, 0.3,
         171),
        ({"sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/cpu.stat": "nr_throttled 3"}, None, None),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
          "sys/fs/cgroup/cpu/cpu.stat": "nr_throttled 5"}, 1.5, 5),
        ({"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000"},
         None, None),
        ({"sys/fs/cgroup/cpuacct,cpu/cpu.cfs_quota_us": "50000",
          "sys/fs/cgroup/cpuacct,cpu/cpu.cfs_period_us": "100000"}, 0.5, None),
        ({"proc/self/cgroup": "0::/a.slice/b.scope", "sys/fs/cgroup/a.slice/cpu.max": "50000 100000",
          "sys/fs/cgroup/a.slice/b.scope/cpu.max": "200000 100000", "sys/fs/cgroup/a.slice/cpu.stat": "nr_throttled 9"},
         0.5, 9),
        ({"sys/fs/cgroup/cpu.max": "30000"}, None, None),
        ({}, None, None),
    ],
    ids=["version 2", "no limit", "version 1", "no limit of version 1", "other way round", "group around", "one number",
         "no groups"],
)  # fmt: skip
def test_a_share_of_the_cpus_is_all_that_threads_get(root: Path, files, quota, throttles) -> None:
    root.mkdir()
    machine = put(root, files)
    assert machine.quota() == quota and machine.throttles() == throttles
    assert machine.threads() == (1 if quota else len(os.sched_getaffinity(0)))
    assert runner.parser(machine).parse_args([]).threads == machine.threads()


def test_waiting_for_its_share_is_throttling(root: Path) -> None:
    files = {"sys/fs/cgroup/cpu.max": "30000 100000", "sys/fs/cgroup/cpu.stat": "nr_throttled 1"}
    with runner.Watch(put(root, files), QUIET) as watch:
        put(root, {"sys/fs/cgroup/cpu.stat": "nr_throttled 2"})
    assert watch.throttled() is True


@pytest.mark.parametrize(("mode", "watts"), [("15W", 15), ("MODE_15W_6CORE", 15), ("MODE_30W_ALL", 30), ("MAXN", None),
                                             ("MODE_10W_DESKTOP", 10), ("40W", 40),
                                             ("MODE_7.5W", 7.5), ("MODE 15W", 15)])  # fmt: skip
def test_a_modes_name_tells_its_cap(root: Path, jetson: Machine, mode: str, watts: float | None) -> None:
    stand_in(root, "nvpmodel", f"echo 'NV Power Mode: {mode}'")
    with runner.Watch(jetson, QUIET) as watch:
        pass
    assert watch.state()["power_cap_w"] == watts


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8", "3.9"])
def test_an_older_python_is_told_which_is_needed(version: str) -> None:
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if not found:
        ast.parse(Path(runner.__file__).read_text(), feature_version=(3, 8))
        pytest.skip(f"there is no Python {version} under ~/.pyenv/versions")
    done = subprocess.run([found[0], "-I", runner.__file__, "--help"], capture_output=True, text=True)
    assert done.returncode == 1 and "needs Python 3.10 or newer" in done.stderr and "Traceback" not in done.stderr


def test_a_jetson_says_who_it_is(root: Path, jetson: Machine) -> None:
    packages = {"nvidia-jetpack": "6.2.1+b38", "libcudnn[0-9]*": "libcudnn9-cuda-12 9.3.0.75-1\\nlibcudnn8 \\n",
                "libnvinfer[0-9]*": "libnvinfer10 10.3.0.30-1+cuda12.5\\n"}  # fmt: skip
    cases = "\n".join(f"'{name}') printf '{version}';;" for name, version in packages.items())
    stand_in(root, "dpkg-query", f'case "$3" in\n{cases}\nesac')
    assert jetson.device() == {
        "family": "jetson", "name": "NVIDIA Jetson Orin Nano Developer Kit", "soc": "nvidia,tegra234", "gpu": None,
        "memory_mb": 7620, "cooling": "fan, pwm 80 of 255", "unified_memory": True,
    }  # fmt: skip
    assert jetson.versions() == {"l4t": "36.4.3", "jetpack": "6.2.1+b38", "cuda": "12.6.11", "cudnn": "9.3.0",
                                 "tensorrt": "10.3.0"}  # fmt: skip
    (root / "usr/bin/dpkg-query").unlink()
    assert jetson.versions()["cudnn"] is None and jetson.versions()["tensorrt"] is None


IN_DOCKER = [  # which of its own files a container of NVIDIA's, or another one on its kernel, shows
    {"proc/sys/kernel/osrelease": "5.15.148-tegra\n"},
    {"proc/sys/kernel/osrelease": "6.8.0-1009-custom\n", "etc/nv_tegra_release": JETSON["etc/nv_tegra_release"]},
]


def in_docker(root: Path, shown: dict[str, str]) -> Machine:
    """A Jetson as a container shows it: neither the device tree nor what nvpmodel writes down."""
    hidden = re.compile("proc/device-tree/|etc/|var/|usr/")
    return put(root, {name: text for name, text in JETSON.items() if not hidden.match(name)} | shown)


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("shown", IN_DOCKER, ids=["kernel", "release"])
def test_a_jetson_in_a_container_is_a_jetson_whose_board_and_mode_are_unknown(
    shown: dict[str, str], unpacked: Path, root: Path
) -> None:
    board = in_docker(root, shown)
    trtexec(root, unpacked)
    found = reported(unpacked, board)
    device = {name: found["device"].get(name) for name in ("family", "name", "gpu", "memory_mb", "unified_memory")}
    assert device == {"family": "jetson", "name": "NVIDIA Jetson (board unknown)", "gpu": "Orin", "memory_mb": 7620,
                      "unified_memory": True}  # fmt: skip
    grade = report.grade(found)
    assert (grade.letter, grade.reasons) == ("D", ("the power mode is unknown, and a jetson has several",))


def test_the_board_of_a_container_is_named_where_the_kernel_still_tells_it(root: Path) -> None:
    name = JETSON["proc/device-tree/model"].strip("\0")
    assert in_docker(root, IN_DOCKER[0] | {"sys/devices/soc0/machine": f"{name}\n"}).device()["name"] == name
    other = put(root.parent / "other", {"sys/devices/soc0/machine": "Snapdragon\n"})
    assert other.device()["name"] != "Snapdragon" and other.family != "jetson"


@pytest.mark.parametrize(("number", "name"), [(90300, "9.3.0"), (91002, "9.10.2"), (8902, "8.9.2"), (None, None)])
def test_the_versions_that_torch_has_are_its_own(number: int | None, name: str | None) -> None:
    cudnn = SimpleNamespace(version=lambda: number)
    told = SimpleNamespace(backends=SimpleNamespace(cudnn=cudnn), version=SimpleNamespace(cuda="12.6"))
    assert runner.cuda_versions(told) == {"cuda": "12.6", "cudnn": name}


def process(root: Path, pid: int, name: str, ticks: int) -> None:
    """A process whose command line holds what no report may tell."""
    put(root, {f"proc/{pid}/stat": f"{pid} ({name}) S 1 {pid} {pid} 0 -1 0 0 0 0 0 {ticks} 5 0 0 20 0 1 0 42",
               f"proc/{pid}/cmdline": f"{name}\0--password\0secret", f"proc/{pid}/comm": name})  # fmt: skip


def test_the_busiest_processes_are_named_without_their_arguments(root: Path, jetson: Machine) -> None:
    names = {11: "firefox", 12: "idle", 13: "a) R (b", 14: "x\n\x1b[31m<b>\u202e", 15: "python3", 16: "python3",
             17: "e", 18: "f", os.getpid(): "ours"}  # fmt: skip
    spent = {11: 9, 12: 0, 13: 7, 14: 8, 15: 6, 16: 6, 17: 5, 18: 4, os.getpid(): 99}
    for pid, name in names.items():
        process(root, pid, name, 1000)
    put(root, {"proc/19/stat": "", "proc/20/stat": "20 (cut", "proc/self/stat": "1 (self) S"})

    def sleep(_: float) -> None:
        for pid, name in names.items():
            process(root, pid, name, 1000 + spent[pid])

    assert jetson.busiest(sleep) == ["python3", "firefox", "x   31m b", "a) R (b", "e"]
    assert jetson.busiest(lambda _: None) == []  # nothing ran meanwhile
    assert Machine(root / "nothing").busiest(pytest.fail) is None


def test_a_refusal_for_load_names_who_is_busy(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = put(root, JETSON | {"proc/loadavg": "99.0 1 1 1/100 1"})
    monkeypatch.setattr(busy, "busiest", lambda: ["firefox", "cc1plus"])
    with pytest.raises(runner.Refused, match=r"is allowed\. Busiest: firefox, cc1plus\. Wait"):
        runner.preflight(runner.PRESETS["publishable"], busy)


@pytest.mark.usefixtures("no_pauses")
def test_a_report_tells_what_was_there_before_the_work(
    unpacked: Path, root: Path, jetson: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    trtexec(root, unpacked)
    monkeypatch.setattr(jetson, "busiest", lambda: ["gnome-shell"])
    state = reported(unpacked, jetson, "--ambient", "-4.5")["state"]
    assert (state["ambient_c"], state["top_processes"], state["load_avg"]) == (-4.5, ["gnome-shell"], 0.1)
    assert reported(unpacked, jetson)["state"]["ambient_c"] is None


@pytest.mark.parametrize("text", ["warm", "nan", "86", "-41", "inf", ""])
def test_an_ambient_temperature_that_no_place_has_is_wrong_usage(text: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        runner.parser().parse_args([f"--ambient={text}"])
    assert ended.value.code == runner.USAGE
    assert f"must be degrees Celsius between -40 and 85, got '{text}'" in capsys.readouterr().err


@pytest.mark.parametrize("said", ["NV Power Mode: 25W\\n1", "NVPM VERB: Current mode: NV Power Mode: 25W\\n1"])
def test_the_power_mode_is_a_name_that_nvpmodel_tells(said: str, root: Path, jetson: Machine) -> None:
    stand_in(root, "nvpmodel", f'[ "$1" = -q ] && printf "{said}\\n"', "usr/sbin")
    state = state_of(jetson)
    assert (state["power_mode"], state["power_cap_w"]) == ("25W", 25.0)


def test_without_the_right_to_ask_the_mode_is_looked_up_in_its_files(root: Path, jetson: Machine) -> None:
    stand_in(root, "nvpmodel", "echo 'you need root' >&2; exit 1", "usr/sbin")
    assert state_of(jetson)["power_mode"] == "MAXN_SUPER"
    (root / "etc/nvpmodel.conf").write_text("< POWER_MODEL ID=2 NAME=7W >")
    assert jetson.power_mode() == "7W", "the number means another mode on another firmware"
    (root / "etc/nvpmodel.conf").unlink()
    assert jetson.power_mode() is None


def test_clocks_power_and_memory_of_a_jetson_come_from_sysfs(root: Path, jetson: Machine) -> None:
    found = timed(jetson)
    state = found.state
    assert state["gpu_mhz"]["mean"] == 1020 and state["cpu_mhz"]["mean"] == 1728 and state["temp_c"]["max"] == 51.5
    assert state["power_w"]["mean"] == 6.0 and state["power_rail"] == "VDD_IN"
    assert state["emc_mhz"] is None and state["clocks_locked"] is True and state["throttled"] is False
    assert found.system_mb == pytest.approx(5000 - 5_000_000 / 1024, abs=0.1)


def rails(watts: dict[str, float]) -> dict[str, str]:
    """Rails at 5 V as a board's power monitors show them, three channels each."""
    files = {}
    for k, (name, power) in enumerate(watts.items()):
        at, channel = f"sys/class/hwmon/hwmon{4 + k // 3}", k % 3 + 1
        files |= {f"{at}/in{channel}_label": name, f"{at}/in{channel}_input": "5000",
                  f"{at}/curr{channel}_input": f"{200 * power:.0f}"}  # fmt: skip
    return files


@pytest.mark.parametrize("left_out", [None, "VDD_CPU_CV"])
def test_the_power_of_an_agx_orin_is_the_sum_of_its_three_rails(left_out: str | None, root: Path) -> None:
    """Its VIN_SYS_5V0 is a part, and VDDQ_VDD2_1V8AO a part of that part."""
    watts = {"VDD_GPU_SOC": 4.0, "VDD_CPU_CV": 0.8, "VIN_SYS_5V0": 4.5, "NC": 0.0, "VDDQ_VDD2_1V8AO": 0.5}
    bare = {k: v for k, v in JETSON.items() if "hwmon1" not in k}
    state = state_of(put(root, bare | rails({k: v for k, v in watts.items() if k != left_out})))
    if left_out:
        assert state["power_w"] is None and state["power_rail"] is None
    else:
        assert state["power_w"]["mean"] == 9.3 and state["power_rail"] == AGX_RAIL


@pytest.mark.usefixtures("no_pauses")
def test_the_energy_of_an_agx_orin_names_what_was_summed(unpacked: Path, root: Path) -> None:
    machine = put(root, {k: v for k, v in JETSON.items() if "hwmon" not in k})
    trtexec(root, unpacked)
    stand_in(root, "tegrastats", f'while :; do echo "{AGX}"; sleep 0.02; done')
    found = reported(unpacked, machine)
    assert found["state"]["power_w"]["mean"] == 9.3 and found["energy"]["rail"] == AGX_RAIL


def test_tegrastats_tells_what_sysfs_does_not(root: Path) -> None:
    bare = {k: v for k, v in JETSON.items() if "hwmon" not in k and "devfreq" not in k}
    machine = put(root, bare)
    stand_in(root, "tegrastats", f'echo "$@" > {root}/asked\nwhile :; do echo "{ORIN}"; sleep 0.05; done')
    state = state_of(machine)
    assert (root / "asked").read_text().strip() == "--interval 200"
    assert state["gpu_mhz"]["mean"] == 624 and state["emc_mhz"]["max"] == 2133
    assert state["power_w"]["mean"] == 4.856 and state["power_rail"] == "VDD_IN"
    assert state["cpu_mhz"]["mean"] == 1728, "sysfs is asked first"


def test_tegrastats_ends_with_the_measurement(root: Path, jetson: Machine) -> None:
    stand_in(root, "tegrastats", f'while :; do echo "{ORIN}"; sleep 0.05; done')
    channel = runner.SideChannel(jetson)
    with channel:
        assert channel._tegrastats.poll() is None
    assert channel._tegrastats.poll() is not None and channel.seen["emc_mhz"]


def test_a_tegrastats_that_fails_at_once_costs_nothing_but_its_figures(root: Path, jetson: Machine) -> None:
    stand_in(root, "tegrastats", "exit 1")
    assert state_of(jetson)["emc_mhz"] is None


# --- throttling and swap ---


def test_a_fixed_clock_that_falls_is_throttling_and_gives_a_d(root: Path, jetson: Machine) -> None:
    clock = root / "sys/class/devfreq/17000000.gpu/cur_freq"
    state = state_of(jetson, lambda: clock.write_text("612000000"))
    assert state["throttled"] is True and state["gpu_mhz"]["min"] == 612
    assert state["clocks_locked"] is True


def test_a_clock_within_three_percent_of_its_highest_is_no_throttling(root: Path, jetson: Machine) -> None:
    (root / "sys/class/devfreq/17000000.gpu/cur_freq").write_text("1000000000")
    assert state_of(jetson)["throttled"] is False


def test_a_clock_that_is_not_fixed_says_nothing_of_throttling(root: Path) -> None:
    free = {k: v for k, v in JETSON.items() if "oc1" not in k} | {
        "sys/class/devfreq/17000000.gpu/min_freq": "306000000",
        "sys/class/devfreq/17000000.gpu/cur_freq": "306000000",
    }
    state = state_of(put(root, free))
    assert state["clocks_locked"] is False and state["throttled"] is None


def test_an_over_current_event_is_throttling(root: Path, jetson: Machine) -> None:
    assert (
        state_of(jetson, lambda: (root / "sys/class/hwmon/hwmon2/oc1_event_cnt").write_text("3"))["throttled"] is True
    )


def test_the_clocks_of_a_pause_do_not_count(root: Path, jetson: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = root / "sys/class/devfreq/17000000.gpu/cur_freq"
    watch = runner.Watch(jetson, QUIET)

    def pause(_: float) -> None:
        clock.write_text("306000000")
        watch.side._sample()
        clock.write_text("1020000000")

    with watch:
        watch.cool_down(pause)
    assert watch.side.summary("gpu_mhz")["min"] == 1020 and watch.throttled() is False


def test_swap_in_use_is_in_the_state(root: Path, jetson: Machine) -> None:
    meminfo = root / "proc/meminfo"
    used = JETSON["proc/meminfo"].replace("SwapFree: 3901440", "SwapFree: 3835904")
    assert state_of(jetson)["swap_mb"] == 0
    assert state_of(jetson, lambda: meminfo.write_text(used))["swap_mb"] == 64


# --- a Raspberry Pi ---


def test_a_raspberry_pi_says_who_it_is_and_its_governor_is_its_mode(pi: Machine) -> None:
    assert (pi.device()["family"], pi.device()["soc"], pi.device()["memory_mb"]) == ("rpi", "brcm,bcm2712", 8061)
    state = state_of(pi)
    assert state["power_mode"] == "governor performance" and state["clocks_locked"] is True
    assert state["temp_c"]["max"] == 48.3 and state["cpu_mhz"]["mean"] == 2400


@pytest.mark.parametrize(
    ("before", "after", "throttled"),
    [
        ("0x0", "0x0", False),
        ("0x50000", "0x50000", None),  # it has happened before, so nobody knows whether it did again
        ("0x80000", "0x80000", None),
        ("0x50000", "0x50005", True),  # it happens at the end of the session
        ("0x0", "0x40000", True),  # throttling has occurred
        ("0x0", "0x10000", True),  # the supply was too weak
        ("0x80000", "0xc0000", True),
    ],
)
def test_what_vcgencmd_says_anew_is_throttling(
    before: str, after: str, throttled: bool | None, root: Path, pi: Machine
) -> None:
    stand_in(root, "vcgencmd", f'[ "$1" = get_throttled ] && echo "throttled=$(cat {root}/word)"')
    (root / "word").write_text(before)
    assert state_of(pi, lambda: (root / "word").write_text(after))["throttled"] is throttled


@pytest.mark.parametrize("node", ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware"], ids=["Pi 4", "Pi 5"])
def test_a_pi_that_is_throttled_at_this_moment_is_seen_in_sysfs(node: str, root: Path, pi: Machine) -> None:
    word = root / "sys/devices/platform" / node / "get_throttled"
    word.parent.mkdir(parents=True)
    word.write_text("50004\n")
    assert state_of(pi)["throttled"] is True
    word.write_text("50000\n")
    assert state_of(pi)["throttled"] is False, "it happened before, and was looked for all along"
    assert state_of(pi, lambda: word.write_text("d0000\n"))["throttled"] is True


def test_a_pi_whose_kernel_forgets_the_past_on_reading_is_believed_when_it_happens_again(pi: Machine) -> None:
    watch = runner.Watch(pi, QUIET)
    watch._word, watch.side.seen["throttle_word"] = 0x40000, [0x0, 0x0]
    assert watch.throttled() is False
    watch.side.seen["throttle_word"] = [0x0, 0x40000, 0x0]
    assert watch.throttled() is True


def test_a_pis_own_clock_says_nothing_of_throttling(root: Path, pi: Machine) -> None:
    """It is what the kernel asked for, whatever the firmware makes of it."""
    clock = root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
    assert state_of(pi)["throttled"] is None
    assert state_of(pi, lambda: clock.write_text("1500000"))["throttled"] is None


# --- the whole command on a board ---

TRTEXEC = '''#!{python}
"""As trtexec does it: an engine out of a file, then times, and images of the noise that it is given."""
import json, sys
with open("{log}", "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
options = dict(a.lstrip("-").partition("=")[::2] for a in sys.argv[1:])
print("&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] [b26] # trtexec " + " ".join(sys.argv[1:]))
if "help" in options:
    sys.exit(0)
if "{version}" > "110000" and "stronglyTyped" in options:
    print("[11/23/2026-18:00:00] [E] Unknown option: --stronglyTyped")
    sys.exit(1)
print("[11/23/2026-18:00:00] [I] Selected Device: Orin")
print("[11/23/2026-18:00:00] [I] Device Global Memory: 7620 MiB")
if {broken}:
    print("[11/23/2026-18:00:00] [E] Error[4]: ModelImporter.cpp:836: no importer for Gelu")
    print("&&&& FAILED TensorRT.trtexec [TensorRT v{version}]")
    sys.exit(1)
if "onnx" in options:
    open(options["saveEngine"], "wb").write(open(options["onnx"], "rb").read())
    print("[11/23/2026-18:00:09] [I] Engine built in 8.123 sec.")
    sys.exit(0)
print("[11/23/2026-18:00:09] [I] Engine deserialized in 0.0125 sec.")
inputs = dict(part.split(":") for part in options["loadInputs"].split(","))
count = len(open(inputs["z"], "rb").read()) // 256
from array import array
image = array("f", open("{images}", "rb").read())[: count * 64]
values = [{scale} * v for v in image]
out = [{{"name": "image", "dimensions": f"{{count}}x1x8x8", "values": values}}]
json.dump(out, open(options["exportOutput"], "w"))
calls = int(options["iterations"])
keys = ["startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs", "startD2hMs", "endD2hMs",
        "h2dMs", "d2hMs"]
json.dump([dict.fromkeys(keys, 9.0) | {{"computeMs": 0.5 + 0.001 * (i % 3), "latencyMs": 0.75 + 0.01 * (i % 3)}}
           for i in range(calls)],
          open(options["exportTimes"], "w"))
print(f"[11/23/2026-18:01:12] [I] Timing trace has {{calls}} queries over {{options['duration']}}.0012 s")
print("&&&& PASSED TensorRT.trtexec [TensorRT v{version}]")
'''


EACH_MS = 1001.2 / 20  # from one call to the next: 20 calls are asked for, and take a second


def trtexec(root: Path, pack: Path, *, version: str = "100300", scale: float = 1.0, broken: bool = False) -> Path:
    """The stand-in where a JetPack has the real one; gives the file in which it logs its arguments."""
    path = stand_in(root, "trtexec", "", "usr/src/tensorrt/bin")
    path.write_text(TRTEXEC.format(python=sys.executable, version=version, scale=scale, broken=broken,
                                   log=root / "trtexec.log", images=pack / "reference/image.bin"))  # fmt: skip
    return root / "trtexec.log"


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SAMPLE_S", 0.01)
    monkeypatch.setattr(runner, "PAUSE_S", 0.0)


def reported(pack: Path, machine: Machine, *options: str, code: int = runner.OK) -> dict[str, Any]:
    out = pack.parent / "report.json"
    assert runner.main([*OPTIONS, *options, "--out", str(out)], folder=pack, machine=machine) == code
    return report.load(out)


@pytest.mark.usefixtures("no_pauses")
def test_a_jetson_reports_its_engine_its_clocks_and_its_energy(unpacked: Path, root: Path, jetson: Machine) -> None:
    log = trtexec(root, unpacked)
    found = reported(unpacked, jetson, "--batch", "4")
    assert found["software"] | {"os": "", "python": ""} == {
        "os": "", "l4t": "36.4.3", "jetpack": None, "cuda": "12.6.11", "cudnn": None,
        "tensorrt": "10.3.0", "python": "", "torch": None,
        "runtime": "tensorrt", "runtime_version": "10.3.0",
        "flags": ["trtexec", "useSpinWait", "stronglyTyped", "governor=schedutil"],
    }  # fmt: skip
    assert (found["device"]["family"], found["device"]["gpu"]) == ("jetson", "Orin")
    assert (found["timing"]["clock"], found["timing"]["p50"], found["timing"]["load_ms"]) == ("cuda_event", 0.501, 12.5)
    assert found["timing"]["build_ms"] > 0 and found["model"]["precision"] == "fp16"
    assert found["energy"] == {"mj_per_image": pytest.approx(6.0 * EACH_MS / 4), "net_of_idle": False,
                               "mj_per_image_net": None, "rail": "VDD_IN"}, "it drew no less when idle"  # fmt: skip
    assert found["state"]["threads"] is None and "-b4-core-" in found["report_id"]
    assert found["state"]["idle_power_w"] == 6.0 and found["state"]["power_mode"] == "MAXN_SUPER"
    assert found["checks"]["output_ok"] is True and found["checks"]["max_abs_vs_ref"] == 0
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert [a[0].split("=")[0] for a in asked] == ["--help", "--onnx", "--loadEngine"]
    assert {"--shapes=z:4x1x8x8,y:4", "--stronglyTyped", "--skipInference"} <= set(asked[1])
    assert {"--shapes=z:4x1x8x8,y:4", "--useSpinWait", "--iterations=20", "--duration=1"} <= set(asked[2])


@pytest.mark.usefixtures("no_pauses")
def test_what_a_host_waits_for_stands_beside_the_gpus_own_times(unpacked: Path, root: Path, jetson: Machine) -> None:
    trtexec(root, unpacked)
    timing = reported(unpacked, jetson)["timing"]
    assert (timing["clock"], timing["p50"], timing["duration_s"]) == ("cuda_event", 0.501, 1.001)
    assert (timing["wall"]["min"], timing["wall"]["p50"], timing["wall"]["p99"]) == (0.75, 0.76, 0.77)


@pytest.mark.usefixtures("no_pauses")
def test_where_trtexec_does_not_say_how_long_it_took_energy_goes_by_what_a_host_waits_for(
    unpacked: Path, root: Path, jetson: Machine
) -> None:
    trtexec(root, unpacked)
    path = root / "usr/src/tensorrt/bin/trtexec"
    path.write_text(path.read_text().replace("Timing trace has", "Traced").replace("queries over", "queries in"))
    assert reported(unpacked, jetson)["energy"]["mj_per_image"] == pytest.approx(6.0 * 0.76)


def test_the_memory_of_an_engine_is_that_of_running_it_not_of_building_it(unpacked: Path, root: Path) -> None:
    """In a process of its own, for one that is started counts in what the one that starts it had."""
    put(root, {k: v for k, v in JETSON.items() if "hwmon" not in k})
    trtexec(root, unpacked)
    path = root / "usr/src/tensorrt/bin/trtexec"
    takes = 'taken = bytearray((240 if "onnx" in options else 80) << 20)'
    path.write_text(path.read_text().replace("if False:", f"{takes}\nif False:"))
    memory = by_script(sys.executable, unpacked, root, OPTIONS)["memory"]
    assert 80 < memory["process_peak_mb"] < 160 and "while it times" in memory["method"]


def test_a_trtexec_that_does_not_end_is_ended(root: Path) -> None:
    path = stand_in(root, "trtexec", f"echo $$ > {root}/pid; exec sleep 60")
    with pytest.raises(runner.Broken, match=r"trtexec did not end within 0\.3 s"):
        runner._told(str(path), [], limit_s=0.3)
    assert not Path("/proc", (root / "pid").read_text().strip()).exists()


@pytest.mark.usefixtures("no_pauses")
def test_tensorrt_11_is_not_told_of_strong_typing(unpacked: Path, root: Path, jetson: Machine) -> None:
    log = trtexec(root, unpacked, version="110100")
    found = reported(unpacked, jetson, "--precision", "fp32")
    assert found["software"]["runtime_version"] == "11.1.0" and "noTF32" in found["software"]["flags"]
    assert "stronglyTyped" not in log.read_text()


@pytest.mark.usefixtures("no_pauses")
def test_publishable_runs_three_sessions_and_is_an_a_on_a_quiet_board(
    unpacked: Path, root: Path, jetson: Machine
) -> None:
    log = trtexec(root, unpacked)
    out = unpacked.parent / "report.json"
    assert runner.main(["--preset", "publishable", "--out", str(out)], folder=unpacked, machine=jetson) == runner.OK
    found = report.load(out)
    assert log.read_text().count("--loadEngine") == found["timing"]["sessions"] == 3
    assert log.read_text().count("--saveEngine") == 1 and found["timing"]["iters"] == 3 * 1024
    assert report.grade(found).letter == "A"


@pytest.mark.usefixtures("no_pauses")
def test_the_power_of_an_engine_is_that_of_its_work_not_of_its_start(
    unpacked: Path, root: Path, jetson: Machine
) -> None:
    trtexec(root, unpacked)
    path, amperes = root / "usr/src/tensorrt/bin/trtexec", root / "sys/class/hwmon/hwmon1/curr1_input"
    at = 'print("[11/23/2026-18:00:09] [I] Engine deserialized'
    start = "\n".join(f'open("{amperes}", "w").write("{ma}"); import time; time.sleep({s})'
                      for ma, s in [(200, 0.8), (1200, 1.2)])  # fmt: skip
    path.write_text(path.read_text().replace(at, f"{start}\n{at}"))
    assert reported(unpacked, jetson)["state"]["power_w"] == {"min": 6.0, "mean": 6.0, "max": 6.0}


@pytest.mark.usefixtures("no_pauses")
def test_energy_is_told_gross_and_net_of_what_the_board_draws_when_idle(
    unpacked: Path, root: Path, jetson: Machine
) -> None:
    trtexec(root, unpacked)
    path, amperes = root / "usr/src/tensorrt/bin/trtexec", root / "sys/class/hwmon/hwmon1/curr1_input"
    amperes.write_text("850")  # until trtexec is asked for its version
    script = path.read_text()
    path.write_text(script.replace("import json, sys\n", f'import json, sys\nopen("{amperes}", "w").write("1203")\n'))
    found = reported(unpacked, jetson, "--batch", "2")
    assert found["state"]["idle_power_w"] == 4.25 and found["state"]["power_w"]["mean"] == 6.015
    assert found["energy"] == {
        "mj_per_image": pytest.approx(6.015 * EACH_MS / 2), "net_of_idle": False,
        "mj_per_image_net": pytest.approx((6.015 - 4.25) * EACH_MS / 2, abs=1e-6), "rail": "VDD_IN",
    }  # fmt: skip


@pytest.mark.usefixtures("no_pauses")
def test_what_is_drawn_when_idle_is_told_by_tegrastats_where_sysfs_says_nothing(root: Path) -> None:
    machine = put(root, {k: v for k, v in JETSON.items() if "hwmon" not in k})
    assert runner.idle_w(machine, pytest.fail) is None  # and nobody waits for it
    stand_in(root, "tegrastats", f'while :; do echo "{ORIN}"; sleep 0.02; done')
    assert runner.idle_w(machine) == 4.856


def test_energy_goes_by_the_wall_clock_where_there_are_two() -> None:
    state = {"power_w": {"min": 4.0, "mean": 5.0, "max": 6.0}, "power_rail": "VDD_IN", "idle_power_w": 3.0}
    energy = runner.energy_of(state, {"p50": 1.0, "wall": {"p50": 1.5}}, 2)
    assert (energy["mj_per_image"], energy["mj_per_image_net"]) == (3.75, 1.5)
    queued = runner.energy_of(state, {"p50": 1.0, "wall": {"p50": 1.5}}, 2, period_ms=1.25)
    assert (queued["mj_per_image"], queued["mj_per_image_net"]) == (3.125, 1.25)
    assert runner.energy_of(state | {"power_rail": None}, {"p50": 1.0}, 1) is None
    assert runner.energy_of(state | {"idle_power_w": None}, {"p50": 1.0}, 1)["mj_per_image_net"] is None


def less_free(files: dict[str, str], kb: int) -> dict[str, str]:
    return files | {"proc/meminfo": re.sub(r"MemAvailable: \d+", f"MemAvailable: {kb}", files["proc/meminfo"])}


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(("files", "kb", "base"), [(JETSON, 1_100_000, "1,000"), (PI, 80_000, "60")])
def test_a_batch_that_would_make_a_board_swap_is_refused_before_anything_is_opened(
    files: dict[str, str], kb: int, base: str, unpacked: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    board, log = put(root, less_free(files, kb)), trtexec(root, unpacked)
    monkeypatch.setattr(runner.OnnxRuntime, "__init__", lambda *_: pytest.fail("it was opened"))
    assert runner.main([*OPTIONS, "--batch", "20000"], folder=unpacked, machine=board) == runner.FAILED
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.match(rf"runner\.py: batch 20000 does not fit: it needs about [\d,]+ MB \({base} for the runtime, ", said)
    assert re.search(r"and [\d,]+ MB are free; a batch of \d+ would fit$", said) and not log.exists()


@pytest.mark.usefixtures("no_pauses")
def test_a_board_on_which_it_is_tight_is_told_so_and_timed(unpacked: Path, root: Path, capsys) -> None:
    reported(unpacked, put(root, less_free(PI, 70_000)), "--seconds", "0.05", "--threads", "1")
    assert "runner.py: batch 1 is tight: it needs about 60 of the 68 MB that are free" in capsys.readouterr().err


def test_memory_is_asked_of_where_the_network_runs(root: Path, jetson: Machine, monkeypatch) -> None:
    torch = pytest.importorskip("torch")
    auto, cpu = (runner.parser().parse_args(["--device", device]) for device in ("auto", "cpu"))
    computer = Machine(root / "nothing")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2_000_000_000, 8_000_000_000))
    assert runner.Torch.room(QUIET, computer, auto)[0] == 2000.0 != QUIET.free_mb
    assert runner.Torch.room(QUIET, computer, cpu)[0] == runner.Torch.room(QUIET, jetson, auto)[0] == QUIET.free_mb
    assert runner.TrtExec.room(QUIET, computer, auto)[0] is None  # a card's own memory, of which nobody tells


@pytest.mark.usefixtures("no_pauses")
def test_an_old_tensorrt_is_refused_with_the_reason(unpacked: Path, root: Path, jetson: Machine, capsys) -> None:
    trtexec(root, unpacked, version="8602")
    assert runner.main(OPTIONS, folder=unpacked, machine=jetson) == runner.MISSING
    assert "trtexec is of TensorRT 8.6.2; the pack needs 10 or newer" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pauses")
def test_a_failing_trtexec_is_quoted(unpacked: Path, root: Path, jetson: Machine, capsys) -> None:
    trtexec(root, unpacked, broken=True)
    assert runner.main(OPTIONS, folder=unpacked, machine=jetson) == runner.FAILED
    said = capsys.readouterr().err
    assert "trtexec failed with exit code 1" in said and "no importer for Gelu" in said


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("[TensorRT v100300]", (10, 3, 0)),
        ("[TensorRT v101303]", (10, 13, 3)),
        ("[TensorRT v110400]", (11, 4, 0)),
        ("[TensorRT v8602]", (8, 6, 2)),
    ],
)
def test_the_version_of_tensorrt_is_read(banner: str, version: tuple[int, int, int]) -> None:
    assert runner.trt_version(f"&&&& RUNNING TensorRT.trtexec {banner} [b17] # trtexec --help") == version


@pytest.mark.parametrize("text", ["", "[", "{}", '[{"latencyMs": 1}]', "[]", '[{"computeMs": "fast"}]'])
def test_times_that_cannot_be_read_are_a_sentence(text: str) -> None:
    with pytest.raises(runner.Broken, match="trtexec"):
        runner.trt_times(text)
    with pytest.raises(runner.Broken, match="trtexec"):
        runner.trt_times(text.replace("latencyMs", "other"), "latencyMs")


@pytest.mark.parametrize("text", ["", '[{"name": "other", "values": [1]}]', '[{"name": "image", "values": [nan]}]'])
def test_images_that_cannot_be_read_are_a_sentence(text: str) -> None:
    with pytest.raises(runner.Broken, match="trtexec's images"):
        runner.trt_output(text)


def hot(root: Path, jetson: Machine) -> None:
    """Its clock falls as soon as the engine is there."""
    path = root / "usr/src/tensorrt/bin/trtexec"
    at = 'print("[11/23/2026-18:00:09] [I] Engine deserialized'
    clock = root / "sys/class/devfreq/17000000.gpu/cur_freq"
    slow = f'open("{clock}", "w").write("306000000"); import time; time.sleep(0.2)\n'
    path.write_text(path.read_text().replace(at, slow + at))


def swapping(root: Path, jetson: Machine) -> None:
    (root / "proc/meminfo").write_text(JETSON["proc/meminfo"].replace("SwapFree: 3901440", "SwapFree: 3835904"))


def without_mode(root: Path, jetson: Machine) -> None:
    (root / "var/lib/nvpmodel/status").unlink()


def wrong(root: Path, jetson: Machine) -> None:
    path = root / "usr/src/tensorrt/bin/trtexec"
    path.write_text(path.read_text().replace("values = [1.0 * v", "values = [0.2 * v"))


DOUBTS = {
    hot: ("the device was throttled", runner.OK),
    swapping: ("64 MB of swap were in use", runner.OK),
    without_mode: ("the power mode is unknown, and a jetson has several", runner.OK),
    wrong: ("the output is wrong", runner.FAILED),
}


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("happens", DOUBTS, ids=[d.__name__ for d in DOUBTS])
def test_a_board_in_trouble_is_kept_as_a_d_and_recommended_by_nobody(
    happens: Callable, unpacked: Path, root: Path, jetson: Machine, tmp_path: Path
) -> None:
    trtexec(root, unpacked)
    happens(root, jetson)
    words, code = DOUBTS[happens]
    reported(unpacked, jetson, code=code)
    store = Store(tmp_path / "results")
    (arrival,) = import_reports([unpacked.parent / "report.json"], store)
    assert arrival.grade.letter == "D" and words in arrival.grade.reasons
    reports = store.reports()
    assert len(reports) == 1
    assert timings(reports, Budget(device=JETSON["proc/device-tree/model"].strip("\0"))).empty


@pytest.mark.usefixtures("no_pauses")
def test_a_pi_runs_onnxruntime_by_itself(unpacked: Path, root: Path, pi: Machine) -> None:
    stand_in(root, "vcgencmd", "echo throttled=0x0")
    found = reported(unpacked, pi, "--seconds", "0.05", "--threads", "1")
    assert (found["software"]["runtime"], found["device"]["family"]) == ("onnxruntime", "rpi")
    assert found["state"]["throttled"] is False and found["state"]["power_mode"] == "governor performance"
    assert found["energy"] is None


def test_text_of_a_board_is_made_fit_to_be_shown() -> None:
    given = {"name": "Orin \x1b[31m<b>\u00fc", "flags": ["`a`"], "deep": {"n": 1.5, "none": None}, "long": "x" * 999}
    assert runner.plain(given) == {"name": "Orin   31m b", "flags": ["a"], "deep": {"n": 1.5, "none": None},
                                    "long": "x" * 200}  # fmt: skip


def test_clocks_that_are_seldom_low_are_no_throttling() -> None:
    channel = runner.SideChannel(Machine("/nowhere"))
    channel.seen["gpu_mhz"] = [1000.0] * 199 + [500.0]
    assert channel.below({"gpu_mhz": 1000.0}) is False
    channel.seen["gpu_mhz"] = [1000.0] * 90 + [500.0]
    assert channel.below({"gpu_mhz": 1000.0}) is True
    assert channel.below({}) is None


# --- Python 3.10, the oldest that a JetPack has ---


@pytest.fixture(scope="module")
def python310() -> str:
    """An interpreter of Python 3.10 without any package."""
    found = [shutil.which("python3.10"), *map(str, Path.home().glob(".pyenv/versions/3.10*/bin/python3.10"))]
    for path in filter(None, found):
        # A shim of pyenv stands there whether it has one or not.
        said = subprocess.run([path, "-I", "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True)
        if said.stdout.split() == [b"3", b"10"]:
            return path
    pytest.skip("there is no Python 3.10: neither as python3.10 nor under ~/.pyenv/versions")


def by(python: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The pack's runner by another interpreter, as on a board."""
    return subprocess.run([python, "-I", "runner.py", *options], cwd=folder, capture_output=True, text=True)


def by_script(python: str, folder: Path, board: Path, options: Sequence[str], first: str = "") -> dict[str, Any]:
    """The report that the runner makes on a simulated board, with some Python before it is run."""
    script = f"import sys; sys.path.insert(0, '.'); import runner\nfrom pathlib import Path\n{first}\n"
    script += f"sys.exit(runner.main(sys.argv[1:], folder=Path('.'), machine=runner.Machine({str(board)!r})))"
    command = [python, "-I", "-c", script, *options, "--out", "../report.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return report.load(folder.parent / "report.json")


# What a runtime has for the runner, for an interpreter that has none.
STAND_IN = """
class StandIn:
    name, reported, kind, precision = "onnxruntime", "onnxruntime", "onnx", "fp32"
    scopes, devices = ("core",), ("cpu",)
    missing = staticmethod(lambda machine: None)
    room = staticmethod(lambda before, machine, options: (before.free_mb, 60.0))
    version, flags, gpu, software = "0", [], None, {}

    def __init__(self, pack, path, options):
        self.image = pack.rows("image", options.batch)

    def place(self, z, y):
        return z

    def run(self, z):
        sum(z)
        return self.image

    def values(self, output):
        return output

    def events(self):
        return None

    def peak_mb(self):
        return None

runner.RUNTIMES["onnxruntime"] = StandIn
"""


@pytest.mark.slow
def test_python_3_10_tells_its_options_and_what_it_refuses(python310: str, unpacked: Path) -> None:
    told = by(python310, unpacked, "--help")
    assert told.returncode == runner.OK and "--ambient C" in told.stdout and "Exit codes" in told.stdout
    for options, code, words in [
        (["--batch", "0"], runner.USAGE, "must be a whole number of at least 1, got '0'"),
        (["--ambient", "99"], runner.USAGE, "must be degrees Celsius between -40 and 85, got '99'"),
        (["--runtime", "trtexec", "--scope", "e2e"], runner.USAGE, "trtexec can't time scope e2e"),
        (["--device", "cpu"], runner.MISSING, "no runtime for this is here"),
    ]:
        done = by(python310, unpacked, *options)
        assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr
    (unpacked / "README.md").write_text("another one")
    done = by(python310, unpacked)
    assert done.returncode == runner.FAILED and done.stderr.startswith("runner.py: README.md is not the file that was")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_python_3_10_reads_a_jetson_and_times_its_engine(python310: str, unpacked: Path, root: Path) -> None:
    bare = {k: v for k, v in JETSON.items() if "hwmon" not in k}
    put(root, bare)
    process(root, 11, "a\x1b[31m", 1000)
    trtexec(root, unpacked)
    stand_in(root, "tegrastats", f'while :; do echo "{ORIN}"; sleep 0.05; done')
    found = by_script(python310, unpacked, root, [*OPTIONS, "--ambient", "21"])
    state = found["state"]
    assert found["software"]["python"].startswith("3.10.") and found["software"]["tensorrt"] == "10.3.0"
    assert (state["power_mode"], state["power_rail"], state["ambient_c"]) == ("MAXN_SUPER", "VDD_IN", 21)
    assert state["power_w"]["mean"] == state["idle_power_w"] == 4.856 and state["emc_mhz"]["mean"] == 2133
    assert state["top_processes"] == [] and found["checks"]["output_ok"] is True
    assert found["timing"]["clock"] == "cuda_event" and found["energy"]["mj_per_image"] > 0


@pytest.mark.slow
def test_python_3_10_times_a_network_by_a_stand_in_of_a_runtime(python310: str, unpacked: Path, root: Path) -> None:
    put(root, PI)
    options = ["--seconds", "0.1", "--threads", "1", "--batch", "3"]
    found = by_script(python310, unpacked, root, options, STAND_IN)
    assert found["software"]["python"].startswith("3.10.") and found["device"]["family"] == "rpi"
    assert found["timing"]["iters"] >= 100 and found["timing"]["iqr"] >= 0 and found["checks"]["max_abs_vs_ref"] == 0


@pytest.mark.slow
def test_python_3_10_times_a_network_by_its_own_onnxruntime(python310: str, unpacked: Path, tmp_path: Path) -> None:
    subprocess.run([python310, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    got = subprocess.run([python, "-m", "pip", "install", "-q", "onnxruntime"], capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"onnxruntime can't be had for Python 3.10 here: {got.stderr.strip()[-200:]}")
    for scope in ("core", "e2e"):
        options = ["--seconds", "0.1", "--threads", "1", "--batch", "3", "--scope", scope, "--out", "r.json"]
        done = by(python, unpacked, *options)
        assert done.returncode == runner.OK, done.stderr
        found = report.load(unpacked / "r.json")
        assert found["software"]["python"].startswith("3.10.") and found["software"]["runtime"] == "onnxruntime"
        assert found["checks"]["output_ok"] is True and found["workload"]["scope"] == scope
