#include "quantize/texts.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "base/embedded.h"
#include "base/error.h"
#include "base/file.h"

namespace nibble {

std::span<const EmbeddedFile> bundled_text_files();

namespace {

constexpr std::size_t kBlock = 128;
constexpr std::uint64_t kBase = 0x100000001b3;  // odd, so that powers never vanish modulo 2^64

// Polynomial hash modulo 2^64, which can be rolled along a text.
std::uint64_t hash_block(std::string_view block) {
  std::uint64_t hash = 0;
  for (const char c : block) hash = hash * kBase + static_cast<unsigned char>(c) + 1;
  return hash;
}

std::string_view bundled_text(std::string_view name) {
  for (const EmbeddedFile& file : bundled_text_files()) {
    if (file.name == name) return file.content;
  }
  fail(ErrorKind::kInternal, "{} is not in the program", name);
}

}  // namespace

std::string_view bundled_calibration_text() { return bundled_text("calib.txt"); }
std::string_view bundled_verification_text() { return bundled_text("verify.txt"); }

std::vector<std::string> calibration_texts(std::span<const std::filesystem::path> files) {
  if (files.empty()) return {std::string(bundled_calibration_text())};
  std::vector<std::string> texts;
  for (const std::filesystem::path& path : files) {
    texts.push_back(read_text_file(path));
    if (!is_valid_utf8(texts.back())) {
      fail(ErrorKind::kUsage, "{}: is not valid UTF-8", path.string());
    }
  }
  return texts;
}

double overlap(std::string_view text, std::string_view other) {
  if (text.size() < kBlock || other.size() < kBlock) return 0;
  std::vector<std::uint64_t> blocks;
  for (std::size_t at = 0; at + kBlock <= other.size(); at += kBlock) {
    blocks.push_back(hash_block(other.substr(at, kBlock)));
  }
  std::ranges::sort(blocks);
  std::uint64_t leading = 1;  // weight of the byte that leaves the block
  for (std::size_t i = 1; i < kBlock; ++i) leading *= kBase;

  std::size_t found = 0;
  std::size_t counted_to = 0;
  std::uint64_t hash = hash_block(text.substr(0, kBlock));
  for (std::size_t at = 0;; ++at) {
    if (at >= counted_to && std::ranges::binary_search(blocks, hash)) {
      found += kBlock;
      counted_to = at + kBlock;
    }
    if (at + kBlock == text.size()) break;
    hash -= leading * (static_cast<unsigned char>(text[at]) + std::uint64_t{1});
    hash = hash * kBase + static_cast<unsigned char>(text[at + kBlock]) + 1;
  }
  return static_cast<double>(found) / static_cast<double>(text.size());
}

}  // namespace nibble
