#include "hub/digest.h"

#include <openssl/evp.h>

#include <fstream>
#include <memory>
#include <vector>

#include "base/error.h"

namespace nibble::hub {
namespace {

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

}  // namespace

bool has_digest(const std::filesystem::path& path, const std::string& digest) {
  constexpr std::size_t kSha256Digits = 64, kSha1Digits = 40, kPiece = std::size_t{1} << 20;
  NIBBLE_CHECK(digest.size() == kSha256Digits || digest.size() == kSha1Digits);
  const bool is_git = digest.size() == kSha1Digits;
  const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  const EVP_MD* type = is_git ? EVP_sha1() : EVP_sha256();
  NIBBLE_CHECK(context != nullptr && EVP_DigestInit_ex(context.get(), type, nullptr) == 1);
  const auto add = [&](const char* bytes, std::size_t count) {
    NIBBLE_CHECK(EVP_DigestUpdate(context.get(), bytes, count) == 1);
  };
  if (is_git) {
    const std::string head = fmt::format("blob {}", std::filesystem::file_size(path));
    add(head.c_str(), head.size() + 1);
  }
  std::ifstream file(path, std::ios::binary);
  std::vector<char> piece(kPiece);
  while (file) {
    file.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    add(piece.data(), static_cast<std::size_t>(file.gcount()));
  }
  if (!file.eof()) fail(ErrorKind::kDisk, "{}: cannot be read", path.string());
  unsigned char sum[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  NIBBLE_CHECK(EVP_DigestFinal_ex(context.get(), sum, &length) == 1);
  std::string digits;
  for (unsigned i = 0; i < length; ++i) digits += fmt::format("{:02x}", sum[i]);
  return digits == digest;
}

}  // namespace nibble::hub
