#include "checkpoint/gguf_layout.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "checkpoint/source_modules.h"

namespace nibble {
namespace {

// Buffers that are computed, heads of other tasks, scales of caches.
constexpr std::string_view kUnused[] = {".rotary_emb.inv_freq",
                                        ".attention.bias",
                                        ".attention.masked_bias",
                                        ".attn.bias",
                                        ".attn.masked_bias",
                                        ".position_ids",
                                        ".k_scale",
                                        ".v_scale",
                                        ".q_scale",
                                        ".prob_scale"};

bool is_unused(std::string_view tensor) {
  return tensor.starts_with("pooler.") ||
         std::ranges::any_of(kUnused, [&](auto end) { return tensor.ends_with(end); });
}

// What stands for {} and {e} in a pattern.
struct Numbers {
  std::int64_t layer = -1, expert = -1;
};

std::optional<std::int64_t> take_number(std::string_view& text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const auto length = static_cast<std::size_t>(end - text.data());
  if (error != std::errc() || number < 0 || (length > 1 && text.front() == '0')) {
    return std::nullopt;
  }
  text.remove_prefix(length);
  return number;
}

std::optional<Numbers> match(std::string_view pattern, std::string_view text) {
  Numbers numbers;
  while (!pattern.empty()) {
    if (pattern.front() != '{') {
      if (text.empty() || text.front() != pattern.front()) return std::nullopt;
      text.remove_prefix(1);
      pattern.remove_prefix(1);
      continue;
    }
    const auto number = take_number(text);
    if (!number) return std::nullopt;
    (pattern.starts_with("{e}") ? numbers.expert : numbers.layer) = *number;
    pattern.remove_prefix(pattern.find('}') + 1);
  }
  return text.empty() ? std::optional(numbers) : std::nullopt;
}

std::string stem_of(std::string_view pattern, std::int64_t layer) {
  std::string stem(pattern);
  const std::size_t at = stem.find("{}");
  return at == std::string::npos ? stem : stem.replace(at, 2, std::to_string(layer));
}

class Layout {
 public:
  Layout(const Checkpoint& source, const GgufArch& arch) : source_(source), arch_(arch) {}

  GgufLayout make() {
    const bool tied = source_.config().value("tie_word_embeddings", Json(false)) == true;
    std::set<std::string> seen;
    for (const std::string& name : source_.names()) {
      const std::string module = module_of(name);
      if (is_unused(name) || (tied && module == arch_.head)) {
        layout_.left_out.push_back(name);
      } else if (name == module + ".bias") {
        add(module, true);
      } else if (seen.insert(module).second) {
        add(module, false);
      }
    }
    return finish();
  }

 private:
  void add(const std::string& module, bool bias) {
    if (module == arch_.head) return put("output", module, {}, bias, GgufChange::kNone);
    const std::string_view prefix = arch_.prefix;
    if (module.starts_with(prefix)) {
      for (const GgufName& name : arch_.names) {
        const auto numbers = match(name.module, std::string_view(module).substr(prefix.size()));
        if (numbers) {
          return put(stem_of(name.gguf, numbers->layer), module, *numbers, bias, name.change);
        }
      }
    }
    fail(ErrorKind::kUnsupported, "module '{}' has no place in a GGUF file of architecture '{}'",
         module, arch_.name);
  }

  void put(const std::string& stem, const std::string& module, const Numbers& numbers, bool bias,
           GgufChange change) {
    const std::string name = stem + (bias ? ".bias" : ".weight");
    GgufPlace& place = places_[{numbers.layer, name}];
    if (place.name.empty()) place = {name, {}, bias, change, numbers.layer};
    experts_[name].insert({numbers.expert, module});
  }

  GgufLayout finish() {
    for (auto& [key, place] : places_) {
      std::int64_t next = place.name.find("_exps.") == std::string::npos ? -1 : 0;
      for (const auto& [expert, module] : experts_[place.name]) {
        if (expert != next++) {
          fail(ErrorKind::kCorrupt, "experts of '{}': {} is where {} should be", place.name, expert,
               next - 1);
        }
        place.modules.push_back(module);
      }
      layout_.places.push_back(std::move(place));
    }
    return std::move(layout_);
  }

  const Checkpoint& source_;
  const GgufArch& arch_;
  GgufLayout layout_;
  std::map<std::pair<std::int64_t, std::string>, GgufPlace> places_;
  std::map<std::string, std::map<std::int64_t, std::string>> experts_;
};

}  // namespace

GgufLayout gguf_layout(const Checkpoint& source, const GgufArch& arch) {
  return Layout(source, arch).make();
}

}  // namespace nibble
