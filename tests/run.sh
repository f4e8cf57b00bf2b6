#!/usr/bin/env bash
# Sets up this checkout and runs its tests. The last line is the total: "N passed, N failed".
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: tests/run.sh [OPTION]... [SUITE]...

Suites, run in the order given (default: cpp python):
  cpp      C++ tests, preset cpu
  python   Python tests: tests/python, experiments/train
  lint     formatting: clang-format, ruff
  parity   every architecture against transformers' results, as a table: architecture x mode
  cuda     the CUDA build by nvcc, for all its architectures, and the device tests where there is a device
  asan     C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer, without tests/end_to_end
  tsan     C++ tests under ThreadSanitizer, without tests/end_to_end

Options:
  -R REGEX   only C++ tests whose name matches ("tests/run.sh -R Tokenizer cpp")
  -k EXPR    only Python tests whose name matches ("tests/run.sh -k readme python")
  --help     this text

JOBS sets the parallel compile jobs and C++ tests (default: all cores).
TEXT
}

cpp_filter=()
python_filter=()
suites=()
while (($#)); do
  case "$1" in
    -R) cpp_filter=(--tests-regex "${2:?-R wants a regular expression}"); shift 2 ;;
    -k) python_filter=(-k "${2:?-k wants an expression}"); shift 2 ;;
    --help | -h) usage; exit 0 ;;
    cpp | python | lint | parity | cuda | asan | tsan) suites+=("$1"); shift ;;
    *) echo "tests/run.sh: unknown suite or option '$1'; see --help" >&2; exit 2 ;;
  esac
done
((${#suites[@]})) || suites=(cpp python)

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
export JOBS="${JOBS:-$(nproc)}"
passed=0
failed=0

say() { printf '\n[%4ds] %s\n' "$SECONDS" "$*"; }

# A suite that could not even be set up counts as one failure.
check() {
  local name="$1"
  shift
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    say "FAILED: $name"
  fi
}

# Runs a test program that writes a JUnit report, and adds it up. Skipped tests are neither passed nor failed; an error
# that the report does not show (a crash of the runner, a test that could not be started) counts as one failure.
run_and_count() {
  local report="$1" error=0 numbers
  shift
  rm -f "$report"
  "$@" || error=1
  numbers="$(.venv/bin/python tests/count_junit.py "$report")" || numbers="0 0 0"
  local -i run_passed run_failed run_skipped
  read -r run_passed run_failed run_skipped <<<"$numbers"
  if ((error && run_failed == 0)); then run_failed=1; fi
  passed=$((passed + run_passed))
  failed=$((failed + run_failed))
  say "$(basename "$report" .xml): $run_passed passed, $run_failed failed, $run_skipped skipped"
}

# build PRESET [TARGET...]
build() {
  local preset="$1" log="build/$1/configure.log" targets=("${@:2}")
  ((${#targets[@]})) || targets=(all)
  mkdir -p "build/$preset"
  if [[ ! -f build/$preset/build.ninja ]]; then
    cmake --preset "$preset" >"$log" 2>&1 || { tail -n 40 "$log"; return 1; }
  fi
  cmake --build "build/$preset" --parallel "$JOBS" --target "${targets[@]}"
}

run_cpp() {
  local preset="$1" report="$root/build/$1/cpp-tests.xml" left_out=()
  # Whole-model runs take many minutes under a sanitizer, and run the code that the other tests run on small models.
  if [[ $preset != cpu ]]; then left_out=(--label-exclude end_to_end); fi
  say "C++ tests, preset $preset: building"
  if ! build "$preset" tests/all; then
    failed=$((failed + 1))
    say "FAILED: build of preset $preset"
    return
  fi
  say "C++ tests, preset $preset: running"
  run_and_count "$report" ctest --test-dir "build/$preset" --parallel "$JOBS" --output-on-failure --progress \
    --no-tests=error --output-junit "$report" "${left_out[@]}" "${cpp_filter[@]}"
}

run_python() {
  local report="$root/build/python-tests.xml"
  say "Python tests"
  # They call the programs and the module as well as the sources.
  if ! build cpu all benchmarks; then
    failed=$((failed + 1))
    say "FAILED: build of preset cpu"
    return
  fi
  run_and_count "$report" .venv/bin/python -m pytest tests/python experiments/train --quiet --timeout 600 \
    --junitxml "$report" "${python_filter[@]}"
}

run_lint() {
  local folders=(kernels core tree draft verify python experiments tests) cpp_files
  mapfile -t cpp_files < <(find "${folders[@]}" -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
  say "formatting: ${#cpp_files[@]} C++ files, and the Python files"
  check clang-format .venv/bin/clang-format --dry-run --Werror "${cpp_files[@]}"
  check "ruff check" .venv/bin/ruff check --quiet "${folders[@]}"
  check "ruff format" .venv/bin/ruff format --check --quiet "${folders[@]}"
}

run_parity() {
  local report="$root/build/cpu/parity.xml"
  say "parity: building"
  if ! build cpu nn_tests; then
    failed=$((failed + 1))
    say "FAILED: build of preset cpu"
    return
  fi
  say "parity: running"
  run_and_count "$report" ctest --test-dir build/cpu --parallel "$JOBS" --output-on-failure --no-tests=error --quiet \
    --output-junit "$report" --tests-regex '^Models/(Parity|Invariance|Mutation)\.'
  .venv/bin/python tests/parity_matrix.py "$report"
}

run_cuda() {
  if ! command -v nvcc >/dev/null; then
    say "CUDA: skipped, there is no nvcc (the kernels' logic is tested without it, in the emulation)"
    return
  fi
  check "cuBLAS" experiments/bootstrap.sh --no-build --no-system --cuda
  say "CUDA: building"
  check "build of preset cuda" build cuda specmoe specmoe_program _specmoe cuda_tests device_bench
  say "CUDA: device tests, skipped one by one where there is no device"
  check "device tests" build/cuda/tests/cuda/cuda_tests --gtest_brief=1
  check "Python module with CUDA" .venv/bin/python -m pytest tests/python/test_device.py --quiet
}

experiments/bootstrap.sh --no-build || {
  echo "0 passed, 1 failed"
  exit 1
}
for suite in "${suites[@]}"; do
  case "$suite" in
    cpp) run_cpp cpu ;;
    python) run_python ;;
    lint) run_lint ;;
    parity) run_parity ;;
    cuda) run_cuda ;;
    *) run_cpp "$suite" ;;
  esac
done

say "$SECONDS s in all"
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
