// Parameters of narrowed ranges, the same in every algorithm that tries them.
#pragma once

#include <string>

#include "quantize/algorithm.h"

namespace nibble {

inline ParameterSpec clip_steps_parameter(std::string name, double value, double min,
                                          std::string help) {
  return {.name = std::move(name),
          .value = value,
          .help = std::move(help),
          .min = min,
          .max = 1000,
          .integer = true,
          .choices = {}};
}

inline ParameterSpec max_shrink_parameter() {
  return {.name = "max_shrink",
          .value = 0.3,
          .help = "largest share of the range that is cut",
          .min = 0.01,
          .max = 0.99,
          .choices = {}};
}

inline ParameterSpec max_stretch_parameter(double value) {
  return {.name = "max_stretch",
          .value = value,
          .help = "how far above the largest magnitude ranges are tried, as a share of it",
          .min = 0,
          .max = 1,
          .choices = {}};
}

// The error by which ranges are compared.
inline ParameterSpec clip_error_parameter(std::string name, std::string help) {
  return {.name = std::move(name),
          .value = std::string("channels"),
          .help = std::move(help),
          .choices = {"channels", "output"}};
}

}  // namespace nibble
