#!/usr/bin/env bash
# Coverage-guided fuzzing of the parsers (libFuzzer) under AddressSanitizer and UndefinedBehaviorSanitizer.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: tests/fuzz/run.sh [--runs N] TARGET...

Targets: config gguf safetensors tokenizer. Each starts from small files of tests/golden and runs N inputs (default
1000000). A finding stops it and is written to build/fuzz/TARGET/. Needs clang++-14 and libclang-rt-14-dev.
An input that takes a minute is a finding too; on a busy machine run it again alone before believing it.
TEXT
}

runs=1000000
targets=()
while (($#)); do
  case "$1" in
    --runs) runs="${2:?--runs wants a number}"; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    config | gguf | safetensors | tokenizer) targets+=("$1"); shift ;;
    *) echo "tests/fuzz/run.sh: unknown target or option '$1'; see --help" >&2; exit 2 ;;
  esac
done
((${#targets[@]})) || { usage >&2; exit 2; }

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
nn=core/nn
gguf_sources=("$nn"/{gguf,gguf_reader,gguf_quants,gguf_architectures,gguf_metadata,gguf_tensors,mapped_file}.cpp
  "$nn"/{safetensors,config_reader,gguf_tokenizer,tokenizer_json,tokenizer_utf8}.cpp)
# Families register themselves, and a GGUF file may stand for a config.json or a tokenizer.json.
config_sources=("${gguf_sources[@]}" "$nn"/{family_*,model_family,gguf_model,rope_config,rope_table}.cpp
  "$nn"/{memory_table,kv_storage,staged_cache,workspace}.cpp kernels/{packed_matrix,tree_attention}.cpp kernels/cpu/aligned_bytes.cpp
  kernels/backend.cpp)
tokenizer_sources=("${config_sources[@]}" "$nn"/tokenizer*.cpp)
declare -A longest=([config]=8192 [gguf]=65536 [safetensors]=8192 [tokenizer]=16384)  # bytes of an input
declare -A extra_sources=(
  [config]="${config_sources[*]}"
  [gguf]="${gguf_sources[*]}"
  [safetensors]="$nn/safetensors.cpp $nn/config_reader.cpp $nn/mapped_file.cpp"
  [tokenizer]="${tokenizer_sources[*]}"
)
declare -A seeds=(
  [config]="tests/golden/models/*/config.json"
  [gguf]="tests/golden/gguf/*/model.gguf tests/golden/tokenizer/*.gguf"
)  # the others have small ones made

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
  sources+=($(printf '%s\n' ${extra_sources[$target]} | sort -u))
  for source in "${sources[@]}"; do compile "$source"; done
  objects=()
  for source in "${sources[@]}"; do objects+=("build/fuzz/objects/${source//\//_}.o"); done
  clang++-14 -fsanitize=fuzzer,address,undefined "${objects[@]}" -lonig -o "build/fuzz/fuzz_$target"
  mkdir -p "build/fuzz/$target/corpus" "build/fuzz/$target/seeds"
  if [[ ! -v seeds[$target] ]]; then python3 tests/fuzz/small_seeds.py "$target" "build/fuzz/$target/seeds"; fi
  for seed in ${seeds[$target]-}; do cp "$seed" "build/fuzz/$target/seeds/${seed//\//_}"; done
  "build/fuzz/fuzz_$target" -runs="$runs" -max_len="${longest[$target]}" -timeout=60 -rss_limit_mb=4096 \
    -print_final_stats=1 -artifact_prefix="build/fuzz/$target/" "build/fuzz/$target/corpus" "build/fuzz/$target/seeds"
done
