#include "server/load/trace.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <string>

#include "base/error.h"
#include "base/json.h"

namespace nibble::server {
namespace {

// Lower ids are often special tokens and bytes.
constexpr std::int64_t kFirstToken = 100;
constexpr std::int64_t kMostTokens = std::int64_t{1} << 24;

std::int64_t tokens_in_range(std::int64_t tokens, const std::string& where) {
  if (tokens < 0 || tokens > kMostTokens) {
    fail(ErrorKind::kCorrupt, "{}: {} tokens make no sense", where, tokens);
  }
  return std::max<std::int64_t>(tokens, 1);
}

LoadRequest azure_request(const std::string& line, const std::string& where) {
  std::tm day{};
  double second = 0;
  long long input = 0;
  long long output = 0;
  if (std::sscanf(line.c_str(), "%d-%d-%d %d:%d:%lf,%lld,%lld", &day.tm_year, &day.tm_mon,
                  &day.tm_mday, &day.tm_hour, &day.tm_min, &second, &input, &output) != 8) {
    fail(ErrorKind::kCorrupt, "{}: expected TIMESTAMP,ContextTokens,GeneratedTokens", where);
  }
  day.tm_year -= 1900;
  day.tm_mon -= 1;
  LoadRequest request;
  request.arrival = static_cast<double>(::timegm(&day)) + second;
  request.input = tokens_in_range(input, where);
  request.output = tokens_in_range(output, where);
  return request;
}

LoadRequest mooncake_request(const std::string& line, const std::string& where) {
  const Json json = parse_json(line, where);
  try {
    LoadRequest request;
    request.arrival = json.at("timestamp").get<double>() / 1e3;
    request.input = tokens_in_range(json.at("input_length").get<std::int64_t>(), where);
    request.output = tokens_in_range(json.at("output_length").get<std::int64_t>(), where);
    request.blocks = json.value("hash_ids", std::vector<std::int64_t>());
    return request;
  } catch (const Json::exception&) {
    fail(ErrorKind::kCorrupt, "{}: expected timestamp, input_length, output_length and hash_ids",
         where);
  }
}

std::uint64_t mix(std::uint64_t seed, std::uint64_t number) {
  return seed * 0x9e3779b97f4a7c15ULL + number * 0xbf58476d1ce4e5b9ULL + 1;
}

}  // namespace

std::vector<LoadRequest> read_trace(const std::filesystem::path& path, std::size_t most) {
  std::ifstream file(path);
  if (!file) fail(ErrorKind::kCorrupt, "{}: cannot be read", path.string());
  std::vector<LoadRequest> requests;
  std::string line;
  for (std::size_t number = 1; std::getline(file, line); ++number) {
    if (most > 0 && requests.size() == most) break;
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (line.empty() || (number == 1 && line.starts_with("TIMESTAMP"))) continue;
    const std::string where = fmt::format("{}:{}", path.string(), number);
    requests.push_back(line.front() == '{' ? mooncake_request(line, where)
                                           : azure_request(line, where));
  }
  if (requests.empty()) fail(ErrorKind::kCorrupt, "{}: holds no request", path.string());
  std::stable_sort(
      requests.begin(), requests.end(),
      [](const LoadRequest& a, const LoadRequest& b) { return a.arrival < b.arrival; });
  const double start = requests.front().arrival;
  for (LoadRequest& request : requests) request.arrival -= start;
  return requests;
}

std::vector<LoadRequest> uniform_load(std::size_t count, std::int64_t input, std::int64_t output,
                                      double rate, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::exponential_distribution<double> gap(rate > 0 ? rate : 1);
  std::vector<LoadRequest> requests(count);
  double now = 0;
  for (LoadRequest& request : requests) {
    request.arrival = now;
    request.input = input;
    request.output = output;
    if (rate > 0) now += gap(random);
  }
  return requests;
}

std::vector<std::int32_t> prompt_tokens(const LoadRequest& request, std::size_t index,
                                        std::int64_t vocab, std::uint64_t seed) {
  if (vocab <= kFirstToken) fail(ErrorKind::kUsage, "--vocab must be above {}", kFirstToken);
  const auto range = static_cast<std::uint64_t>(vocab - kFirstToken);
  std::vector<std::int32_t> ids;
  ids.reserve(static_cast<std::size_t>(request.input));
  const auto append = [&](std::uint64_t stream, std::int64_t tokens) {
    std::mt19937_64 random(mix(seed, stream));
    for (std::int64_t i = 0; i < tokens; ++i) {
      ids.push_back(static_cast<std::int32_t>(kFirstToken) +
                    static_cast<std::int32_t>(random() % range));
    }
  };
  for (const std::int64_t block : request.blocks) {
    const std::int64_t left = request.input - static_cast<std::int64_t>(ids.size());
    append(static_cast<std::uint64_t>(block) * 2, std::min(kBlockTokens, left));
  }
  append(std::uint64_t{index} * 2 + 1, request.input - static_cast<std::int64_t>(ids.size()));
  return ids;
}

}  // namespace nibble::server
