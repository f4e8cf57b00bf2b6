#!/usr/bin/env bash
# From a clean clone to a measured speed-up: installs what is missing, builds, decodes bundled prompts plainly and
# speculatively, and prints the texts (accepted draft tokens marked), a table, and where the results are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
  "") ;;
  --help | -h)
    echo "Usage: experiments/quickstart.sh"
    echo "Needs no arguments. Writes results/quickstart.jsonl and results/quickstart.png."
    exit 0
    ;;
  *)
    echo "quickstart: unknown option '$1'; see --help" >&2
    exit 2
    ;;
esac

experiments/bootstrap.sh

mark=brackets
if [[ -t 1 && -z "${NO_COLOR:-}" ]]; then mark=ansi; fi
mkdir -p results
build/cpu/specmoe bench --config experiments/configs/quickstart.json --mark "$mark" --show-text \
  --output results/quickstart.jsonl
.venv/bin/python experiments/plot_results.py results/quickstart.jsonl
