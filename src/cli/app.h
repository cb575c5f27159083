// The program: arguments in, exit status out.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace nibble::cli {

// Runs one command line (without the program's name). Results go to `out`, logs, progress and the
// one line of an error to `err`. Returns the exit status: 0, or exit_status() of the error. Throws
// nothing.
int run_app(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err);

}  // namespace nibble::cli
