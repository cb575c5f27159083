#!/usr/bin/env bash
# Commands of ./dev; run from the repository root.
set -euo pipefail
source tools/dev/lib.sh
source tools/dev/cross.sh
source tools/dev/servers.sh

usage() {
  cat <<'TEXT'
./dev COMMAND
  demo            install what is missing, build, quantize the bundled model, verify, generate
  test [PRESET]   build and run all tests (PRESET: release, dev, asan, ubsan, tsan; default release)
  build [PRESET]  build; the release program is build/nibble
  gpu [--san]     tests that need an NVIDIA GPU; with --san under compute-sanitizer (memcheck, racecheck), and a
                  thousand runs of kernels with barriers in memory, equal bit by bit
  load [asan|tsan|ARGS]  a server under good and bad clients, under a sanitizer or with ARGS of
                  tests/server/load.py
  clients         install the official Python clients in build-clients, and try them on a server
  cross           build for 64-bit ARM and test its kernels under emulation
  check           formatting, layers, file sizes, type names, instruction sets, hygiene of the tree
  fmt             format all sources in place
  bench [ARGS]    kernel benchmarks; ARGS go to `nibble bench linear`
  fuzz [SECONDS]  run every fuzz target for SECONDS each (default 60) under ASan and UBSan
  new KIND NAME   write the file, the registry line and the test of a new
                  format | algorithm | arch | checkpoint
  setup           install the packages that building needs (done by the others when something is missing)
TEXT
}

cmd_build() { ensure_packages "${PACKAGES[@]}" && build_preset "${1:-release}"; }

cmd_test() {
  local preset="${1:-release}"
  ensure_packages "${PACKAGES[@]}"
  build_preset "$preset"
  run_tests "$(build_dir "$preset")"
}

cmd_gpu() {
  ensure_packages "${PACKAGES[@]}"
  build_preset release
  if ! nvidia-smi -L >/dev/null 2>&1; then
    say "SKIPPED: this machine has no NVIDIA GPU, so none of its tests ran"
    return 0
  fi
  if [[ "${1:-}" == --san ]]; then
    # memcheck takes counted stores within a cluster of one block for errors ("Cluster needs to have
    # at least 2 blocks"), which they are not.
    NIBBLE_REPEATS=1 compute-sanitizer --tool memcheck --error-exitcode 1 build/tests/cuda_tests \
      --gtest_brief=1 --gtest_filter='-*SmallLinear*'
    NIBBLE_REPEATS=1 compute-sanitizer --tool racecheck --error-exitcode 1 build/tests/cuda_tests \
      --gtest_brief=1
    # What racecheck does not see: copies by the bulk engine, barriers in memory, clusters.
    NIBBLE_REPEATS=1000 build/tests/cuda_tests --gtest_brief=1 --gtest_filter='*SameBits*'
    return
  fi
  build/tests/cuda_tests --gtest_brief=1
  NIBBLE_TEST_DEVICE=cuda build/tests/contract_tests --gtest_brief=1 --gtest_filter='Impls/*'
}

cmd_demo() {
  cmd_build release
  local out=build/demo/tiny-novel-w4a16
  rm -rf build/demo && mkdir -p build/demo
  say "Quantizing models/tiny-novel to 4 bits with SmoothQuant+"
  build/nibble quantize models/tiny-novel "$out" --recipe smoothquant+ --format w4a16_g128
  say "Generating with the 4-bit model"
  build/nibble run "$out" -p "It was a dark and stormy night" -n 64
}

cmd_check() {
  ensure_packages "${PACKAGES[@]}"
  local failed=0
  check_format || failed=1
  python3 tools/check_layers.py || failed=1
  python3 tools/check_sizes.py || failed=1
  python3 tools/check_tree.py || failed=1
  python3 tools/check_types.py || failed=1
  if [[ -f build/src/backends/libnibble_backends.a ]]; then
    python3 tools/check_isa_symbols.py --self-test || failed=1
    python3 tools/check_isa_symbols.py build || failed=1
  fi
  return $failed
}

cmd_load() { ensure_packages "${PACKAGES[@]}" && run_load "$@"; }

cmd_clients() { ensure_packages "${PACKAGES[@]}" python3-venv curl chromium && run_clients; }

cmd_cross() {
  ensure_packages "${PACKAGES[@]}" "${CROSS_PACKAGES[@]}"
  ensure_sysroot
  [[ -f $CROSS_DIR/build.ninja ]] || cmake --preset aarch64 >/dev/null
  ninja -C $CROSS_DIR --quiet "${CROSS_TESTS[@]}"
  python3 tools/check_isa_symbols.py --self-test
  python3 tools/check_isa_symbols.py $CROSS_DIR
  rm -rf $CROSS_DIR/test-results
  run_cross_tests
}

cmd_fmt() { cpp_files | xargs -0 clang-format -i; }

cmd_bench() { cmd_build release && build/nibble bench linear "$@"; }

cmd_fuzz() {
  ensure_packages "${PACKAGES[@]}"
  build_preset release nibble_kernels
  build_preset fuzz
  run_fuzz "${1:-60}"
}

command="${1:-help}"
shift || true
case "$command" in
  demo | test | build | gpu | load | clients | cross | check | fmt | bench | fuzz) "cmd_$command" "$@" ;;
  new) exec python3 tools/new.py "$@" ;;
  setup) install_packages "${PACKAGES[@]}" ;;
  help | -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
