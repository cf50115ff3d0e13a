#!/usr/bin/env bash
# Installs the library from a build directory and builds and runs the examples against it.
#   tests/cmake_package/run.sh BUILD_DIR WRITE_RANDOM_MODEL [CMAKE]
# WRITE_RANDOM_MODEL: the program of tests/cpp/api/write_random_model.cpp.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $0 BUILD_DIR WRITE_RANDOM_MODEL [CMAKE]" >&2
  exit 2
fi
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
cmake=${3:-cmake}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
model=$scratch/model
"$2" "$model"

"$cmake" --build "$build" --target higgs_rt
"$cmake" --install "$build" --prefix "$scratch/prefix" --component runtime > /dev/null
# Nothing but the public headers is installed.
headers=$(cd "$scratch/prefix/include" && find . -name '*.h' | sort | tr '\n' ' ')
expected="./higgs_rt/error.h ./higgs_rt/higgs_rt.h ./higgs_rt/runtime.h ./higgs_rt/types.h "
if [ "$headers" != "$expected" ]; then
  echo "[install] expected headers $expected, got $headers" >&2
  exit 1
fi
for example in cpp c; do
  "$cmake" -S "$root/examples/$example" -B "$scratch/$example" \
    -DCMAKE_PREFIX_PATH="$scratch/prefix" -DCMAKE_BUILD_TYPE=Release > "$scratch/log" ||
    { cat "$scratch/log"; exit 1; }
  "$cmake" --build "$scratch/$example" > "$scratch/log" || { cat "$scratch/log"; exit 1; }
done
"$scratch/cpp/speak" "$model" "$scratch/cpp.pcm" 1 2 3
"$scratch/c/speak_c" "$model" "$scratch/c.f32" 1 2 3
if [ ! -s "$scratch/cpp.pcm" ]; then
  echo "[examples] expected samples from the C++ example, got an empty file" >&2
  exit 1
fi
# The same request in both languages: the same number of samples, of 2 and 4 bytes.
if [ $(($(stat -c %s "$scratch/cpp.pcm") * 2)) -ne "$(stat -c %s "$scratch/c.f32")" ]; then
  echo "[examples] expected the same samples from C++ and C, got files of other sizes" >&2
  exit 1
fi
echo "cmake package: ok"
