#include "cli/html_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/markup.h"

namespace nibble::cli {
namespace {

constexpr const char* kStyle =
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.15rem .7rem;text-align:left;border-bottom:1px solid #eee}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}"
    "dt{float:left;clear:left;min-width:14rem;color:#666}";

std::string plain(const Json& value) {
  if (value.is_string()) return escape_markup(value.get<std::string>());
  if (value.is_number_float()) return fmt::format("{:.4g}", value.get<double>());
  return escape_markup(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

bool is_table(const Json& value) {
  return value.is_array() && !value.empty() &&
         std::all_of(value.begin(), value.end(), [](const Json& row) { return row.is_object(); });
}

std::string cell(const Json& value, double largest) {
  if (!value.is_number()) return "<td>" + plain(value) + "</td>";
  const double share = largest > 0 ? std::clamp(value.get<double>() / largest, 0.0, 1.0) : 0;
  return fmt::format(
      "<td class=n style=\"background:linear-gradient(90deg,#cfe3f5 {:.0f}%,transparent "
      "0)\">{}</td>",
      100 * share, plain(value));
}

std::string table(const Json& rows) {
  std::map<std::string, double> largest;
  for (const Json& row : rows) {
    for (const auto& [key, value] : row.items()) {
      double& seen = largest[key];
      if (value.is_number()) seen = std::max(seen, value.get<double>());
    }
  }
  std::string html = "<table><tr>";
  for (const auto& [key, unused] : largest) html += "<th>" + escape_markup(key) + "</th>";
  html += "</tr>\n";
  for (const Json& row : rows) {
    html += "<tr>";
    for (const auto& [key, most] : largest) {
      html += row.contains(key) ? cell(row.at(key), most) : "<td></td>";
    }
    html += "</tr>\n";
  }
  return html + "</table>\n";
}

std::string list(const Json& object) {
  std::string html = "<dl>";
  for (const auto& [key, value] : object.items()) {
    if (!value.is_structured())
      html += "<dt>" + escape_markup(key) + "</dt><dd>" + plain(value) + "</dd>";
  }
  return html + "</dl>\n";
}

}  // namespace

std::string html_report(const std::string& title, const Json& result) {
  std::string html = "<!doctype html><meta charset=utf-8><title>" + escape_markup(title) +
                     "</title><style>" + kStyle + "</style>\n<h1>" + escape_markup(title) +
                     "</h1>\n" + list(result);
  for (const auto& [key, value] : result.items()) {
    if (value.is_object()) html += "<h2>" + escape_markup(key) + "</h2>" + list(value);
    if (is_table(value)) html += "<h2>" + escape_markup(key) + "</h2>" + table(value);
  }
  return html;
}

}  // namespace nibble::cli
