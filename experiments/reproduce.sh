#!/usr/bin/env bash
# Reproduces published claims: experiments/reproduce.sh [NAME...|all] [--quick]; --help explains.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ ! -x $root/.venv/bin/python || ! -x $root/build/cpu/specmoe ]]; then "$root/experiments/bootstrap.sh"; fi
exec "$root/.venv/bin/python" "$root/experiments/reproduce.py" "$@"
