// Speed of encoding and decoding weights, every format, beside the scalar definition's bits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backends/backend.h"

namespace nibble {

struct CodecBench {
  std::vector<std::string> formats;  // of the grammar; empty: weights of every registered name
  std::int64_t rows = 1024;
  std::int64_t cols = 4096;
  double seconds = 0.1;  // spent on each direction of each format
};

struct CodecRow {
  std::string name;    // as asked for
  std::string format;  // as the grammar spells it
  double bits_per_weight = 0;
  double encode_bytes_per_second = 0;  // of float32 read, best of all runs
  double decode_bytes_per_second = 0;  // of float32 written
  bool equal = false;                  // planes and decoded values are those of the definition
};

// Normal numbers, with the kernels and threads of backend.codec(), or with the ops of a device that
// has a memory of its own: then in that memory, each run by itself.
std::vector<CodecRow> bench_codecs(Backend& backend, const CodecBench& options);

}  // namespace nibble
