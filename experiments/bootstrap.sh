#!/usr/bin/env bash
# Prepares this checkout: Debian packages, the Python environment in .venv, and the build in build/cpu.
# Idempotent: each step looks first and does nothing when there is nothing to do.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: experiments/bootstrap.sh [OPTION]...

Installs what is missing, then builds the program (build/cpu/specmoe) and the Python module.

  --no-build    stop after the packages
  --cuda        also cuBLAS for the CUDA build, where there is nvcc and its toolkit came without (420 MB)
  --no-system   do not look at Debian packages (another distribution, or tools of your own)
  --help        this text

Environment:
  PYTHON        the interpreter for .venv (3.11 or later; default: python3.11, then python3)
  JOBS          parallel compile jobs (default: all cores)
TEXT
}

build=yes
cuda=no
system=yes
for argument in "$@"; do
  case "$argument" in
    --no-build) build=no ;;
    --cuda) cuda=yes ;;
    --no-system) system=no ;;
    --help | -h) usage; exit 0 ;;
    *) echo "bootstrap: unknown option '$argument'; see --help" >&2; exit 2 ;;
  esac
done

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"

# Compiler and build, Python, then the C++ libraries.
packages=(
  g++ cmake ninja-build ccache git
  python3 python3-venv python3-dev
  libgtest-dev libeigen3-dev libboost-program-options-dev nlohmann-json3-dev libonig-dev
)
torch_version=2.13.0
cublas=nvidia-cublas==13.0.2.14
requirements=python/requirements.txt
venv=.venv

# Progress goes to stderr: the results of the scripts that call this one own stdout.
say() { printf '[%3ds] %s\n' "$SECONDS" "$*" >&2; }
die() { printf 'bootstrap: %s\n' "$*" >&2; exit 1; }

missing_packages() {
  local package
  for package in "${packages[@]}"; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    say "not a Debian system: continuing with the tools found; on Debian they are: ${packages[*]}"
    return
  fi
  local missing
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]} == 0)); then return; fi

  local install=(apt-get install --yes --no-install-recommends "${missing[@]}")
  local as_root=()
  if ((EUID != 0)); then
    # Without a terminal sudo cannot ask for a password, so it must not need one.
    if command -v sudo >/dev/null && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
      as_root=(sudo)
    else
      die "these Debian packages are missing, and neither root nor sudo is at hand. Have an administrator run:
  apt-get update && ${install[*]}
then run this again (--no-system skips this check)."
    fi
  fi
  say "Debian packages: installing ${missing[*]}"
  as_root+=(env DEBIAN_FRONTEND=noninteractive)
  "${as_root[@]}" apt-get -qq -o Acquire::Retries=3 update >&2 || say "apt-get update failed; trying with the lists at hand"
  "${as_root[@]}" "${install[@]}" -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 </dev/null >&2 \
    || die "apt-get could not install: ${missing[*]}"
}

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 /usr/bin/python3.11 python3 /usr/bin/python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  die "no Python 3.11 or later with the venv module was found; install python3-venv or set PYTHON"
}

# libtorch is the one large package, and the default index carries it with gigabytes of CUDA. So look for the CPU build
# first, wherever pip is told to look; the default one works as well.
install_torch() {
  local pip=("$@")
  if "${pip[@]}" --no-deps "torch==$torch_version+cpu" 2>/dev/null; then return; fi
  say "Python packages: pip's index has no torch $torch_version+cpu; taking the default build, a download of some gigabytes"
  say "  (to avoid it, stop here and point PIP_EXTRA_INDEX_URL at PyTorch's index of CPU wheels)"
}

install_python_packages() {
  local stamp="$venv/installed" wanted
  wanted="$root $(cat "$requirements" "${BASH_SOURCE[0]}" | sha256sum)"
  if [[ -x "$venv/bin/python" && -f "$stamp" && "$(<"$stamp")" == "$wanted" ]]; then return; fi

  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    local python
    python="$(find_python)"
    say "Python environment: $venv from $("$python" --version 2>&1)"
    "$python" -m venv --clear "$venv"
  fi
  say "Python packages: $(grep -c '==' "$requirements") pinned ones into $venv (about 200 MB to download the first time)"
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input install)
  [[ -t 2 ]] || pip+=(--quiet)
  {
    install_torch "${pip[@]}"
    "${pip[@]}" --requirement "$requirements" || die "pip could not install $requirements; its message is above"
  } >&2
  link_module
  echo "$wanted" >"$stamp"
}

# Where there is a CUDA compiler but its toolkit came without cuBLAS, the CUDA build takes it from here.
install_cublas() {
  local nvcc toolkit
  nvcc="$(command -v nvcc)" || return 0
  "$venv/bin/python" -c 'import sys; from importlib.util import find_spec
sys.exit(not (find_spec("nvidia") and find_spec("nvidia.cu13")))' && return
  # The toolkit is where nvcc says that it is: nvcc itself may be a link or a script.
  toolkit="$("$nvcc" --dryrun --cuda --output-file /dev/null -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')"
  if compgen -G "${toolkit:-/usr/local/cuda}/lib64/libcublasLt.so*" >/dev/null ||
    compgen -G "${toolkit:-/usr/local/cuda}/targets/*/lib/libcublasLt.so*" >/dev/null; then return; fi
  say "Python packages: $cublas, which the CUDA toolkit at hand lacks (a download of 420 MB)"
  "$venv/bin/python" -m pip --disable-pip-version-check --no-input install --quiet --no-deps "$cublas" >&2 ||
    die "pip could not install $cublas; its message is above"
}

# `import specmoe` from .venv finds the sources in python/ and the compiled module in build/cpu.
link_module() {
  local site
  site="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  printf '%s\n' "$root/python" "$root/build/cpu" >"$site/specmoe_checkout.pth"
}

build_program() {
  local log=build/cpu/configure.log
  mkdir -p build/cpu
  if [[ ! -f build/cpu/build.ninja ]]; then
    say "configuring build/cpu"
    cmake --preset cpu >"$log" 2>&1 || { tail -n 40 "$log" >&2; die "cmake could not configure; the whole log is $log"; }
  fi
  say "building build/cpu/specmoe and the Python module (the first time takes some minutes)"
  cmake --build build/cpu --parallel "${JOBS:-$(nproc)}" --target specmoe_program _specmoe >&2 \
    || die "the build failed; the compiler's message is above"
}

if [[ $system == yes ]]; then install_packages; fi
# Two scripts started at once would write into one .venv: the second waits.
exec 9<"${BASH_SOURCE[0]}"
flock 9
install_python_packages
if [[ $cuda == yes ]]; then install_cublas; fi
if [[ $build == yes ]]; then build_program; fi
