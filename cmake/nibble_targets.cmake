# One static library a folder of src/: nibble_library(base), with the layers below it as DEPS.
# Sources are found by pattern, so adding a member of a registry is one file and one line of a .def.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_FLAGS_RELEASE "-O2")

add_library(nibble_flags INTERFACE)
target_compile_options(nibble_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
  -Wno-restrict  # false alarms on std::string in GCC 12 (bug 105651)
  -fno-math-errno -ffp-contract=off)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(nibble_flags INTERFACE -Wno-unknown-warning-option -Wno-gnu-zero-variadic-macro-arguments)
else()
  # Clang builds are for fuzzing; GCC is the compiler whose warnings we hold to zero.
  target_compile_options(nibble_flags INTERFACE -Werror)
endif()
target_compile_definitions(nibble_flags INTERFACE NIBBLE_VERSION="${PROJECT_VERSION}")
target_include_directories(nibble_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
if(NIBBLE_SANITIZE)
  target_compile_options(nibble_flags INTERFACE -fsanitize=${NIBBLE_SANITIZE}
    -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(nibble_flags INTERFACE -fsanitize=${NIBBLE_SANITIZE})
endif()
if(NIBBLE_SANITIZE STREQUAL "address,undefined")
  # A sixth of the compiler's time for what AddressSanitizer finds by itself: null pointers, bounds of
  # objects, and objects that are gone (classes are cast down by dynamic_cast alone).
  target_compile_options(nibble_flags INTERFACE -fno-sanitize=null,object-size,vptr)
endif()
if(NIBBLE_FUZZ)
  target_compile_options(nibble_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# nibble_join(target apart source...): joins the sources where that is asked for. `apart`, a regular
# expression or empty, says which are compiled by themselves: those that name their private parts
# like others of the target do, as the members of a registry may.
function(nibble_join target apart)
  if(NOT NIBBLE_JOIN_SOURCES)
    return()
  endif()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
  if(apart)
    set(sources ${ARGN})
    list(FILTER sources INCLUDE REGEX "${apart}")
    set_source_files_properties(${sources} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
endfunction()

function(nibble_library name)
  cmake_parse_arguments(ARG "" "APART" "DEPS;PRECOMPILE" ${ARGN})
  # Relative, so that the filter sees nothing of where the checkout lies.
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}
    ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  # isa/ (flags of its own), cuda/ (a compiler of its own) and main/ (a program) are added by their
  # folder's CMakeLists.txt.
  list(FILTER sources EXCLUDE REGEX "(^|/)((isa|cuda|main)/|no_cuda.cc$)")
  add_library(nibble_${name} STATIC ${sources})
  target_link_libraries(nibble_${name} PUBLIC nibble_flags ${ARG_DEPS})
  nibble_join(nibble_${name} "${ARG_APART}" ${sources})
  if(ARG_PRECOMPILE)  # headers that only this library includes in most sources
    nibble_precompile(nibble_${name} nibble_${name} ${ARG_PRECOMPILE})
  else()
    nibble_precompile(nibble_${name} nibble_base)
  endif()
endfunction()

# nibble_test(folder DEPS ...): every tests/<folder>/*_test.cc becomes one program, <folder>_tests.
function(nibble_test name)
  cmake_parse_arguments(ARG "" "APART" "DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*_test.cc)
  if(NOT sources)
    return()
  endif()
  add_executable(${name}_tests ${sources})
  target_link_libraries(${name}_tests PRIVATE nibble_test_support ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  # Tests run once: to compile them is what takes time.
  target_compile_options(${name}_tests PRIVATE -O1)
  nibble_join(${name}_tests "${ARG_APART}" ${sources})
  nibble_precompile(${name}_tests base_tests <gmock/gmock.h> <gtest/gtest.h>)
  add_test(NAME ${name}
    COMMAND ${name}_tests --gtest_output=json:${CMAKE_BINARY_DIR}/test-results/${name}.json)
  set_tests_properties(${name} PROPERTIES TIMEOUT 900)
endfunction()
