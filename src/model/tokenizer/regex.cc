#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/tokenizer/regex.h"

#include <pcre2.h>

#include <algorithm>

#include "base/error.h"
#include "model/tokenizer/unicode.h"

namespace nibble {
namespace {

// Lists of class members, without the brackets around them.
constexpr std::string_view kSpace = "\\x{9}-\\x{d}\\x{20}\\x{85}\\p{Z}";
constexpr std::string_view kWord = "\\p{L}\\p{M}\\p{N}\\p{Pc}";
constexpr std::string_view kHexDigit = "0-9a-fA-F";

// \s, \w, \h (and \S, \W, \H) as class members; empty for other escapes.
std::string_view members_of(char escape) {
  switch (escape) {
    case 's':
    case 'S':
      return kSpace;
    case 'w':
    case 'W':
      return kWord;
    case 'h':
    case 'H':
      return kHexDigit;
    default:
      return {};
  }
}

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view what) : in_(pattern), what_(what) {}

  std::string run() {
    while (i_ < in_.size()) {
      if (in_[i_] == '[') {
        character_class();
      } else if (in_[i_] == '\\') {
        escape(false);
      } else {
        out_ += in_[i_++];
      }
    }
    return std::move(out_);
  }

 private:
  static constexpr int kMaxDepth = 32;

  [[noreturn]] void unsupported(std::string_view why) const {
    fail(ErrorKind::kUnsupported, "{}: regex '{}' {}", what_, in_, why);
  }

  bool at(std::string_view text) const { return in_.substr(i_).starts_with(text); }

  void escape(bool in_class) {
    if (i_ + 1 >= in_.size()) unsupported("ends in a backslash");
    const char c = in_[i_ + 1];
    const std::string_view members = members_of(c);
    if (!in_class && (c == 'b' || c == 'B')) {
      word_boundary(c == 'b');
    } else if (members.empty()) {
      out_ += in_.substr(i_, 2);
    } else if (c >= 'a') {
      out_ += in_class ? std::string(members) : fmt::format("[{}]", members);
    } else if (!in_class) {
      out_ += fmt::format("[^{}]", members);
    } else {
      // A complement inside a class has no member list; PCRE2's own \S and \W differ from
      // Oniguruma's in a handful of code points only, but \H is another thing altogether.
      if (c == 'H') unsupported("has \\H inside a character class");
      out_ += in_.substr(i_, 2);
    }
    i_ += 2;
  }

  void word_boundary(bool wanted) {
    const char* pattern = wanted ? "(?:(?<=[{0}])(?![{0}])|(?<![{0}])(?=[{0}]))"
                                 : "(?:(?<=[{0}])(?=[{0}])|(?<![{0}])(?![{0}]))";
    out_ += fmt::format(fmt::runtime(pattern), kWord);
  }

  void character_class() {
    out_ += '[';
    ++i_;
    if (at("^")) {
      out_ += '^';
      ++i_;
    }
    if (at("]")) {  // a bracket that comes first is a member
      out_ += "\\]";
      ++i_;
    }
    members(1);
    out_ += ']';
  }

  // Everything up to the closing bracket. A class inside a class is a union, so its members join.
  void members(int depth) {
    if (depth > kMaxDepth) unsupported("nests character classes too deeply");
    while (i_ < in_.size() && in_[i_] != ']') {
      if (at("[:")) {
        posix_class();
      } else if (at("[^")) {
        unsupported("has a negated class inside a class");
      } else if (at("[")) {
        ++i_;
        members(depth + 1);
      } else if (at("&&")) {
        unsupported("intersects character classes");
      } else if (in_[i_] == '\\') {
        escape(true);
      } else {
        out_ += in_[i_++];
      }
    }
    if (i_ >= in_.size()) unsupported("has an unclosed character class");
    ++i_;
  }

  void posix_class() {
    const std::size_t end = in_.find(":]", i_);
    if (end == std::string_view::npos) unsupported("has an unclosed [: :]");
    out_ += in_.substr(i_, end + 2 - i_);
    i_ = end + 2;
  }

  std::string_view in_;
  std::string_view what_;
  std::size_t i_ = 0;
  std::string out_;
};

// What matching needs besides the pattern; one a thread, since PCRE2 wants that.
class MatchState {
 public:
  MatchState()
      : data_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)),
        stack_(pcre2_jit_stack_create(std::size_t{32} << 10, std::size_t{64} << 20, nullptr)) {
    if (data_ == nullptr || context_ == nullptr || stack_ == nullptr) {
      release();
      fail(ErrorKind::kMemory, "regex: no memory for matching");
    }
    pcre2_jit_stack_assign(context_, nullptr, stack_);
    pcre2_set_heap_limit(context_, 512u << 10);  // KiB
  }
  ~MatchState() { release(); }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;

  // A greedy scan costs one step a byte; anything far beyond that is runaway backtracking.
  void set_text_size(std::size_t bytes) {
    const std::size_t steps = 5'000'000 + 16 * std::min<std::size_t>(bytes, 100'000'000);
    pcre2_set_match_limit(context_, static_cast<std::uint32_t>(steps));
  }

  pcre2_match_data* data() { return data_; }
  pcre2_match_context* context() { return context_; }

 private:
  void release() {
    pcre2_jit_stack_free(stack_);
    pcre2_match_context_free(context_);
    pcre2_match_data_free(data_);
  }

  pcre2_match_data* data_;
  pcre2_match_context* context_;
  pcre2_jit_stack* stack_;
};

std::string error_text(int code) {
  unsigned char buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

std::string pcre2_pattern(std::string_view oniguruma, std::string_view what) {
  return Translator(oniguruma, what).run();
}

Regex::Regex(std::string_view pattern, std::string_view what) : what_(what) {
  constexpr std::size_t kMaxPattern = std::size_t{64} << 10;
  if (pattern.size() > kMaxPattern) {
    fail(ErrorKind::kUnsupported, "{}: regex of {} bytes", what, pattern.size());
  }
  const std::string translated = pcre2_pattern(pattern, what);
  int code = 0;
  std::size_t offset = 0;
  // Oniguruma's ^ and $ match at every line.
  pcre2_code* compiled = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &offset, nullptr);
  if (compiled == nullptr) {
    fail(ErrorKind::kUnsupported, "{}: regex '{}' at byte {}: {}", what, pattern, offset,
         error_text(code));
  }
  code_ = std::shared_ptr<void>(compiled,
                                [](void* p) { pcre2_code_free(static_cast<pcre2_code*>(p)); });
  pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);  // without it matching is slower, not wrong
}

void Regex::each_match(std::string_view text,
                       const std::function<void(std::size_t, std::size_t)>& found) const {
  thread_local MatchState state;
  state.set_text_size(text.size());
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  // The caller vouches for the encoding; checking it for every match would be quadratic.
  constexpr std::uint32_t kOptions = PCRE2_NO_UTF_CHECK;
  std::size_t start = 0;
  std::size_t previous_end = text.size() + 1;
  while (start <= text.size()) {
    int rc =
        pcre2_match(code, subject, text.size(), start, kOptions, state.data(), state.context());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(code, subject, text.size(), start, kOptions | PCRE2_NO_JIT, state.data(),
                       state.context());
    }
    if (rc == PCRE2_ERROR_NOMATCH) return;
    if (rc < 0) {
      fail(ErrorKind::kUnsupported, "{}: regex matching gave up at byte {} of {}: {}", what_, start,
           text.size(), error_text(rc));
    }
    const std::size_t* range = pcre2_get_ovector_pointer(state.data());
    const std::size_t begin = range[0];
    const std::size_t end = range[1];
    // \K in a lookaround can move the start behind the end or before the last match.
    if (begin > end || begin < start) fail(ErrorKind::kUnsupported, "{}: regex uses \\K", what_);
    if (begin != end || begin != previous_end) found(begin, end);
    previous_end = end;
    start = end;
    if (begin == end) {
      if (end == text.size()) return;
      start = end + utf8_length(text[end]);
    }
  }
}

}  // namespace nibble
