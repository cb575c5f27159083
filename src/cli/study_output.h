// What every study writes: a table on the terminal or JSON, CSV, a page with figures.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "cli/command.h"
#include "study/report.h"

namespace nibble::cli {

struct StudyFiles {
  std::string csv;
  std::string html;
};

void add_study_files(CLI::App* command, StudyFiles& files);

// --cache DIR, and a folder in the directory that it, or its default, names.
void add_cache_option(CLI::App* command, std::string& directory);
std::filesystem::path cache_directory(const std::string& chosen, const std::string& below);

// Writes the files that are asked for and emits `rows` and the findings.
void emit_study(const Context& context, const StudyFiles& files, const StudyReport& report,
                const TextTable& csv, const Json& rows);

}  // namespace nibble::cli
