# Functions behind ./dev. Sourced, not run.

PACKAGES=(
  build-essential cmake ninja-build pkg-config ccache clang clang-format python3
  libfmt-dev nlohmann-json3-dev libcli11-dev libpcre2-dev libutf8proc-dev libsentencepiece-dev
  libboost1.81-dev libcurl4-openssl-dev libssl-dev libgtest-dev libgmock-dev libbenchmark-dev
)

say() { printf '\n== %s\n' "$*"; }

missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
  done
}

install_packages() {
  local sudo=()
  [[ $(id -u) == 0 ]] || sudo=(sudo)
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq "$@"
}

# Installs only when something is missing, so that a build needs neither root nor network afterwards.
ensure_packages() {
  if ! command -v dpkg-query >/dev/null; then
    say "Not a Debian-like system: install these (or their equivalents) yourself: $*"
    return
  fi
  local missing
  missing=$(missing_packages "$@" | tr '\n' ' ')
  if [[ -n "$missing" ]]; then
    say "Installing: $missing"
    install_packages "$@"
  fi
}

build_dir() { [[ "$1" == release ]] && echo build || echo "build-$1"; }

# build_preset PRESET [TARGET...]
build_preset() {
  local dir
  dir=$(build_dir "$1")
  [[ -f "$dir/build.ninja" ]] ||
    cmake --preset "$1" ${NIBBLE_JOIN_SOURCES:+-DNIBBLE_JOIN_SOURCES=$NIBBLE_JOIN_SOURCES} >/dev/null
  ninja -C "$dir" --quiet "${@:2}"
}

# Runs all tests of a build folder; prints one summary over all programs at the end.
# in_parts COMMAND [ARGS]: a test program in one part a core. Their reports go to
# $TEST_REPORT-PART.json, if that is set.
in_parts() {
  local parts part pids=() status=0
  parts=$(nproc)
  for ((part = 0; part < parts; ++part)); do
    GTEST_TOTAL_SHARDS=$parts GTEST_SHARD_INDEX=$part \
      GTEST_OUTPUT=${TEST_REPORT:+json:$TEST_REPORT-$part.json} "$@" &
    pids+=($!)
  done
  for part in "${pids[@]}"; do wait "$part" || status=1; done
  return $status
}

run_tests() {
  rm -rf "$1/test-results"
  local status=0
  ctest --test-dir "$1" --output-on-failure --parallel "$(nproc)" || status=$?
  python3 tools/test_summary.py "$1/test-results" || status=1
  return $status
}

cpp_files() { git ls-files -z --cached --others --exclude-standard '*.h' '*.cc' '*.cu' '*.cuh'; }

check_format() {
  cpp_files | xargs -0 clang-format --dry-run --Werror && echo "format: ok"
}

fuzz_one() {
  local name=${1##*/fuzz_}
  local corpus=build-fuzz/corpus/$name
  mkdir -p "$corpus"
  say "Fuzzing $name for $2 s"
  "$1" "$corpus" "tests/fuzz/corpus/$name" -max_total_time="$2" -rss_limit_mb=2048 \
    -timeout=20 -artifact_prefix=build-fuzz/ -print_final_stats=1 -verbosity=0
}

# Every target for so many seconds, a target a core.
run_fuzz() {
  local target failed=0
  for target in build-fuzz/tests/fuzz/fuzz_*; do
    [[ -x "$target" ]] || continue
    while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n || failed=1; done
    fuzz_one "$target" "$1" &
  done
  while [[ -n "$(jobs -p)" ]]; do wait -n || failed=1; done
  return $failed
}
