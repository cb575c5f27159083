#include "study/report.h"

#include "base/markup.h"

namespace nibble {
namespace {

constexpr const char* kStyle =
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;"
    "color:#222}h1{overflow-wrap:anywhere}table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #eee;"
    "font-variant-numeric:tabular-nums}"
    "td:first-child,th:first-child{text-align:left}.wide{overflow-x:auto}"
    "svg{max-width:100%;min-width:42rem;height:auto}"  // labels stay legible on a phone
    ".findings{font-size:1.1rem;background:#f4f8fb;padding:.8rem 1.2rem}";

std::string html_table(const TextTable& table) {
  std::string html = "<table>\n";
  for (std::size_t r = 0; r < table.size(); ++r) {
    const std::string tag = r == 0 ? "th" : "td";
    html += "<tr>";
    for (const std::string& field : table[r]) {
      html += "<" + tag + ">" + escape_markup(field) + "</" + tag + ">";
    }
    html += "</tr>\n";
  }
  return html + "</table>\n";
}

std::string csv_field(const std::string& field) {
  if (field.find_first_of(",\"\r\n") == std::string::npos) return field;
  std::string quoted = "\"";
  for (const char c : field) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

}  // namespace

std::string html_page(const StudyReport& report) {
  std::string html =
      "<!doctype html><html lang=en><meta charset=utf-8>"
      "<meta name=viewport content=\"width=device-width,initial-scale=1\"><title>" +
      escape_markup(report.title) + "</title><style>" + kStyle + "</style>\n<h1>" +
      escape_markup(report.title) + "</h1>\n";
  html += "<div class=findings>";
  for (const std::string& sentence : report.findings) {
    html += "<p>" + escape_markup(sentence) + "</p>";
  }
  html += "</div>\n";
  for (const StudySection& section : report.sections) {
    html += "<h2>" + escape_markup(section.heading) + "</h2>\n";
    if (!section.note.empty()) html += "<p>" + escape_markup(section.note) + "</p>\n";
    html += "<div class=wide>";  // figures and tables scroll where the screen is narrow
    for (const std::string& figure : section.figures) html += figure;
    html += html_table(section.table) + "</div>\n";
  }
  return html + "</html>\n";
}

std::string csv_text(const TextTable& table) {
  std::string csv;
  for (const auto& row : table) {
    for (std::size_t c = 0; c < row.size(); ++c) csv += (c == 0 ? "" : ",") + csv_field(row[c]);
    csv += "\r\n";
  }
  return csv;
}

}  // namespace nibble
