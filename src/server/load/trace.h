// What a load test sends: when, how long the prompts and the answers are, and what prompts share.
#pragma once

#include <cstdint>
#include <filesystem>
#include <random>
#include <vector>

namespace nibble::server {

struct LoadRequest {
  double arrival = 0;       // seconds after the start
  std::int64_t input = 0;   // tokens of the prompt
  std::int64_t output = 0;  // tokens of the answer
  // What the prompt is made of, kBlockTokens a block: equal numbers are equal tokens, so that
  // prompts with a common beginning share it. Empty: tokens of its own.
  std::vector<std::int64_t> blocks;
};

constexpr std::int64_t kBlockTokens = 512;  // of Mooncake's traces

// Reads a trace, in the order of arrival: Azure's CSV (TIMESTAMP,ContextTokens,GeneratedTokens) or
// Mooncake's JSON lines (timestamp in ms, input_length, output_length, hash_ids). At most `most`
// requests; 0 = all. kCorrupt for a file of neither kind.
std::vector<LoadRequest> read_trace(const std::filesystem::path& path, std::size_t most);

// `count` requests of one shape, arriving as a Poisson process of `rate` a second; 0 = at once.
std::vector<LoadRequest> uniform_load(std::size_t count, std::int64_t input, std::int64_t output,
                                      double rate, std::uint64_t seed);

// The prompt of request `index`: tokens in [least, vocab), the same for the same arguments.
std::vector<std::int32_t> prompt_tokens(const LoadRequest& request, std::size_t index,
                                        std::int64_t vocab, std::uint64_t seed);

}  // namespace nibble::server
