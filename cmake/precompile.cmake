# Headers that take longest to parse and that nearly every source includes: without them precompiled,
# parsing is more than half of a build.
set(precompiled_headers
  <algorithm> <array> <cmath> <cstdint> <cstring> <filesystem> <functional> <map> <memory> <mutex>
  <optional> <random> <set> <span> <string> <string_view> <thread> <utility> <vector>
  <fmt/format.h> <nlohmann/json.hpp>)

# nibble_precompile(target owner [header...]): `target` uses the precompiled headers, and `header`s
# beside them, of `owner`, the first target of its kind (compiled with the same flags).
function(nibble_precompile target owner)
  if(NOT NIBBLE_PRECOMPILE)
    return()
  endif()
  if(target STREQUAL owner)
    target_precompile_headers(${target} PRIVATE ${precompiled_headers} ${ARGN})
  else()
    target_precompile_headers(${target} REUSE_FROM ${owner})
  endif()
endfunction()
