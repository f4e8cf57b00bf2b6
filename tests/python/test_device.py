"""specmoe.load(device="cuda") in the module that the preset cuda builds, on machines with a device and without one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/cuda"
HAS_DEVICE = Path("/dev/nvidia0").exists()

pytestmark = pytest.mark.skipif(not list(BUILD.glob("_specmoe.*.so")), reason="no module in build/cuda")


def run(code: str) -> subprocess.CompletedProcess:
    """In a process of its own, which finds the module in build/cuda before that in build/cpu."""
    path = os.pathsep.join([str(BUILD), str(ROOT / "python")])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "error"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(HAS_DEVICE, reason="this machine has a device")
def test_without_a_device_one_line_says_what_to_do(target_path):
    done = run(f"""
import specmoe
try:
    specmoe.load({str(target_path)!r}, device="cuda")
except specmoe.Error as error:
    print(error)
print(specmoe.load({str(target_path)!r}, threads=1).info.device)
""")
    assert done.returncode == 0, done.stderr
    error, after = done.stdout.splitlines()
    assert "CUDA device 0 does not exist" in error
    assert "cpu" in error
    assert after == "cpu"


@pytest.mark.skipif(not HAS_DEVICE, reason="this machine has no device")
def test_on_a_device_the_argmaxes_are_the_cpus(target_path):
    done = run(f"""
import specmoe
ids = list(range(3, 40))
rows = [specmoe.load({str(target_path)!r}, "float32", device).logits(ids).argmax(-1) for device in ("cpu", "cuda")]
print((rows[0] == rows[1]).all())
""")
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
