# Whole servers under load, and with real clients. Sourced, not run.

CLIENTS_VENV=build-clients

# Good and bad clients by the hundred; $@ are arguments of tests/server/load.py. Under a sanitizer the
# run is short, and kernels are those of the release build.
run_load() {
  local preset
  case "${1:-}" in
    asan) preset=fuzz ;;
    tsan) preset=load-tsan ;;
    *)
      build_preset release nibble
      python3 tests/server/load.py build/nibble models/tiny-novel "$@"
      return
      ;;
  esac
  build_preset release nibble_kernels
  build_preset $preset nibble_serve
  python3 tests/server/load.py "build-$preset/tests/nibble_serve" models/tiny-novel --streams 40 \
    --rounds 1 --sequence 50 --speculative 4 --no-memory
}

# The official clients, in an environment of their own, the harness without what local models need,
# and the page in a browser.
run_clients() {
  build_preset release nibble
  local python=$CLIENTS_VENV/bin/python3
  [[ -x $python ]] || python3 -m venv $CLIENTS_VENV
  $python -c 'import openai, jsonschema, lm_eval, transformers, playwright' 2>/dev/null ||
    $CLIENTS_VENV/bin/pip install --quiet openai jsonschema 'lm_eval[api]' transformers playwright
  $python tests/server/clients.py build/nibble models/tiny-novel \
    tests/golden/archs/bert_gelu_new_old
  $python tests/server/page.py build/nibble models/tiny-novel
}
