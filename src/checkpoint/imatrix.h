// Importance matrices: for the weights of a model, by their names in GGUF, the mean square of what
// meets each column. Source: llama.cpp, tools/imatrix/imatrix.cpp, both its forms.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// Of one weight, or of all experts of a layer one after the other.
struct ImatrixEntry {
  std::vector<float> sums;    // [experts, cols]: of squares
  std::vector<float> counts;  // [experts]: rows that were summed; 0 for experts that saw none

  std::size_t cols() const { return sums.size() / counts.size(); }
};

struct ImatrixSource {
  std::vector<std::string> datasets;
  std::uint32_t chunks = 0, chunk_size = 0;  // texts of so many tokens
};

// Entries are finite, not negative, of whole experts. Reading is thread-safe.
class Imatrix {
 public:
  ImatrixSource source;

  // Replaces what is there. kCorrupt for sums and counts that do not fit or are no such numbers.
  void set(const std::string& tensor, ImatrixEntry entry);
  const std::map<std::string, ImatrixEntry>& entries() const { return entries_; }

  // The mean squares of one expert (0 for weights that are one), [cols]; empty when nothing is
  // known about the tensor, or the expert. kCorrupt, naming it, when it has not `cols` columns.
  std::span<const float> importance(const std::string& tensor, std::int64_t cols,
                                    std::size_t expert) const;

 private:
  std::map<std::string, ImatrixEntry> entries_;
  std::map<std::string, std::vector<float>> means_;  // as entries_, [experts, cols]
};

// A file of either form; `what` names it in errors. kCorrupt for what breaks the form.
Imatrix parse_imatrix(std::span<const std::byte> file, std::string_view what);
Imatrix read_imatrix(const std::filesystem::path& path);
// In the form that its name asks for: the old one for *.dat, GGUF otherwise. kDisk on failure.
void write_imatrix(const Imatrix& imatrix, const std::filesystem::path& path);

}  // namespace nibble
