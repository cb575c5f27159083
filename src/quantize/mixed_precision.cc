#include "quantize/mixed_precision.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "quantize/bytes.h"
#include "quantize/math/allocation.h"

namespace nibble {
namespace {

// The knapsack of a menu: sizes in bytes, costs in nats.
class Choices {
 public:
  Choices(const FormatMenu& menu, const Measurements& measurements)
      : whole_bytes_(menu.plans[0].bytes) {
    for (const FusedGroup& group : menu.groups) {
      AllocationGroup options(menu.names.size());
      for (std::size_t i = 0; i < options.size(); ++i) {
        for (const std::string& module : group.modules) {
          const PlannedModule& planned = menu.plans[i].find(module);
          options[i].size += planned.bytes;
          if (i == 0) weights_ += planned.rows * planned.cols;
        }
        const double kl = measurements.find(group.layer, group.name, menu.names[i]).value();
        // A model that computes no number is as far as can be; less than nothing is rounding.
        options[i].cost =
            std::isfinite(kl) ? std::max(kl, 0.0) : std::numeric_limits<double>::infinity();
      }
      first_bytes_ += options[0].size;
      groups_.push_back(std::move(options));
    }
  }

  std::span<const AllocationGroup> groups() const { return groups_; }
  std::int64_t weights() const { return weights_; }
  // Of the output, beside the groups.
  std::int64_t other_bytes() const { return whole_bytes_ - first_bytes_; }
  std::int64_t least_bytes() const {
    std::int64_t bytes = 0;
    for (const AllocationGroup& group : groups_) {
      bytes += std::ranges::min_element(group, {}, &AllocationOption::size)->size;
    }
    return bytes;
  }

 private:
  std::vector<AllocationGroup> groups_;
  std::int64_t whole_bytes_;
  std::int64_t weights_ = 0, first_bytes_ = 0;
};

void report_choice(const Job& job, const FormatMenu& menu, const Choices& choices,
                   const Allocation& allocation) {
  MixedReport& report = job.report.mixed.value();
  report.predicted_kl = allocation.cost;
  report.bound = allocation.bound;
  for (std::size_t i = 0; i < menu.groups.size(); ++i) {
    const auto option = static_cast<std::size_t>(allocation.choice[i]);
    report.chosen.push_back({menu.groups[i].layer, menu.groups[i].name, menu.names[option],
                             choices.groups()[i][option].cost});
  }
}

// How many bytes a plan lies above the target; negative below.
std::int64_t excess_of(const OutputPlan& plan, const MixedOptions& target, const Choices& choices) {
  if (target.target_bytes > 0) return plan.bytes - target.target_bytes;
  const double excess = (plan.bits_per_weight - target.target_bits) / 8;
  return static_cast<std::int64_t>(std::ceil(excess * static_cast<double>(choices.weights())));
}

// The encoding that can say all formats together may need some more bytes than each plan alone
// said; then a smaller budget is tried.
Allocation meet_size(const Job& job, const FormatMenu& menu, const Choices& choices,
                     const std::function<OutputPlan(const ModuleFormats&)>& plan_of) {
  const MixedOptions& target = job.options.mixed;
  std::int64_t capacity = target.target_bytes > 0
                              ? target.target_bytes - choices.other_bytes()
                              : static_cast<std::int64_t>(target.target_bits / 8 *
                                                          static_cast<double>(choices.weights()));
  constexpr int kMaxTries = 8;
  for (int i = 0; i < kMaxTries; ++i) {
    const auto allocation = allocate(choices.groups(), capacity);
    if (!allocation || !std::isfinite(allocation->cost)) break;
    const std::int64_t excess =
        excess_of(plan_of(menu.formats(allocation->choice)), target, choices);
    if (excess <= 0) return *allocation;
    capacity = std::min(capacity, allocation->size) - excess;
  }
  const double least = static_cast<double>(choices.least_bytes());
  fail(ErrorKind::kUsage,
       "the target cannot be met with these formats: the smallest choice takes {:.3f} bits per "
       "weight and {:.0f} bytes in all; give smaller formats or a larger target",
       8 * least / static_cast<double>(choices.weights()),
       least + static_cast<double>(choices.other_bytes()));
}

// As measure_together(), kept for a run that resumes.
double kept_measurement(const Job& job, const Calibration& calibration, const RecipePoint& point,
                        const FormatMenu& menu, const std::vector<int>& choice,
                        std::size_t number) {
  const std::string name = fmt::format("together.{}", number);
  if (job.journal.has(name)) {
    ByteReader reader(job.journal.get(name), name);
    return reader.get<double>();
  }
  const double kl = measure_together(job, calibration, point, menu.formats(choice));
  ByteWriter writer;
  writer.put(kl);
  job.journal.put(name, writer.take());
  return kl;
}

// Sums of costs do not quite say what the whole model does. The smallest of the measured choices
// that stay below the target is taken; the ratio of the whole to the sum corrects the next one.
Allocation meet_loss(const Job& job, const Calibration& calibration, const RecipePoint& point,
                     const FormatMenu& menu, const Choices& choices) {
  const double most = job.options.mixed.max_kl;
  constexpr int kMaxTries = 5;
  std::optional<Allocation> best;
  std::vector<std::vector<int>> tried;
  double budget = most;
  for (int i = 0; i < kMaxTries; ++i) {
    const auto allocation = allocate_within_cost(choices.groups(), budget);
    if (!allocation) break;
    if (std::ranges::find(tried, allocation->choice) != tried.end()) break;
    tried.push_back(allocation->choice);
    const double kl =
        kept_measurement(job, calibration, point, menu, allocation->choice, tried.size());
    if (kl <= most && (!best || allocation->size < best->size)) {
      best = allocation;
      job.report.mixed->measured_kl = kl;
    }
    if (!(allocation->cost > 0) || !(kl > 0)) break;
    // A little below the target, so that what the correction leaves out does not lead above it.
    budget = 0.98 * most * allocation->cost / kl;
  }
  if (best) return *best;
  fail(ErrorKind::kUsage,
       "no choice of these formats was found with a mean KL of at most {} nats on the held-back "
       "text; give larger formats or a larger target",
       most);
}

}  // namespace

ModuleFormats FormatMenu::formats(const std::vector<int>& choice) const {
  ModuleFormats formats;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    for (const std::string& module : groups[i].modules) {
      formats[module] = format(static_cast<std::size_t>(choice[i]), module);
    }
  }
  return formats;
}

ModuleFormats choose_formats(const Job& job, const Calibration& calibration,
                             const RecipePoint& point, const FormatMenu& menu,
                             const Measurements& measurements,
                             const std::function<OutputPlan(const ModuleFormats&)>& plan_of) {
  const Choices choices(menu, measurements);
  const Allocation allocation = job.options.mixed.max_kl > 0
                                    ? meet_loss(job, calibration, point, menu, choices)
                                    : meet_size(job, menu, choices, plan_of);
  report_choice(job, menu, choices, allocation);
  return menu.formats(allocation.choice);
}

}  // namespace nibble
