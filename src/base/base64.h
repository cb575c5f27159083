// Standard base64 with padding (RFC 4648, section 4).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

// kCorrupt, naming `what`, for anything that is no base64.
std::string decode_base64(std::string_view text, std::string_view what);
std::string encode_base64(std::span<const std::uint8_t> bytes);

}  // namespace nibble
