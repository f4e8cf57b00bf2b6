#!/usr/bin/env bash
# Builds for the CUDA device of this machine, tests, measures and looks for races: within ten minutes on 16 cores.
# What it finds goes to RESULTS (default: experiments/results/gpu): one JSON line per measurement, host.json which says
# where, logs, and a table at the end. Where device time comes in pieces, name the parts wanted: build comes first.
#     experiments/benchmarks/gpu.sh [RESULTS [PART...]]
#
#   build     the library, its tests, the Python module; meanwhile the random checkpoints of `peers` are written
#   tests     cuda_tests, and the Python module on the device
#   steps     passes of four shapes beside a device copy; chunks of prompts with and without cuBLASLt
#   whole     whole steps of the bundled pair: plain, n-grams, a drafter, with --device-loop and without
#   pair      speculative beside plain decoding on the bundled pair, texts compared
#   peers     slices of Mixtral 8x7B and Qwen3-30B-A3B beside transformers, eager and compiled
#   sanitize  memcheck, racecheck, synccheck
#   table     what was measured beside what was aimed at
#
# A machine without a network takes the libraries from .gpu/prefix, which pack_dependencies.sh makes.
# PYTHON (default: python3) is an interpreter with torch for CUDA, transformers and their NumPy. DEVICE=cpu tries `whole`,
# `pair` and `peers` without a device, at leisure; MODELS (default: .gpu/models) is where the checkpoints of `peers` lie.
set -uo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$root"
results="$(mkdir -p "${1:-experiments/results/gpu}" && cd "${1:-experiments/results/gpu}" && pwd)"
shift $(($# > 0))
parts=("$@")
((${#parts[@]})) || parts=(build tests steps whole pair peers sanitize table)
python="$(command -v "${PYTHON:-python3}")" || { echo "gpu.sh: there is no ${PYTHON:-python3}; set PYTHON" >&2; exit 2; }
models="${MODELS:-.gpu/models}"
device="${DEVICE:-cuda}"
failures=0

# phase NAME SECONDS COMMAND...: its output goes to a log, whose end is shown.
phase() {
  local name="$1" limit="$2" start=$SECONDS status=0
  shift 2
  if [[ $device == cpu ]]; then limit=$((10 * limit)); fi
  timeout "$limit" bash -c '"$@"' phase "$@" >"$results/$name.log" 2>&1 || status=$?
  printf '\n[%4ds] %s: %s, %d s\n' "$SECONDS" "$name" "$( ((status)) && echo "FAILED ($status)" || echo ok)" \
    $((SECONDS - start))
  tail -n "${LINES_SHOWN:-4}" "$results/$name.log"
  ((status == 0)) || failures=$((failures + 1))
  return $status
}

# Without Python's headers there is no module, and everything that does without it goes on.
configure() {
  local module=ON options=(-DSPECMOE_CUDA_ARCHITECTURES=native -DPython3_EXECUTABLE="$python")
  "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    { module=OFF && echo "$python has no Python.h: the module is left out"; }
  options+=(-DSPECMOE_PYTHON="$module")
  if [[ -d .gpu/prefix ]]; then options+=(-DCMAKE_PREFIX_PATH="$PWD/.gpu/prefix"); fi
  cmake --preset cuda "${options[@]}"
}

# Written once: some gigabytes of random numbers each.
make_models() {
  local make=experiments/train/random_checkpoint.py
  mkdir -p "$models"
  [[ -e $models/mixtral/done ]] ||
    { "$python" "$make" mixtral-8x7b "$models/mixtral" --layers 2 --vocab 32000 && touch "$models/mixtral/done"; } &
  [[ -e $models/qwen3/done ]] ||
    { "$python" "$make" qwen3-30b-a3b "$models/qwen3" --layers 4 --vocab 32000 && touch "$models/qwen3/done"; } &
  wait
}

# device_tests [RUNNER...] -- [OPTION...]: where there is no device all are skipped, which is no success.
device_tests() {
  local runner=() found status=0
  while [[ $1 != -- ]]; do runner+=("$1") && shift; done
  shift
  found="$("${runner[@]}" build/cuda/tests/cuda/cuda_tests --gtest_brief=1 "$@" 2>&1)" || status=$?
  printf '%s\n' "$found"
  [[ $found != *"no CUDA device"* ]] && return $status
}

python_test() {
  "$python" -c 'import specmoe
rows = [specmoe.load("experiments/models/target", "float32", device).logits(range(3, 40)).argmax(-1) for device in ("cpu", "cuda")]
assert (rows[0] == rows[1]).all(), rows
print("the module agrees with the CPU")'
}

pair() {
  local loop
  for loop in "" --device-loop; do
    build/cuda/specmoe bench --device "$device" $loop --target experiments/models/target \
      --drafter 'independent(path=experiments/models/drafter); ngram' \
      --tree 'chain(gamma=2), chain(gamma=4), chain(gamma=8), expansion(2,2,1)' --temperature 0,1 \
      --prompts experiments/models/prompts/quickstart.jsonl --ignore-eos --quiet --repeat 2 \
      --output "$results/pair${loop}.jsonl" || return
  done
}

side_by_side() {
  local model
  for model in mixtral qwen3; do
    "$python" experiments/benchmarks/peers.py "$models/$model" --device "$device" --static --rounds 3 --new-tokens 64 --rows 8 \
      --output "$results/peers.jsonl" || return
  done
}

# The tests of whole passes run every kernel; a sanitizer makes them some hundred times slower.
sanitize() {
  device_tests compute-sanitizer --tool "$1" --error-exitcode 9 -- \
    --gtest_filter='*DecodeStep*:*DenseLinear*:*SortedPlans*:*Rope*:*Keep*:*Committed*:*FollowsTheArgmax*:*RefusesRows*:*BranchesHave*'
}

run_build() {
  rm -f "$results"/models.log
  make_models >"$results/models.log" 2>&1 &
  phase configure 60 configure || exit 1
  phase build 300 cmake --build build/cuda --parallel --target cuda_tests device_bench specmoe_program || exit 1
  phase build_module 120 cmake --build build/cuda --parallel --target _specmoe
  wait
}
run_tests() {
  phase tests 90 device_tests --
  phase module 60 python_test
}
run_steps() { LINES_SHOWN=60 phase steps 120 build/cuda/device_bench "$results/device_steps.jsonl"; }
run_whole() {
  rm -f "$results/whole_steps.jsonl"
  LINES_SHOWN=14 phase whole 60 "$python" experiments/benchmarks/device_steps.py --device "$device" \
    --passes "$results/device_steps.jsonl" --output "$results/whole_steps.jsonl"
}
run_pair() { phase pair 90 pair; }
run_peers() {
  rm -f "$results/peers.jsonl"
  phase models 120 make_models && LINES_SHOWN=60 phase peers 240 side_by_side
}
run_sanitize() {
  local tool
  if ! command -v compute-sanitizer >/dev/null; then
    echo "compute-sanitizer is not installed: memcheck, racecheck and synccheck were not run"
    return
  fi
  for tool in memcheck racecheck synccheck; do phase "$tool" 60 sanitize "$tool"; done
}
run_table() { LINES_SHOWN=40 phase table 30 "$python" experiments/benchmarks/gpu_table.py "$results"; }

# One object: where and of what the results in this folder are.
describe_host() {
  local smi
  smi="$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1)"
  "$python" - "$smi" "$(git describe --always --dirty 2>/dev/null || cat .gpu/commit)" <<'PYTHON' | tee "$results/host.json"
import datetime, json, os, platform, sys
cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
print(json.dumps({"device": sys.argv[1], "commit": sys.argv[2], "cpu": cpu, "cores": os.cpu_count(), "started": started}))
PYTHON
}

export -f configure make_models device_tests python_test pair side_by_side sanitize
export python results models device PYTHONPATH="$PWD/build/cuda:$PWD/python"

describe_host
for part in "${parts[@]}"; do
  declare -F "run_$part" >/dev/null || { echo "gpu.sh: there is no part '$part'; its first lines list them" >&2; exit 2; }
  "run_$part"
done
printf '\n%d s in all, %d phases failed\n' "$SECONDS" "$failures"
((failures == 0))
