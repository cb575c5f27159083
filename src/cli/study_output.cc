#include "cli/study_output.h"

#include "base/file.h"
#include "cli/terminal.h"
#include "study/result_cache.h"

namespace nibble::cli {
namespace {

std::string report_text(const StudyReport& report) {
  std::string text;
  for (const StudySection& section : report.sections) {
    text += section.heading + "\n" + format_table(section.table) + "\n";
  }
  for (const std::string& sentence : report.findings) text += sentence + "\n";
  return text;
}

}  // namespace

void add_study_files(CLI::App* command, StudyFiles& files) {
  command->add_option("--csv", files.csv, "Write every row to this file");
  command->add_option("--html", files.html, "Write a page with figures to this file");
}

void add_cache_option(CLI::App* command, std::string& directory) {
  command->add_option("--cache", directory,
                      "Folder that keeps results between runs (default: nibble/ in "
                      "$XDG_CACHE_HOME or ~/.cache)");
}

void emit_study(const Context& context, const StudyFiles& files, const StudyReport& report,
                const TextTable& csv, const Json& rows) {
  if (!files.csv.empty()) write_file_atomic(files.csv, csv_text(csv));
  if (!files.html.empty()) write_file_atomic(files.html, html_page(report));
  context.emit({{"rows", rows}, {"findings", report.findings}}, report_text(report));
}

std::filesystem::path cache_directory(const std::string& chosen, const std::string& below) {
  return (chosen.empty() ? default_cache_directory() : std::filesystem::path(chosen)) / below;
}

}  // namespace nibble::cli
