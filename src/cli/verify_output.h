// How commands show what verification found.
#pragma once

#include <string>

#include "base/json.h"
#include "quantize/verify.h"

namespace nibble::cli {

Json verify_json(const VerifyResult& verify);
std::string verify_text(const VerifyResult& verify);

}  // namespace nibble::cli
