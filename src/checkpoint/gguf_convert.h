// Writing a checkpoint as one GGUF file. Internal to checkpoint/: convert.h is the way in.
#pragma once

#include <filesystem>

#include "checkpoint/convert.h"

namespace nibble {

// As convert_checkpoint(), into the file `destination`. Weights are stored
//
//   plain     as they are; with a preset or a format, rounded to it
//   quantized in the blocks that hold the same values; rounded, to the preset, the format or the
//             target's own, only with options.requantize
//
// and what is no matrix in F32. At most one weight of the source is in memory, and of what is
// rounded a few megabytes.
ConvertReport convert_to_gguf(const Checkpoint& source, const std::filesystem::path& destination,
                              const ConvertOptions& options, const ProgressSink& progress);

}  // namespace nibble
