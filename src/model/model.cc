#include "model/model.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {

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

Model::Model(ModelSpec spec, const WeightSource& source, Backend& backend)
    : spec_(std::move(spec)), backend_(backend) {
  embedding_ = load_embedding(spec_, source, backend);
  for (std::int64_t layer = 0; layer < spec_.layers; ++layer) {
    layers_.push_back(load_layer(spec_, layer, source, backend));
  }
  head_ = load_head(spec_, embedding_, source, backend);
}

Tensor Model::hidden(const Batch& batch) const {
  Tensor hidden = Tensor::allocate(DType::kF32, {batch.rows(), spec_.hidden});
  run_embedding(spec_, embedding_, batch, backend_, hidden.mutable_data<float>());
  for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
    run_layer(spec_, static_cast<std::int64_t>(layer), layers_[layer], batch, backend_,
              hidden.mutable_data<float>());
  }
  for (const Batch::Sequence& sequence : batch.sequences) {
    if (sequence.cache != nullptr) sequence.cache->advance(sequence.rows);
  }
  return hidden;
}

Tensor Model::logits(const Batch& batch) const {
  Tensor states = hidden(batch);
  if (!spec_.decoder) return states;
  Tensor logits = Tensor::allocate(DType::kF32, {batch.rows(), spec_.vocab});
  head(states.data<float>(), batch.rows(), logits.mutable_data<float>());
  return logits;
}

Tensor Model::last_logits(const Batch& batch) const {
  if (!spec_.decoder) fail(ErrorKind::kUsage, "an encoder has no logits");
  const Tensor states = hidden(batch);
  std::vector<std::int32_t> last;
  std::int64_t rows = 0;
  for (const Batch::Sequence& sequence : batch.sequences) {
    if (sequence.rows == 0) fail(ErrorKind::kUsage, "a sequence of no tokens has no last one");
    rows += sequence.rows;
    last.push_back(static_cast<std::int32_t>(rows - 1));
  }
  const auto count = static_cast<std::int64_t>(last.size());
  Tensor picked = Tensor::allocate(DType::kF32, {count, spec_.hidden});
  GatherRowsArgs gather;
  gather.x = states.data<float>();
  gather.index = last;
  gather.cols = spec_.hidden;
  gather.out = picked.mutable_data<float>();
  backend_.run(gather);
  Tensor logits = Tensor::allocate(DType::kF32, {count, spec_.vocab});
  head(picked.data<float>(), count, logits.mutable_data<float>());
  return logits;
}

void Model::head(const float* hidden, std::int64_t rows, float* logits) const {
  run_head(spec_, head_, hidden, rows, backend_, logits);
}

}  // namespace nibble
