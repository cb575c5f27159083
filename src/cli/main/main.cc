#include <iostream>
#include <string>
#include <vector>

#include "cli/app.h"

int main(int argc, char** argv) {
  return nibble::cli::run_app({argv + 1, argv + argc}, std::cout, std::cerr);
}
