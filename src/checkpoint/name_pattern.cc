#include "checkpoint/name_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"

namespace nibble {
namespace {

// Names are short: a match that takes more steps than this is an attack.
constexpr std::uint32_t kMatchLimit = 100'000;

std::shared_ptr<const void> compile(const std::string& text, const std::string& expression) {
  int code = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* regex =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                    PCRE2_ANCHORED | PCRE2_UTF, &code, &offset, nullptr);
  if (regex == nullptr) {
    char message[128] = "";
    pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
    fail(ErrorKind::kCorrupt, "quantization_config: pattern '{}': {} at {}", text, message, offset);
  }
  return {regex,
          [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); }};
}

}  // namespace

NamePattern::NamePattern(const std::string& text) : text_(text) {
  if (text.starts_with("re:")) regex_ = compile(text, text.substr(3));
}

bool NamePattern::matches(const std::string& name) const {
  if (regex_ == nullptr) return name == text_;
  const auto* regex = static_cast<const pcre2_code*>(regex_.get());
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(regex, nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  if (match == nullptr || context == nullptr) fail(ErrorKind::kMemory, "matching module names");
  pcre2_set_match_limit(context.get(), kMatchLimit);
  const int result = pcre2_match(regex, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0,
                                 0, match.get(), context.get());
  if (result < 0 && result != PCRE2_ERROR_NOMATCH) {
    fail(ErrorKind::kUnsupported, "quantization_config: pattern '{}' is too costly to match '{}'",
         text_, name);
  }
  return result >= 0;
}

}  // namespace nibble
