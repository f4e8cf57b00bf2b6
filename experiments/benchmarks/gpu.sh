#!/usr/bin/env bash
# Builds for the CUDA device of this machine, tests, looks for races and measures: within ten minutes on 16 cores.
# What it finds goes to RESULTS (default: results/gpu): logs, and one JSON line per measurement.
# A machine without a network takes the libraries from .gpu/prefix, which pack_dependencies.sh makes.
#     experiments/benchmarks/gpu.sh [RESULTS]
set -uo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$root"
results="${1:-results/gpu}"
mkdir -p "$results"
failures=0

# phase NAME SECONDS COMMAND...: its output goes to a log, whose end is shown.
phase() {
  local name="$1" limit="$2" start=$SECONDS status=0
  shift 2
  timeout "$limit" bash -c '"$@"' phase "$@" >"$results/$name.log" 2>&1 || status=$?
  printf '\n[%4ds] %s: %s, %d s\n' "$SECONDS" "$name" "$( ((status)) && echo "FAILED ($status)" || echo ok)" \
    $((SECONDS - start))
  tail -n "${LINES_SHOWN:-4}" "$results/$name.log"
  ((status == 0)) || failures=$((failures + 1))
  return $status
}

configure() {
  local options=(-DSPECMOE_CUDA_ARCHITECTURES=native)
  if [[ -d .gpu/prefix ]]; then options+=(-DCMAKE_PREFIX_PATH="$PWD/.gpu/prefix"); fi
  cmake --preset cuda "${options[@]}"
}

# The tests of whole passes run every kernel; a sanitizer makes them some hundred times slower.
sanitize() {
  compute-sanitizer --tool "$1" --error-exitcode 9 build/cuda/tests/cuda/cuda_tests \
    --gtest_filter='*DecodeStep*:*Rope*:*Keep*:*Committed*:*FollowsTheArgmax*:*RefusesRows*:*BranchesHave*' --gtest_brief=1
}

export -f configure sanitize

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | tee "$results/device.txt"
phase configure 60 configure || exit 1
phase build 300 cmake --build build/cuda --parallel --target cuda_tests device_bench specmoe_program || exit 1
phase tests 60 build/cuda/tests/cuda/cuda_tests --gtest_brief=1
LINES_SHOWN=60 phase steps 120 build/cuda/device_bench "$results/device_steps.jsonl"
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck; do phase "$tool" 60 sanitize "$tool"; done
else
  echo "compute-sanitizer is not installed: memcheck, racecheck and synccheck were not run"
fi
printf '\n%d s in all, %d phases failed\n' "$SECONDS" "$failures"
((failures == 0))
