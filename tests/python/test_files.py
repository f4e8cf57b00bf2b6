"""Files that the program writes: on the disk before they have their name, whole or not there, one writer at a time."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from program import (
    BENCH,
    DRAFTER,
    GENERATE,
    PROGRAM,
    PROMPT,
    ROOT,
    SMALL,
    TARGET,
    expect_one_line,
    ok,
    read_jsonl,
    specmoe,
)

# A library that tells, in order, what a program puts on the disk and what it renames.
WATCHER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void note(const char* verb, const char* path) {
  const char* log = getenv("SYNC_LOG");
  const int file = log ? open(log, O_WRONLY | O_CREAT | O_APPEND, 0666) : -1;
  if (file < 0) return;
  dprintf(file, "%s %s\n", verb, path);
  close(file);
}
int fsync(int file) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  path[length < 0 ? 0 : length] = 0;
  note("sync", path);
  return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
}
int rename(const char* from, const char* to) {
  note("rename to", to);
  return ((int (*)(const char*, const char*))dlsym(RTLD_NEXT, "rename"))(from, to);
}
"""


@pytest.fixture(scope="module")
def watcher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watcher")
    (folder / "watcher.c").write_text(WATCHER)
    command = ["cc", "-shared", "-fPIC", "-o", folder / "watcher.so", folder / "watcher.c", "-ldl"]
    subprocess.run(command, check=True)
    return folder / "watcher.so"


@pytest.fixture
def watched(watcher, tmp_path):
    """Runs the program and returns what it did: ("sync" or "rename to", path)."""

    def run(*arguments) -> list[tuple[str, Path]]:
        log = tmp_path / "log"
        ok(*arguments, env={**os.environ, "LD_PRELOAD": str(watcher), "SYNC_LOG": str(log)})
        return [
            (verb, Path("/" + path))
            for verb, path in (line.split(" /", 1) for line in log.open().read().split("\n")[:-1])
        ]

    return run


def test_results_are_on_the_disk_before_they_have_their_name(watched, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    out = folder / "out.jsonl"
    assert watched(*GENERATE, "--output", out) == [
        ("sync", folder / "out.jsonl.tmp"),
        ("rename to", out),
        ("sync", folder),
    ]


def test_a_converted_folder_is_on_the_disk_before_it_has_its_name(watched, tmp_path):
    out = tmp_path / "small"
    done = watched("convert", "--target", SMALL, "--dtype", "int8", "--out", out)
    assert done[-2:] == [("rename to", out), ("sync", tmp_path)]
    assert {verb for verb, _ in done[:-2]} == {"sync"}
    synced = [path for _, path in done[:-2]]
    assert {path.name for path in synced[:-1]} == {path.name for path in out.iterdir()}
    assert synced[-1].parent == tmp_path and synced[-1].name.startswith("small.tmp-")


def test_the_commit_is_that_of_specmoe_alone(tmp_path):
    for file in (PROGRAM, PROGRAM.with_name("libspecmoe.so")):
        shutil.copy(file, tmp_path)
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "somebody's own"], check=True)
    out = tmp_path / "out.jsonl"
    own = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    subprocess.run([tmp_path / "specmoe", *BENCH, "--output", out], check=True, capture_output=True, env=own)
    assert read_jsonl(out)[-1]["provenance"]["commit"] == "unknown"


def test_each_cell_is_on_the_disk_before_the_next_is_measured(watched, tmp_path):
    cells = tmp_path / "cells.jsonl"
    os.utime(ROOT / "README.md")  # an index that asks to be refreshed: finding the commit must leave it alone
    done = watched(*BENCH, "--tree", "chain(1);chain(2);chain(3)", "--cells", cells)
    assert done == [("sync", cells)] * len(read_jsonl(cells)) and len(done) == 3


LONG = [
    "bench", "--target", TARGET, "--drafter", DRAFTER, "--prompt", PROMPT, "--max-new-tokens", "800", "--ignore-eos",
    "--repeat", "5000",
]  # fmt: skip


def started(*arguments) -> subprocess.Popen:
    """A run of the program that has opened its files and loaded its models."""
    process = subprocess.Popen(
        [PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while "drafter" not in process.stderr.readline():
        assert process.poll() is None
    return process


def test_one_writer_at_a_time_and_a_killed_one_leaves_no_result(tmp_path):
    out = tmp_path / "out.jsonl"
    with started(*LONG, "--output", out) as process:
        expect_one_line(specmoe(*GENERATE, "--output", out), "another run is writing")
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    ok(*GENERATE, "--output", out)
    assert [row["kind"] for row in read_jsonl(out)] == ["answer"]
    assert list(tmp_path.iterdir()) == [out]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.jsonl").write_text("old\n")
    link = tmp_path / "latest.jsonl"
    link.symlink_to("real.jsonl")
    ok(*GENERATE, "--output", link)
    assert link.is_symlink() and read_jsonl(tmp_path / "real.jsonl")[0]["kind"] == "answer"
    assert {path.name for path in tmp_path.iterdir()} == {"real.jsonl", "latest.jsonl"}


def test_a_file_in_shared_memory_is_replaced(tmp_path):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        out = Path(folder) / "out.jsonl"
        for _ in range(2):
            ok(*GENERATE, "--output", out)
            assert len(read_jsonl(out)) == 1 and os.listdir(folder) == ["out.jsonl"]


def test_a_stream_of_the_process_is_appended_to(tmp_path):
    both = tmp_path / "both"
    with both.open("wb") as stdout:
        command = [PROGRAM, *GENERATE, "--quiet", "--output", "/proc/self/fd/1"]
        assert subprocess.run(command, stdout=stdout, timeout=60).returncode == 0
    lines = both.read_text().splitlines()
    assert any(json.loads(line)["kind"] == "answer" for line in lines if line.startswith("{"))
    assert list(tmp_path.iterdir()) == [both]


def small_files_only():
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


@pytest.mark.parametrize("flag, text", [("--prompts", '{"prompt": "a"}'), ("--config", '{"prompt": ["a"]}')])
def test_an_output_does_not_take_the_place_of_what_is_read(flag, text, tmp_path):
    (tmp_path / "read").write_text(text)
    (tmp_path / "link").symlink_to(tmp_path / "read")
    run = specmoe(*GENERATE[:3], flag, tmp_path / "read", "--output", tmp_path / "link")
    expect_one_line(run, f"--output and {flag} name the same file")
    assert (tmp_path / "read").read_text() == text


@pytest.mark.parametrize("flag", ["--output", "--cells"])
def test_a_full_disk_is_one_line_and_leaves_no_half_result(flag, tmp_path):
    out = tmp_path / "out.jsonl"
    done = specmoe(*BENCH, flag, out, preexec_fn=small_files_only)
    expect_one_line(done, f"{flag}: writing '{out}' failed: File too large")
    assert [path for path in tmp_path.iterdir() if flag == "--output"] == []


def test_a_full_disk_under_convert(tmp_path):
    arguments = ("convert", "--target", SMALL, "--dtype", "int8", "--out", tmp_path / "small")
    expect_one_line(specmoe(*arguments, preexec_fn=small_files_only), "File too large")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["list", "inspect", "generate", "prove"])
def test_output_that_does_not_arrive_is_an_error(command):
    arguments = {
        "list": ["list"],
        "inspect": ["inspect", "--target", SMALL],
        "generate": [*GENERATE, "--quiet"],
        "prove": ["prove", "--accept", "naive", "--tree", "chain(1)"],
    }[command]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "standard output" in done.stderr


def test_a_closed_stdout_is_no_place_for_files(tmp_path):
    out = tmp_path / "out.jsonl"
    command = f"exec {PROGRAM} {' '.join(GENERATE)} --output {out} --quiet >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "standard output" in done.stderr
    assert [row["kind"] for row in read_jsonl(out)] == ["answer"]
