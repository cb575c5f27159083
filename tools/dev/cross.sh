# The build for 64-bit ARM and its tests under qemu-user: ./dev cross. Sourced, not run.

CROSS_PACKAGES=(g++-aarch64-linux-gnu qemu-user)
CROSS_DIR=build-aarch64
# What cmake/deps.cmake and the tests look for, as packages of that architecture.
CROSS_LIBRARIES=(
  libfmt-dev libfmt9 nlohmann-json3-dev libcli11-dev libpcre2-dev libpcre2-8-0
  libutf8proc-dev libutf8proc2 libsentencepiece-dev libsentencepiece0
  libboost1.81-dev libgtest-dev libgmock-dev
  libcurl4-openssl-dev libcurl4 libssl-dev libssl3
)
CROSS_TESTS=(ops_contract_tests backends_tests formats_tests base_tests)

# apt with a state of its own below $1: the system learns no second architecture, and needs no root.
cross_apt() {
  local state=$1
  shift
  apt-get -qq -o Dir::State="$state" -o Dir::State::status="$state/status" \
    -o Dir::Cache="$state/cache" -o APT::Sandbox::User=root \
    -o APT::Architecture=arm64 -o APT::Architectures=arm64 "$@"
}

# Unpacks the libraries into the sysroot that cmake/toolchains/aarch64.cmake names.
ensure_sysroot() {
  local sysroot=$PWD/$CROSS_DIR/sysroot state=$PWD/$CROSS_DIR/apt package
  [[ "$(cat "$sysroot/packages" 2>/dev/null)" == "${CROSS_LIBRARIES[*]}" ]] && return
  say "Fetching the libraries of 64-bit ARM"
  rm -rf "$sysroot" "$state"
  mkdir -p "$sysroot" "$state"/{lists/partial,cache/archives/partial,packages}
  touch "$state/status"
  cross_apt "$state" update
  (cd "$state/packages" && cross_apt "$state" download "${CROSS_LIBRARIES[@]}")
  for package in "$state"/packages/*.deb; do dpkg -x "$package" "$sysroot"; done
  rm -rf "$state"
  echo "${CROSS_LIBRARIES[*]}" >"$sysroot/packages"
}

# emulate CPU PROGRAM [ARGS]: a program of the build on that processor.
emulate() {
  local cpu=$1 program=$2
  shift 2
  qemu-aarch64 -cpu "$cpu" -L /usr/aarch64-linux-gnu \
    -E LD_LIBRARY_PATH="$PWD/$CROSS_DIR/sysroot/usr/lib/aarch64-linux-gnu" \
    "$CROSS_DIR/tests/$program" "$@"
}

# emulate_tests CPU PROGRAM FILTER: a test program in one part a core.
emulate_tests() {
  TEST_REPORT=$CROSS_DIR/test-results/$1-$2 in_parts emulate "$1" "$2" --gtest_filter="$3" \
    --gtest_brief=1
}

# expect_kernels CPU NAME...: these NEON implementations are tested on that processor, no others.
expect_kernels() {
  local cpu=$1 found
  shift
  found=$(emulate "$cpu" ops_contract_tests --gtest_list_tests |
    grep -o 'neon[a-z0-9_]*' | sort -u | xargs)
  [[ "$found" == "$*" ]] && return
  echo "FAILED   on $cpu the kernels of NEON should be '$*', and are '$found'"
  return 1
}

run_cross_tests() {
  local status=0 program
  # Speeds under emulation mean nothing, and what NEON does not touch is slow: the widest loops over
  # the implementations that other processors share are left to those.
  local shared='*EveryFormatAndShape/generic*:*EveryFormatAndShape/reference'
  shared+=':*AttentionContract.*/generic:*AttentionContract.*/reference'
  shared+=':*BlocksContract.*/generic*:*BlocksContract.*/reference:*InverseFactorContract*'
  shared+=':*EveryFormatAndShape/rounded_first:FormatContract.*GridKeepsItsPromises'
  expect_kernels max neon neon_blocked neon_dotprod neon_dotprod_blocks neon_dotprod_token \
    neon_gemv neon_i8mm neon_i8mm_blocks neon_i8mm_token neon_tables || status=1
  expect_kernels neoverse-n1 neon neon_blocked neon_dotprod neon_dotprod_blocks \
    neon_dotprod_token neon_gemv neon_tables || status=1
  expect_kernels cortex-a72 neon neon_blocked neon_gemv neon_tables || status=1
  for program in "${CROSS_TESTS[@]}"; do
    emulate_tests max "$program" "-Probe.*:$shared" || status=1
  done
  # A processor that traps every instruction newer than the level.
  emulate_tests cortex-a72 ops_contract_tests '*/neon*-*EveryFormatAndShape*:*ChainContract*' || status=1
  emulate_tests cortex-a72 backends_tests '-Probe.*' || status=1
  python3 tools/test_summary.py "$CROSS_DIR/test-results" || status=1
  return $status
}
