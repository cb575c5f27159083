#include "support/test_data.h"

namespace nibble::test {

// Here alone, so that where a checkout lies is no part of what compiles the tests (ccache).
std::filesystem::path source_dir() { return NIBBLE_SOURCE_DIR; }

}  // namespace nibble::test
