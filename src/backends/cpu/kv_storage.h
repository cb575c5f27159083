// KvType as the kernels see it.
#pragma once

#include "backends/cpu/kernel_table.h"
#include "formats/kv_type.h"

namespace nibble::cpu {

static_assert(static_cast<int>(KvStorage::kF32) == static_cast<int>(KvType::kF32));
static_assert(static_cast<int>(KvStorage::kF16) == static_cast<int>(KvType::kF16));
static_assert(static_cast<int>(KvStorage::kBF16) == static_cast<int>(KvType::kBF16));
static_assert(static_cast<int>(KvStorage::kInt8) == static_cast<int>(KvType::kInt8));
static_assert(static_cast<int>(KvStorage::kInt4) == static_cast<int>(KvType::kInt4));
static_assert(static_cast<int>(KvStorage::kFp8) == static_cast<int>(KvType::kFp8));

constexpr KvStorage kv_storage(KvType type) { return static_cast<KvStorage>(type); }

}  // namespace nibble::cpu
