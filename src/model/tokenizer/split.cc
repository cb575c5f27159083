#include "model/tokenizer/split.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {
namespace {

// Delimiters and the gaps between them, covering the text.
std::vector<Span> cover(std::string_view text, const std::vector<Span>& delimiters) {
  std::vector<Span> spans;
  std::size_t done = 0;
  for (const Span& d : delimiters) {
    if (d.begin > done) spans.push_back({done, d.begin, false});
    spans.push_back({d.begin, d.end, true});
    done = d.end;
  }
  if (done < text.size()) spans.push_back({done, text.size(), false});
  return spans;
}

// A delimiter joins the span before it, unless that is a delimiter too.
std::vector<Span> merge_with_previous(const std::vector<Span>& spans) {
  std::vector<Span> out;
  bool after_delimiter = false;
  for (const Span& s : spans) {
    if (s.delimiter && !after_delimiter && !out.empty()) {
      out.back().end = s.end;
    } else {
      out.push_back(s);
    }
    after_delimiter = s.delimiter;
  }
  return out;
}

std::vector<Span> merge_with_next(const std::vector<Span>& spans) {
  std::vector<Span> out;
  bool before_delimiter = false;
  for (auto it = spans.rbegin(); it != spans.rend(); ++it) {
    if (it->delimiter && !before_delimiter && !out.empty()) {
      out.back().begin = it->begin;
    } else {
      out.push_back(*it);
    }
    before_delimiter = it->delimiter;
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<Span> join_equal(const std::vector<Span>& spans) {
  std::vector<Span> out;
  for (const Span& s : spans) {
    if (!out.empty() && out.back().delimiter == s.delimiter) {
      out.back().end = s.end;
    } else {
      out.push_back(s);
    }
  }
  return out;
}

std::vector<Span> arrange(std::vector<Span> spans, SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
      std::erase_if(spans, [](const Span& s) { return s.delimiter; });
      return spans;
    case SplitBehavior::kIsolated:
      return spans;
    case SplitBehavior::kMergedWithPrevious:
      return merge_with_previous(spans);
    case SplitBehavior::kMergedWithNext:
      return merge_with_next(spans);
    case SplitBehavior::kContiguous:
      return join_equal(spans);
  }
  fail(ErrorKind::kInternal, "split: no such behaviour");
}

}  // namespace

SplitBehavior split_behavior(std::string_view name, std::string_view what) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  fail(ErrorKind::kCorrupt, "{}: no behavior '{}'", what, name);
}

void split(std::vector<Word>& words, const DelimiterFinder& find, SplitBehavior behavior,
           bool invert) {
  std::vector<Word> out;
  std::vector<Span> delimiters;
  for (Word& word : words) {
    delimiters.clear();
    find(word.text, delimiters);
    std::vector<Span> spans = cover(word.text, delimiters);
    if (invert) {
      for (Span& s : spans) s.delimiter = !s.delimiter;
    }
    for (const Span& s : arrange(std::move(spans), behavior)) {
      if (s.begin == s.end) continue;
      out.push_back({word.text.substr(s.begin, s.end - s.begin), word.first && s.begin == 0});
    }
  }
  words = std::move(out);
}

}  // namespace nibble
