# Whole servers under load, and with real clients. Sourced, not run.

CLIENTS_VENV=build-clients

# Good and bad clients by the hundred; $@ are arguments of tests/server/load.py.
run_load() {
  build_preset release nibble
  python3 tests/server/load.py build/nibble models/tiny-novel "$@"
}

# The official clients, in an environment of their own; the harness without what local models need.
run_clients() {
  build_preset release nibble
  local python=$CLIENTS_VENV/bin/python3
  [[ -x $python ]] || python3 -m venv $CLIENTS_VENV
  $python -c 'import openai, jsonschema, lm_eval, transformers' 2>/dev/null ||
    $CLIENTS_VENV/bin/pip install --quiet openai jsonschema 'lm_eval[api]' transformers
  $python tests/server/clients.py build/nibble models/tiny-novel \
    tests/golden/archs/bert_gelu_new_old
}
