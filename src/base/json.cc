#include "base/json.h"

#include <unordered_set>
#include <vector>

#include "base/error.h"
#include "base/mmap.h"

namespace nibble {
namespace {

// Checks depth and duplicate keys while nlohmann's (iterative) parser runs; nlohmann itself would
// keep the last of two equal keys silently.
class Guard {
 public:
  Guard(std::string_view what, int max_depth) : what_(what), max_depth_(max_depth) {}

  bool operator()(int /*depth*/, Json::parse_event_t event, Json& parsed) {
    switch (event) {
      case Json::parse_event_t::object_start:
        enter();
        keys_.emplace_back();
        break;
      case Json::parse_event_t::array_start:
        enter();
        break;
      case Json::parse_event_t::key:
        if (!keys_.back().insert(parsed.get_ref<const std::string&>()).second) {
          fail(ErrorKind::kCorrupt, "{}: duplicate key '{}'", what_,
               parsed.get_ref<const std::string&>());
        }
        break;
      case Json::parse_event_t::object_end:
        keys_.pop_back();
        --depth_;
        break;
      case Json::parse_event_t::array_end:
        --depth_;
        break;
      case Json::parse_event_t::value:
        break;
    }
    return true;
  }

 private:
  void enter() {
    if (++depth_ > max_depth_) {
      fail(ErrorKind::kCorrupt, "{}: nested deeper than {} levels", what_, max_depth_);
    }
  }

  std::string_view what_;
  int max_depth_;
  int depth_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view what, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    fail(ErrorKind::kCorrupt, "{}: {} bytes of JSON, more than the limit of {}", what, text.size(),
         limits.max_bytes);
  }
  Guard guard(what, limits.max_depth);
  try {
    return Json::parse(text.begin(), text.end(), std::ref(guard));
  } catch (const Json::exception& e) {
    fail(ErrorKind::kCorrupt, "{}: not valid JSON: {}", what, e.what());
  }
}

Json read_json_file(const std::string& path, const JsonLimits& limits) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path, limits);
}

}  // namespace nibble
