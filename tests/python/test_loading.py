"""What loading takes in memory, packed weights kept on disk, and the bar that is shown meanwhile."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from program import PROGRAM, PROMPT, ok, specmoe
from program import TARGET as TARGET_TEXT

TARGET = Path(TARGET_TEXT)


def text_of(*arguments: object) -> str:
    return ok(*arguments).stdout


MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def peak_bytes(*arguments: object) -> int:
    """The largest resident memory of the program, mapped files included. Started by a process that is itself small: a
    child counts what its parent had when it forked."""
    command = [sys.executable, "-I", "-S", "-c", MEASURE, PROGRAM, *map(str, arguments)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


def test_loading_takes_little_more_than_the_packed_weights(tmp_path, random_checkpoint):
    folder = random_checkpoint(tmp_path / "model", 10)
    arguments = ("generate", "--target", folder, "--prompt", "Problem", "--max-new-tokens", 1)
    packed = (folder / "model.safetensors").stat().st_size  # bfloat16 too
    # What is mapped of the file, bfloat16 whatever it is packed to, before the first thread releases it (16 MB, more
    # where that thread is kept waiting), and the program itself: 11 to 27 MB in all.
    slack = 0.15 * packed + 16e6
    empty = peak_bytes("list")
    assert peak_bytes(*arguments, "--threads", 2) - empty < packed + slack
    assert peak_bytes(*arguments, "--threads", 2, "--dtype", "int8") - empty < packed / 2 + slack


RESIDENT = """
import re, sys
import specmoe
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
def use(path):
    model = specmoe.load(path, threads=1)
    specmoe.Engine(model).generate([7] * 8, max_new_tokens=56, ignore_eos=True)
    return model
use(sys.argv[1])  # what the process takes whatever the model
before = resident()
model = use(sys.argv[2])
print(resident() - before)
"""


def test_inspect_predicts_resident_memory(tmp_path, random_checkpoint, target_path):
    folder = random_checkpoint(tmp_path / "model", 10)
    text = text_of("inspect", "--target", folder, "--threads", 1)
    total = float(re.search(r"^  total +([\d.]+) MB", text, re.MULTILINE)[1]) * 1e6
    command = [sys.executable, "-c", RESIDENT, str(target_path), str(folder)]
    resident = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert resident == pytest.approx(total, rel=0.1)


def test_cached_weights_give_the_same_text(tmp_path):
    arguments = ("generate", "--target", TARGET, "--prompt", PROMPT, "--max-new-tokens", 24, "--threads", 1)
    plain = text_of(*arguments)
    for _ in range(2):
        assert text_of(*arguments, "--cache", tmp_path / "cache") == plain
    (file,) = (tmp_path / "cache").iterdir()
    assert file.name.startswith("target-bfloat16-") and file.suffix == ".packed"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5000] + b"damaged" + whole[-4993:])
    done = specmoe(*arguments, "--cache", tmp_path / "cache")
    assert done.stdout == plain and done.returncode == 0
    assert re.search(r"^cache .*target-bfloat16.* damaged at byte \d+; packing the weights again$", done.stderr, re.M)
    assert file.read_bytes() == whole


def test_the_cache_in_python(tmp_path):
    import specmoe

    ids = [3, 1, 4, 1, 5]
    expected = specmoe.load(TARGET).logits(ids)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert (specmoe.load(TARGET, cache=tmp_path / "cache").logits(ids) == expected).all()
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"x" * 10000)
    with pytest.warns(RuntimeWarning, match="is not a file of packed weights; packing"):
        assert (specmoe.load(TARGET, cache=str(tmp_path / "cache")).logits(ids) == expected).all()
    file.write_bytes(b"x" * 10000)
    with warnings.catch_warnings(), pytest.raises(RuntimeWarning):
        warnings.simplefilter("error")
        specmoe.load(TARGET, cache=tmp_path / "cache")
    with pytest.raises(specmoe.Error, match="cannot be written"):
        specmoe.load(TARGET, cache="/proc/cache")


def test_a_bar_on_a_terminal_only(tmp_path, random_checkpoint):
    source = random_checkpoint(tmp_path / "source", 12)
    arguments = ["generate", "--target", source, "--prompt", "Problem", "--max-new-tokens", "1", "--threads", "1"]
    assert "#" not in specmoe(*arguments).stderr
    leader, follower = pty.openpty()
    child = subprocess.Popen([PROGRAM, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=follower)
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 4096):
            shown += part
    except OSError:  # the program has closed its end
        pass
    assert child.wait() == 0
    bar = rb"\r\033\[K(\[#*\.*\]) +\d+ % loading " + re.escape(str(source).encode())
    assert {len(drawn) for drawn in re.findall(bar, shown)} == {22}, shown
