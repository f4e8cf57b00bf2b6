"""Threads and signals: Ctrl-C, forks, models that several threads share."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import specmoe

PROMPT = [3, 141, 59, 26, 53, 58]
LONG = [PROMPT] * 20_000  # far more than is ever waited for


def expect_interruptible(call) -> None:
    # A shell's background job starts with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begin < 20


def test_control_c_ends_a_run(target):
    engine = specmoe.Engine(target)
    expect_interruptible(lambda: engine.generate(LONG, max_new_tokens=200, ignore_eos=True))
    assert len(engine.generate(PROMPT, max_new_tokens=2).token_ids) == 2


def test_control_c_ends_a_proof():
    expect_interruptible(lambda: specmoe.prove("traversal", tree="expansion(3,2,2)", rounds=2))


def test_a_fork_cannot_use_the_threads_of_its_parent(target_path):
    script = (
        "import os, sys, specmoe\n"
        "model = specmoe.load(sys.argv[1], threads=2)\n"
        "engine = specmoe.Engine(model)\n"
        "if os.fork():\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        "for call in (lambda: engine.generate([1]), lambda: model.logits([1]), lambda: specmoe.Engine(model)):\n"
        "    try:\n"
        "        call()\n"
        "        os._exit(1)\n"
        "    except specmoe.Error as error:\n"
        "        assert 'load it in each process' in str(error)\n"
        "sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, target_path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 7, done.stderr


def test_other_threads_run_meanwhile(target):
    engine = specmoe.Engine(target)
    steps = 0
    done = threading.Event()

    def count():
        nonlocal steps
        while not done.is_set():
            steps += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    try:
        before = steps
        results = engine.generate([PROMPT] * 60, max_new_tokens=200, ignore_eos=True)
        assert steps - before >= 10 and len(results) == 60
    finally:
        done.set()
        counter.join()


def test_threads_may_share_a_model(target):
    expected = specmoe.Engine(target).generate(PROMPT, max_new_tokens=30).token_ids.tolist()
    logits = target.logits(PROMPT)
    found = []

    def work(drafter):
        engine = specmoe.Engine(target, drafter=drafter)
        for _ in range(10):
            same = engine.generate(PROMPT, max_new_tokens=30).token_ids.tolist() == expected
            found.append(same and (target.logits(PROMPT) == logits).all())

    threads = [threading.Thread(target=work, args=(d,)) for d in [None, "ngram", "synthetic"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 30 and all(found)
