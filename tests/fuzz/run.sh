#!/usr/bin/env bash
# Coverage-guided fuzzing of the parsers (libFuzzer) under AddressSanitizer and UndefinedBehaviorSanitizer.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: tests/fuzz/run.sh [--runs N] TARGET...

Targets: gguf safetensors. Each starts from small files of tests/golden and runs N inputs (default
1000000). A finding stops it and is written to build/fuzz/TARGET/. Needs clang++-14 and libclang-rt-14-dev.
TEXT
}

runs=1000000
targets=()
while (($#)); do
  case "$1" in
    --runs) runs="${2:?--runs wants a number}"; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    gguf | safetensors) targets+=("$1"); shift ;;
    *) echo "tests/fuzz/run.sh: unknown target or option '$1'; see --help" >&2; exit 2 ;;
  esac
done
((${#targets[@]})) || { usage >&2; exit 2; }

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
nn=core/nn
gguf_sources=("$nn"/{gguf,gguf_quants,gguf_metadata,gguf_tensors,mapped_file}.cpp
  "$nn"/{safetensors,config_reader,gguf_tokenizer,tokenizer_json,tokenizer_utf8}.cpp)
declare -A extra_sources=(
  [gguf]="${gguf_sources[*]}"
  [safetensors]="$nn/safetensors.cpp $nn/config_reader.cpp $nn/mapped_file.cpp"
)
declare -A seeds=(
  [gguf]="tests/golden/gguf/*/model.gguf tests/golden/tokenizer/*.gguf"
  [safetensors]="tests/golden/models/*/model.safetensors"
)

flags=(-std=c++20 -O1 -g1 -I. -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)

# An object file per source, made again when the source or any header is younger.
compile() {
  local source="$1" object="build/fuzz/objects/${1//\//_}.o"
  if [[ $object -nt $source && -z $(find core kernels -name '*.h' -newer "$object" -print -quit) ]]; then return; fi
  clang++-14 "${flags[@]}" -c "$source" -o "$object"
}

mkdir -p build/fuzz/objects
for target in "${targets[@]}"; do
  sources=("tests/fuzz/targets/${target}_target.cpp")
  for source in ${extra_sources[$target]}; do sources+=("$source"); done
  for source in "${sources[@]}"; do compile "$source"; done
  objects=()
  for source in "${sources[@]}"; do objects+=("build/fuzz/objects/${source//\//_}.o"); done
  clang++-14 -fsanitize=fuzzer,address,undefined "${objects[@]}" -o "build/fuzz/fuzz_$target"
  mkdir -p "build/fuzz/$target/corpus" "build/fuzz/$target/seeds"
  for seed in ${seeds[$target]}; do cp "$seed" "build/fuzz/$target/seeds/${seed//\//_}"; done
  "build/fuzz/fuzz_$target" -runs="$runs" -max_len=65536 -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/$target/" "build/fuzz/$target/corpus" "build/fuzz/$target/seeds"
done
