"""experiments/bootstrap.sh against stand-ins for dpkg-query, apt-get, sudo and .venv/bin/python."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


class Sandbox:
    """A checkout of two files and a PATH whose first folder holds the stand-ins."""

    def __init__(self, root: Path):
        self.root, self.tools = root, root / "tools"
        self.log = root / "log"
        for name in ("experiments/bootstrap.sh", "python/requirements.txt"):
            (root / name).parent.mkdir(parents=True)
            shutil.copy(ROOT / name, root / name)
        self.log.touch()
        self.tool("tools/dpkg-query", 'for package; do :; done; [ "$package" = libonig-dev ] || echo installed')
        self.tool("tools/apt-get", f'echo "apt-get $*" >>{self.log}')
        self.tool(".venv/bin/python", f'echo "python $*" >>{self.log}; echo {root}')
        for path in [root, *root.rglob("*")]:
            path.chmod(0o777)

    def tool(self, path: str, body: str):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o777)

    def run(self, *options: str, user: int | None = None) -> subprocess.CompletedProcess:
        command = [self.root / "experiments/bootstrap.sh", "--no-build", *options]
        environment = {"PATH": f"{self.tools}:/usr/bin:/bin", "HOME": "/nonexistent"}
        return subprocess.run(
            command, env=environment, user=user, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )


@pytest.fixture
def sandbox():
    # Not tmp_path: another user has to be able to enter it.
    with tempfile.TemporaryDirectory() as folder:
        yield Sandbox(Path(folder))


def test_installs_what_is_missing_and_nothing_else(sandbox):
    sandbox.tool("tools/sudo", '[ "$1" = -n ] && shift; exec "$@"')
    done = sandbox.run()
    assert done.returncode == 0, done.stderr
    calls = sandbox.log.read_text().splitlines()
    installed = [call for call in calls if call.startswith("apt-get install")]
    assert len(installed) == 1
    assert "libonig-dev" in installed[0]
    assert "cmake" not in installed[0]
    assert "libonig-dev" in done.stderr
    assert any("pip" in call and "requirements.txt" in call for call in calls)


def test_second_run_does_nothing(sandbox):
    sandbox.tool("tools/dpkg-query", "echo installed")
    assert sandbox.run().returncode == 0
    sandbox.log.write_text("")
    done = sandbox.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sandbox.log.read_text() == ""


def test_changed_requirements_are_installed(sandbox):
    sandbox.tool("tools/dpkg-query", "echo installed")
    assert sandbox.run().returncode == 0
    with (sandbox.root / "python/requirements.txt").open("a") as file:
        file.write("another==1.0\n")
    sandbox.log.write_text("")
    assert sandbox.run().returncode == 0
    assert "requirements.txt" in sandbox.log.read_text()


def test_cublas_comes_when_asked_for_and_the_toolkit_has_none(sandbox):
    sandbox.tool("tools/dpkg-query", "echo installed")
    sandbox.tool(".venv/bin/python", f'case "$*" in *nvidia.cu13*) exit 1 ;; esac; echo "python $*" >>{sandbox.log}')
    sandbox.tool("tools/nvcc", f"echo '#$ TOP={sandbox.root}/cuda' >&2")
    assert sandbox.run().returncode == 0
    assert "nvidia-cublas" not in sandbox.log.read_text()
    assert sandbox.run("--cuda").returncode == 0
    assert "nvidia-cublas==" in sandbox.log.read_text()
    sandbox.log.write_text("")
    library = sandbox.root / "cuda/lib64/libcublasLt.so.13"
    library.parent.mkdir(parents=True)
    library.touch()
    assert sandbox.run("--cuda").returncode == 0
    assert sandbox.log.read_text() == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_without_root_or_sudo_it_names_the_packages(sandbox):
    sandbox.tool("tools/sudo", "echo a password is required >&2; exit 1")
    done = sandbox.run(user=NOBODY)
    assert done.returncode == 1
    assert "apt-get install --yes --no-install-recommends libonig-dev\n" in done.stderr
    assert sandbox.log.read_text() == ""


def test_failing_apt_is_an_error(sandbox):
    sandbox.tool("tools/sudo", '[ "$1" = -n ] && shift; exec "$@"')
    sandbox.tool("tools/apt-get", "exit 100")
    done = sandbox.run()
    assert done.returncode == 1
    assert "apt-get could not install: libonig-dev" in done.stderr


def test_unknown_option(sandbox):
    done = sandbox.run("--fast")
    assert done.returncode == 2
    assert "'--fast'" in done.stderr


def test_this_checkout_is_set_up():
    done = subprocess.run([ROOT / "experiments/bootstrap.sh", "--no-build"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
