#include "checkpoint/packed_cache.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/container/tensor_files.h"
#include "checkpoint/writer.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIdentity = "identity";
constexpr std::size_t kAlignment = 64;
constexpr const char* kFileName = "nibble.repacked";

std::size_t padded(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool holds_weights(const fs::path& file) {
  const fs::path extension = file.extension();
  return extension == ".safetensors" || extension == ".bin" || extension == ".gguf" ||
         file.filename() == "config.json";
}

std::string stamp_of(const fs::path& file) {
  struct stat st {};
  if (::stat(file.c_str(), &st) != 0) {
    fail(ErrorKind::kDisk, "{}: {}", file.string(), std::strerror(errno));
  }
  return fmt::format("{} {} {}.{:09}\n", file.filename().string(), st.st_size, st.st_mtim.tv_sec,
                     st.st_mtim.tv_nsec);
}

StoredTensor blob_plan(const std::string& name, std::size_t bytes) {
  return {name, DType::kU8, {static_cast<std::int64_t>(padded(bytes))}};
}

}  // namespace

std::string checkpoint_identity(const fs::path& checkpoint) {
  if (!fs::is_directory(checkpoint)) return stamp_of(checkpoint);
  std::vector<std::string> stamps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(checkpoint, error)) {
    if (entry.is_regular_file() && holds_weights(entry.path())) {
      stamps.push_back(stamp_of(entry.path()));
    }
  }
  if (error) fail(ErrorKind::kDisk, "{}: {}", checkpoint.string(), error.message());
  std::ranges::sort(stamps);
  std::string identity;
  for (const std::string& stamp : stamps) identity += stamp;
  return identity;
}

fs::path packed_cache_path(const fs::path& checkpoint, const fs::path& directory) {
  if (directory.empty()) {
    if (fs::is_directory(checkpoint)) return checkpoint / kFileName;
    return checkpoint.string() + "." + kFileName;
  }
  std::string name;
  for (const char c : fs::weakly_canonical(checkpoint).string()) {
    if (c == '%' || c == '/') {
      name += fmt::format("%{:02x}", static_cast<unsigned>(c));
    } else {
      name += c;
    }
  }
  return directory / (name + "." + kFileName);
}

PackedCache::PackedCache(fs::path file, std::string identity, LogSink log)
    : file_(std::move(file)), identity_(std::move(identity)), log_(std::move(log)) {
  identity_.resize(padded(identity_.size() + 1), '\n');  // never empty
  std::error_code ignored;
  if (fs::exists(file_, ignored)) open();
}

void PackedCache::open() {
  try {
    auto stored = std::make_unique<const SafetensorsFile>(file_);
    const Tensor identity = stored->tensor(kIdentity);
    if (std::ranges::equal(identity.bytes(), std::as_bytes(std::span(identity_)))) {
      stored_ = std::move(stored);
    } else {
      log(log_, LogLevel::kInfo,
          fmt::format("{}: made of another state of the checkpoint; making it anew",
                      file_.string()));
    }
  } catch (const Error& error) {
    log(log_, LogLevel::kWarning,
        fmt::format("the cache of repacked weights is damaged, making it anew: {}", error.what()));
  }
}

Tensor PackedCache::find(const std::string& name, std::size_t bytes) {
  if (stored_ == nullptr || name == kIdentity) return {};
  const SafetensorsEntry* entry = stored_->find(name);
  if (entry == nullptr || entry->dtype != to_string(DType::kU8) ||
      entry->end - entry->begin != padded(bytes)) {
    return {};
  }
  const auto blob = std::make_shared<const Tensor>(stored_->tensor(name));
  if (reinterpret_cast<std::uintptr_t>(blob->bytes().data()) % kAlignment != 0) return {};
  Tensor found = Tensor::view(DType::kU8, {static_cast<std::int64_t>(bytes)},
                              blob->bytes().first(bytes), blob);
  used_.insert_or_assign(name, found);
  return found;
}

void PackedCache::put(const std::string& name, const Tensor& tensor) {
  used_.insert_or_assign(name, tensor);
  changed_ = true;
}

void PackedCache::save() {
  if (changed_) {
    try {
      write();
    } catch (const Error& error) {
      log(log_, LogLevel::kWarning,
          fmt::format("repacked weights are not kept for the next start: {}", error.what()));
    }
  }
  changed_ = false;
  used_.clear();
}

void PackedCache::write() const {
  std::vector<StoredTensor> plan = {blob_plan(kIdentity, identity_.size())};
  for (const auto& [name, tensor] : used_) plan.push_back(blob_plan(name, tensor.byte_size()));
  std::string folder = file_.string() + ".XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) {
    fail(ErrorKind::kDisk, "{}: {}", file_.string(), std::strerror(errno));
  }
  std::error_code error;
  try {
    ShardedWriter writer(folder, plan, std::numeric_limits<std::uint64_t>::max());
    writer.write(kIdentity, 0, std::as_bytes(std::span(identity_)));
    for (const auto& [name, tensor] : used_) writer.write(name, 0, tensor.bytes());
    writer.finish();
    fs::rename(fs::path(folder) / kSafetensorsFile, file_, error);
    if (error) fail(ErrorKind::kDisk, "{}: {}", file_.string(), error.message());
  } catch (...) {
    fs::remove_all(folder, error);
    throw;
  }
  fs::remove_all(folder, error);
  sync_path(file_.has_parent_path() ? file_.parent_path() : fs::path("."));
}

}  // namespace nibble
