// A self-contained HTML page from a command's JSON result.
#pragma once

#include <string>

#include "base/json.h"

namespace nibble::cli {

// Scalars of the result become a list, arrays of objects become tables with a bar behind each
// number that is the share of the column's largest. No scripts, no external files; all text is
// escaped.
std::string html_report(const std::string& title, const Json& result);

}  // namespace nibble::cli
