// What a study found, as one self-contained page or as text.
#pragma once

#include <string>
#include <vector>

namespace nibble {

using TextTable = std::vector<std::vector<std::string>>;  // the first row is the header

struct StudySection {
  std::string heading;
  std::string note;  // what is shown and how it was measured; may be empty
  TextTable table;
  std::vector<std::string> figures;  // <svg> elements
};

struct StudyReport {
  std::string title;
  std::vector<StudySection> sections;
  std::vector<std::string> findings;  // sentences in plain words
};

// A page without scripts or external files; text is escaped.
std::string html_page(const StudyReport& report);

// RFC 4180: fields with commas, quotes or line ends are quoted.
std::string csv_text(const TextTable& table);

}  // namespace nibble
