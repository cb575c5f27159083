#include "model/model.h"

#include <algorithm>

#include "base/error.h"
#include "model/layers/layer_context.h"

namespace nibble {
namespace {

void advance_caches(const Batch& batch) {
  for (const Batch::Sequence& sequence : batch.sequences) {
    if (sequence.cache != nullptr) sequence.cache->advance(sequence.rows);
  }
}

// The last row of each sequence.
std::vector<std::int32_t> last_rows(const Batch& batch) {
  std::vector<std::int32_t> last;
  std::int64_t rows = 0;
  for (const Batch::Sequence& sequence : batch.sequences) {
    if (sequence.rows == 0) fail(ErrorKind::kUsage, "a sequence of no tokens has no last one");
    rows += sequence.rows;
    last.push_back(static_cast<std::int32_t>(rows - 1));
  }
  return last;
}

}  // namespace

Batch Batch::single(std::vector<std::int32_t> ids, KvCache* cache) {
  Batch batch;
  batch.ids = std::move(ids);
  batch.sequences.push_back({batch.rows(), cache == nullptr ? 0 : cache->size(), cache});
  return batch;
}

Batch Batch::windows(std::vector<std::int32_t> ids, std::int64_t rows_each) {
  Batch batch;
  batch.ids = std::move(ids);
  if (rows_each <= 0 || batch.rows() % rows_each != 0) {
    fail(ErrorKind::kUsage, "{} ids do not make windows of {}", batch.rows(), rows_each);
  }
  batch.sequences.assign(static_cast<std::size_t>(batch.rows() / rows_each),
                         {rows_each, 0, nullptr});
  return batch;
}

Model::Model(ModelSpec spec, const WeightSource& source, Backend& backend,
             const ModelFormat& rounding, const Room& besides)
    : spec_(std::move(spec)), backend_(backend) {
  if (!backend.memory().is_host()) {
    Room room = besides;
    room.weights += loaded_bytes(spec_, source, rounding);
    require_room(room, backend.memory());
  }
  embedding_ = load_embedding(spec_, source, backend, rounding);
  for (std::int64_t layer = 0; layer < spec_.layers; ++layer) {
    layers_.push_back(load_layer(spec_, layer, source, backend, rounding));
  }
  head_ = load_head(spec_, embedding_, source, backend, rounding);
}

void Model::run_blocks(const Batch& batch, float* hidden) const {
  run_embedding(spec_, embedding_, batch, backend_, hidden);
  for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
    run_layer(spec_, static_cast<std::int64_t>(layer), layers_[layer], batch, backend_, hidden);
  }
}

Tensor Model::hidden(const Batch& batch) const {
  Tensor hidden = backend_.memory().allocate(DType::kF32, {batch.rows(), spec_.hidden});
  run_blocks(batch, hidden.mutable_data<float>());
  advance_caches(batch);
  return backend_.memory().download(hidden);
}

Tensor Model::logits(const Batch& batch) const {
  Tensor states = hidden(batch);
  if (!spec_.decoder) return states;
  Tensor logits = Tensor::allocate(DType::kF32, {batch.rows(), spec_.vocab});
  head(states.data<float>(), batch.rows(), logits.mutable_data<float>());
  return logits;
}

void Model::run_last(const Batch& batch, float* logits, const std::function<void()>& finish) const {
  if (!spec_.decoder) fail(ErrorKind::kUsage, "an encoder has no logits");
  const std::vector<std::int32_t> last = last_rows(batch);
  const auto count = static_cast<std::int64_t>(last.size());
  Rows states(backend_, batch.rows(), spec_.hidden);
  Rows picked(backend_, count, spec_.hidden);
  backend_.run_step([&] {
    run_blocks(batch, states.data());
    GatherRowsArgs gather;
    gather.x = states.data();
    gather.index = last;
    gather.cols = spec_.hidden;
    gather.out = picked.data();
    backend_.run(gather);
    run_head(spec_, head_, picked.data(), count, backend_, logits);
    finish();
  });
  advance_caches(batch);
}

Tensor Model::last_logits(const Batch& batch) const {
  const std::int64_t count = std::ssize(batch.sequences);
  Rows logits(backend_, count, spec_.vocab);
  run_last(batch, logits.data(), [] {});
  Tensor result = Tensor::allocate(DType::kF32, {count, spec_.vocab});
  backend_.memory().copy_out(logits.data(), result.byte_size(), result.address());
  return result;
}

std::vector<std::int32_t> Model::likeliest_tokens(const Batch& batch) const {
  const std::vector<TokenChoice> choices(batch.sequences.size());
  return choose_tokens(batch, choices);
}

std::vector<std::int32_t> Model::choose_tokens(const Batch& batch,
                                               std::span<const TokenChoice> choices) const {
  Rows room(backend_, std::ssize(batch.sequences), 1);
  auto* const chosen = reinterpret_cast<std::int32_t*>(room.data());
  choose_tokens(batch, choices, chosen);
  std::vector<std::int32_t> tokens(batch.sequences.size());
  backend_.memory().copy_out(chosen, tokens.size() * sizeof(std::int32_t), tokens.data());
  return tokens;
}

void Model::choose_tokens(const Batch& batch, std::span<const TokenChoice> choices,
                          std::int32_t* chosen) const {
  const std::int64_t count = std::ssize(batch.sequences);
  NIBBLE_CHECK(std::ssize(choices) == count);
  Rows logits(backend_, count, spec_.vocab);
  const bool greedy =
      std::ranges::all_of(choices, [](const TokenChoice& c) { return c.temperature == 0; });
  run_last(batch, logits.data(), [&] {
    if (greedy) {
      backend_.run(ArgmaxArgs{logits.data(), count, spec_.vocab, chosen});
    } else {
      backend_.run(SampleArgs{logits.data(), count, spec_.vocab, choices, chosen});
    }
  });
}

// Experts are chosen on the host, in the middle of a step.
bool Model::runs_beside_host() const {
  return !backend_.memory().is_host() && spec_.mlp.experts == 0;
}

void Model::head(const float* hidden, std::int64_t rows, float* logits) const {
  if (backend_.memory().is_host()) {
    run_head(spec_, head_, hidden, rows, backend_, logits);
    return;
  }
  Rows x(backend_, rows, spec_.hidden);
  Rows y(backend_, rows, spec_.vocab);
  DeviceMemory& memory = backend_.memory();
  memory.copy_in(hidden, static_cast<std::size_t>(rows * spec_.hidden) * sizeof(float), x.data());
  run_head(spec_, head_, x.data(), rows, backend_, y.data());
  memory.copy_out(y.data(), static_cast<std::size_t>(rows * spec_.vocab) * sizeof(float), logits);
}

}  // namespace nibble
