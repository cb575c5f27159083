// The rows of the bits study as tables, figures and sentences.
#pragma once

#include <span>
#include <string>

#include "study/bits.h"
#include "study/report.h"

namespace nibble {

// model: what the rows of kind "weight" and "activation" come from; may be empty.
StudyReport bits_report(std::span<const BitsRow> rows, const std::string& model);

// Every row as it is, for CSV.
TextTable bits_table(std::span<const BitsRow> rows);

}  // namespace nibble
