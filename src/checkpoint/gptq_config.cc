#include "checkpoint/gptq_config.h"

#include "base/error.h"
#include "checkpoint/json_members.h"

namespace nibble {
namespace {

constexpr std::size_t kMaxPatterns = 10'000;
constexpr std::int64_t kMaxGroup = std::int64_t{1} << 40;

// `otherwise` where a key is left out; w_bit and q_group_size are old names.
GptqArgs parse_args(const Json& json, const GptqArgs& otherwise, const std::string& what) {
  GptqArgs args = otherwise;
  const std::int64_t bits =
      int_member(json, "bits", int_member(json, "w_bit", otherwise.bits, what), what);
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8) {
    fail(ErrorKind::kUnsupported, "{}: GPTQ weights of {} bits; 2, 3, 4 and 8 are supported", what,
         bits);
  }
  args.bits = static_cast<int>(bits);
  const std::int64_t group =
      int_member(json, "group_size", int_member(json, "q_group_size", otherwise.group, what), what);
  if (group > kMaxGroup) fail(ErrorKind::kCorrupt, "{}: group_size {}", what, group);
  args.group = group > 0 ? group : 0;
  args.symmetric = bool_member(json, "sym", otherwise.symmetric, what);
  return args;
}

}  // namespace

GptqConfig::GptqConfig(const Json& config, const std::string& what) : what_(what) {
  args_ = parse_args(config, args_, what);
  const std::string layout =
      text_member(config, "checkpoint_format", text_member(config, "format", "gptq", what), what);
  if (layout != "gptq" && layout != "gptq_v2") {
    fail(ErrorKind::kUnsupported, "{}: GPTQ layout '{}'; gptq and gptq_v2 are supported", what,
         layout);
  }
  version_ = layout == "gptq_v2" ? 2 : 1;
  const std::string words = text_member(config, "pack_dtype", "int32", what);
  if (words != "int32") fail(ErrorKind::kUnsupported, "{}: words of {}", what, words);
  if (const Json* dynamic = member(config, "dynamic")) add_dynamic(*dynamic);
}

void GptqConfig::add_dynamic(const Json& dynamic) {
  if (!dynamic.is_object() || dynamic.size() > kMaxPatterns) {
    fail(ErrorKind::kCorrupt, "{}: 'dynamic' is no object of at most {} patterns", what_,
         kMaxPatterns);
  }
  for (const auto& [key, value] : dynamic.items()) {
    if (key.starts_with("-:")) continue;  // left in 16 bits, so there is no qweight to read
    if (!value.is_object()) fail(ErrorKind::kCorrupt, "{}: dynamic '{}' is no object", what_, key);
    const std::string pattern = key.starts_with("+:") ? key.substr(2) : key;
    overrides_.emplace_back(NamePattern("re:" + pattern),
                            parse_args(value, args_, what_ + ": dynamic '" + key + "'"));
  }
}

GptqArgs GptqConfig::args(const std::string& module) const {
  for (const auto& [pattern, args] : overrides_) {
    if (pattern.matches(module)) return args;
  }
  return args_;
}

}  // namespace nibble
