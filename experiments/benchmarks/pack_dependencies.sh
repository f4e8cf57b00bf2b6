#!/usr/bin/env bash
# Packs the libraries that the build needs into .gpu/prefix, for a CUDA machine without a network: headers, static
# libraries and CMake files of Eigen, nlohmann-json, GoogleTest, Boost and Oniguruma, as Debian has installed them here, and
# pybind11 from .venv. .gpu/commit says what the tree is, for results from a copy of it without its history.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$root"
prefix=.gpu/prefix
libraries="lib/$(gcc -print-multiarch)"
rm -rf "$prefix"
mkdir -p "$prefix"

# take PATH...: files and folders of /usr, to the same places, links as what they point to.
take() { tar -C /usr --dereference -cf - "$@" | tar -C "$prefix" -xf -; }

take include/eigen3/Eigen share/eigen3 include/nlohmann share/cmake/nlohmann_json include/gtest "$libraries/cmake/GTest"
take "$libraries"/{libgtest.a,libgtest_main.a,libboost_program_options.a}
take include/oniguruma.h include/oniggnu.h "$libraries"/{libonig.so,libonig.so.5}
pybind11="$(.venv/bin/python -c 'import pybind11; print(pybind11.__path__[0])')"
cp -r "$pybind11/include/pybind11" "$prefix/include/"
cp -r "$pybind11/share/cmake/pybind11" "$prefix/share/cmake/"
# Of Boost's many headers only those that our sources reach, and what CMake's FindBoost reads.
mapfile -t users < <(grep -rlE '#include <boost/' --include='*.cpp' --include='*.h' core experiments tests verify)
for user in "${users[@]}"; do g++ -std=c++20 -I. -x c++ -M "$user"; done | tr ' \\' '\n\n' |
  sed -n 's|^/usr/\(include/boost/\)|\1|p' | sort -u >"$prefix/boost.txt"
take include/boost/version.hpp $(<"$prefix/boost.txt")
du -sh "$prefix" | sed 's/\t/ in /'
git describe --always --dirty >.gpu/commit
