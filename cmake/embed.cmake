# nibble_embed(target function file...): compiles files into `target`; the generated function
#   std::span<const nibble::EmbeddedFile> nibble::<function>()
# lists them in the order given. Paths are relative to the source directory of the project.
function(nibble_embed target function)
  set(assembler "")
  set(declarations "")
  set(entries "")
  set(paths "")
  set(index 0)
  foreach(file ${ARGN})
    set(path ${CMAKE_SOURCE_DIR}/${file})
    get_filename_component(name ${file} NAME)
    set(symbol "nibble_${function}_${index}")
    string(APPEND assembler
      "    \".global ${symbol}\\n${symbol}:\\n.incbin \\\"${path}\\\"\\n\"\n"
      "    \".global ${symbol}_end\\n${symbol}_end:\\n.byte 0\\n\"\n")
    string(APPEND declarations "extern const char ${symbol}[], ${symbol}_end[];\n")
    string(APPEND entries
      "    {\"${name}\", {${symbol}, static_cast<std::size_t>(${symbol}_end - ${symbol})}},\n")
    list(APPEND paths ${path})
    math(EXPR index "${index} + 1")
  endforeach()
  set(output ${CMAKE_CURRENT_BINARY_DIR}/${function}.cc)
  file(CONFIGURE OUTPUT ${output} @ONLY CONTENT [=[
#include <array>
#include <cstddef>
#include <span>

#include "base/embedded.h"

asm(".section .rodata\n"
@assembler@    ".previous\n");

extern "C" {
@declarations@}

namespace nibble {
std::span<const EmbeddedFile> @function@();

std::span<const EmbeddedFile> @function@() {
  static const std::array<EmbeddedFile, @index@> files = {{
@entries@  }};
  return files;
}
}  // namespace nibble
]=])
  set_source_files_properties(${output} PROPERTIES OBJECT_DEPENDS "${paths}")
  target_sources(${target} PRIVATE ${output})
endfunction()
