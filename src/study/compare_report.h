// The rows of a comparison as a table, a figure and sentences.
#pragma once

#include <span>
#include <string>

#include "study/compare.h"
#include "study/report.h"

namespace nibble {

// rows: of compare_recipes(); note: how it was measured, for the page.
StudyReport compare_report(std::span<const CompareRow> rows, const std::string& model,
                           const std::string& note);

// Every row as it is, for CSV.
TextTable compare_table(std::span<const CompareRow> rows);

}  // namespace nibble
