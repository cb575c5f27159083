#include "study/report.h"

#include <cmath>

#include "study/bits_report.h"
#include "study/dot_plot.h"
#include "study/line_plot.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Report, CsvQuotesWhatNeedsIt) {
  EXPECT_EQ(csv_text({{"a", "b"}, {"1,5", "say \"x\""}}), "a,b\r\n\"1,5\",\"say \"\"x\"\"\"\r\n");
}

TEST(Report, PagesEscapeText) {
  const StudyReport report{"a <b>", {{"h & h", "", {{"x"}, {"<script>"}}, {}}}, {"One sentence."}};
  const std::string html = html_page(report);
  EXPECT_THAT(html, HasSubstr("<title>a &lt;b&gt;</title>"));
  EXPECT_THAT(html, HasSubstr("h &amp; h"));
  EXPECT_THAT(html, Not(HasSubstr("<script>")));
  EXPECT_THAT(html, HasSubstr("One sentence."));
}

TEST(DotPlot, MarksStandWhereTheirValuesAre) {
  const double nan = std::nan("");
  const std::string svg =
      to_svg({"t", "bits", {"r"}, {{"low", {0}}, {"high", {10}}, {"none", {nan}}}});
  // One row of one letter: the axis begins 37.2 from the left and is 620 wide.
  EXPECT_THAT(svg, HasSubstr("<circle cx=\"37.2\" cy=\"83.3\""));
  EXPECT_THAT(svg, HasSubstr("<rect x=\"652.2\" y=\"82.0\""));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, HasSubstr(">none</text>"));  // still in the legend
}

TEST(DotPlot, NothingToShowIsStillAFigure) {
  EXPECT_THAT(to_svg(DotPlot{"t", "bits", {}, {}}), HasSubstr("</svg>"));
}

TEST(LinePlot, MarksStandWhereTheirValuesAre) {
  LinePlot plot;
  plot.log_x = true;
  plot.y_limit = 100;
  plot.series = {{"s", {{1, 0}, {100, 10}, {10, 1000}, {-1, 5}, {10, std::nan("")}}}};
  const std::string svg = to_svg(plot);
  // 560 by 380 pixels from (86, 430), 4 % of the range free at each end.
  EXPECT_THAT(svg, HasSubstr("<circle cx=\"106.7\" cy=\"415.9\""));
  EXPECT_THAT(svg, HasSubstr("<circle cx=\"625.3\" cy=\"64.1\""));
  EXPECT_THAT(svg, HasSubstr("d=\"M106.7 415.9L625.3 64.1\""));
  EXPECT_THAT(svg, HasSubstr("1 beyond the upper end"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

TEST(LinePlot, NothingToShowIsStillAFigure) {
  LinePlot plot;
  plot.series = {{"none", {}}};
  EXPECT_THAT(to_svg(plot), HasSubstr("</svg>"));
}

BitsRow row(const std::string& kind, const std::string& name, const std::string& group,
            const std::string& format, const std::string& range, double bits, double width) {
  return {{kind, name, group}, format, range, bits, 1, width};
}

TEST(BitsReport, TensorsOfAGroupAreAveraged) {
  const std::vector<BitsRow> rows = {row("weight", "a.q", "q", "int8", "best", 5, 8),
                                     row("weight", "b.q", "q", "int8", "best", 6, 8),
                                     row("weight", "a.q", "q", "nf4", "stored", 3, 4.5)};
  const StudyReport report = bits_report(rows, "m");
  ASSERT_EQ(report.sections.size(), 2u);
  EXPECT_EQ(report.sections[0].table, (TextTable{{"linears", "int8"}, {"q", "5.500"}}));
  EXPECT_EQ(report.sections[1].table,
            (TextTable{{"format", "bits/weight", "q"}, {"nf4", "4.500", "3.000"}}));
  ASSERT_EQ(report.findings.size(), 1u);
  EXPECT_EQ(
      report.findings[0],
      "In the weights of m nf4 keeps 3.00 bits, the most up to 4.6 bits a weight, and int8 with "
      "one scale a tensor 5.50.");
}

}  // namespace
}  // namespace nibble
