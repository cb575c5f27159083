// The activation functions of the op of that name.
#pragma once

namespace nibble {

enum class Activation { kIdentity, kRelu, kSilu, kGelu, kGeluTanh, kGeluQuick, kTanh };

}  // namespace nibble
