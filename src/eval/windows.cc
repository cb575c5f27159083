#include "eval/windows.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "eval/chunks.h"
#include "model/kv_cache.h"

namespace nibble {
namespace {

// Moves the counted rows of every window to the front; they are all that the head must see.
Tensor counted_rows(const WindowPlan& plan, std::int64_t windows, Tensor hidden) {
  const std::int64_t width = hidden.dim(1);
  const std::int64_t counted = plan.counted_per_window();
  float* const data = hidden.mutable_data<float>();
  for (std::int64_t w = 0; w < windows; ++w) {
    std::memmove(data + w * counted * width, data + (w * plan.rows + plan.first_counted) * width,
                 static_cast<std::size_t>(counted * width) * sizeof(float));
  }
  return hidden.rows(0, windows * counted);
}

std::vector<std::int32_t> counted_targets(const WindowPlan& plan, std::int64_t begin,
                                          std::int64_t end) {
  std::vector<std::int32_t> targets;
  for (std::int64_t w = begin; w < end; ++w) {
    const auto window = plan.ids.begin() + w * plan.rows;
    targets.insert(targets.end(), window + plan.first_counted + 1, window + plan.rows);
  }
  return targets;
}

void require_comparable(std::span<const Model* const> models) {
  for (const Model* model : models) {
    const ModelSpec& spec = model->spec();
    if (!spec.decoder) {
      fail(ErrorKind::kUnsupported, "eval: {} is an encoder, it does not predict the next token",
           spec.arch);
    }
    if (spec.vocab != models[0]->spec().vocab) {
      fail(ErrorKind::kUsage, "eval: the vocabularies differ ({} and {} tokens)",
           models[0]->spec().vocab, spec.vocab);
    }
  }
}

// Hidden states of equal windows, each through a cache of its own when there is a type for it.
Tensor run_windows(const Model& model, Batch batch, const std::optional<KvFormat>& kv_type) {
  std::vector<KvCache> caches;
  if (kv_type) {
    caches.reserve(batch.sequences.size());
    for (Batch::Sequence& sequence : batch.sequences) {
      sequence.cache =
          &caches.emplace_back(model.spec(), sequence.rows, *kv_type, model.backend().memory());
    }
  }
  return model.hidden(batch);
}

}  // namespace

std::vector<std::int32_t> WindowPlan::tokens(std::int64_t begin, std::int64_t end) const {
  std::vector<std::int32_t> result(ids.begin() + begin * rows, ids.begin() + end * rows);
  if (first_token >= 0) {
    for (std::int64_t w = 0; w < end - begin; ++w) {
      result[static_cast<std::size_t>(w * rows)] = first_token;
    }
  }
  return result;
}

WindowPlan plan_windows(std::span<const std::int32_t> ids, const WindowOptions& options) {
  WindowPlan plan;
  plan.ids = ids;
  if (options.max_tokens > 0 && static_cast<std::size_t>(options.max_tokens) < ids.size()) {
    plan.ids = ids.first(static_cast<std::size_t>(options.max_tokens));
  }
  const auto tokens = static_cast<std::int64_t>(plan.ids.size());
  if (options.context < 2 || tokens < 2) {
    fail(ErrorKind::kUsage,
         "eval: a text of {} tokens in windows of {} has nothing to predict; two are needed",
         tokens, options.context);
  }
  plan.rows = std::min(options.context, tokens);
  plan.count = tokens / plan.rows;
  plan.kv_type = options.kv_type;
  if (options.protocol == WindowProtocol::kLlamaCpp) {
    plan.first_counted = plan.rows / 2 - (plan.rows == 2 ? 1 : 0);
    plan.first_token = options.bos;
  }
  return plan;
}

void for_each_prediction(std::span<const Model* const> models, const WindowPlan& plan,
                         const std::string& step, const ProgressSink& progress,
                         const std::function<void(const PredictionChunk&)>& sink) {
  require_comparable(models);
  const std::int64_t vocab = models[0]->spec().vocab;
  const std::int64_t chunk_rows = head_rows(vocab);
  std::vector<Tensor> logits;
  for (std::size_t m = 0; m < models.size(); ++m) {
    logits.push_back(Tensor::allocate(DType::kF32, {chunk_rows, vocab}));
  }
  const std::int64_t step_windows = std::max<std::int64_t>(1, kRowsPerCall / plan.rows);
  for (std::int64_t begin = 0; begin < plan.count; begin += step_windows) {
    const std::int64_t end = std::min(plan.count, begin + step_windows);
    const Batch batch = Batch::windows(plan.tokens(begin, end), plan.rows);
    std::vector<Tensor> hidden;
    for (std::size_t m = 0; m < models.size(); ++m) {
      const auto kv_type = m == 0 ? plan.kv_type : std::nullopt;
      hidden.push_back(counted_rows(plan, end - begin, run_windows(*models[m], batch, kv_type)));
    }
    const std::vector<std::int32_t> targets = counted_targets(plan, begin, end);
    for (std::size_t at = 0; at < targets.size(); at += static_cast<std::size_t>(chunk_rows)) {
      const std::size_t rows = std::min(static_cast<std::size_t>(chunk_rows), targets.size() - at);
      PredictionChunk chunk;
      chunk.targets = std::span(targets).subspan(at, rows);
      for (std::size_t m = 0; m < models.size(); ++m) {
        const float* const x =
            hidden[m].data<float>() + static_cast<std::int64_t>(at) * hidden[m].dim(1);
        float* const y = logits[m].mutable_data<float>();
        models[m]->head(x, static_cast<std::int64_t>(rows), y);
        chunk.logits.push_back(y);
      }
      sink(chunk);
    }
    nibble::progress(progress, step, end, plan.count);
  }
}

}  // namespace nibble
