#include "eval/logits.h"

#include <algorithm>
#include <limits>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "eval/chunks.h"
#include "tensor/npy.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// Appends to a file that appears under its name only when complete.
class AtomicWriter {
 public:
  AtomicWriter(const fs::path& path, std::size_t size)
      : path_(path), temporary_(path.string() + ".tmp"), file_(temporary_, size) {}
  ~AtomicWriter() {
    std::error_code ignored;
    if (!complete_) fs::remove(temporary_, ignored);
  }
  AtomicWriter(const AtomicWriter&) = delete;
  AtomicWriter& operator=(const AtomicWriter&) = delete;

  void append(std::span<const std::byte> bytes) {
    file_.write_at(written_, bytes);
    written_ += bytes.size();
  }

  void finish() {
    file_.sync();
    std::error_code error;
    fs::rename(temporary_, path_, error);
    if (error) {
      fail(ErrorKind::kDisk, "{}: cannot rename into place: {}", path_.string(), error.message());
    }
    complete_ = true;
    sync_path(path_.has_parent_path() ? path_.parent_path() : fs::path("."));
  }

 private:
  fs::path path_;
  fs::path temporary_;
  OutputFile file_;
  std::size_t written_ = 0;
  bool complete_ = false;
};

std::span<const std::byte> bytes_of(const float* values, std::int64_t count) {
  return std::as_bytes(std::span(values, static_cast<std::size_t>(count)));
}

template <class T>
void append_ids(const Tensor& tensor, std::int64_t vocab, const std::string& where,
                std::vector<std::int32_t>& ids) {
  const T* const values = tensor.data<T>();
  for (std::int64_t i = 0; i < tensor.elements(); ++i) {
    if (values[i] < 0 || static_cast<std::int64_t>(values[i]) >= vocab) {
      fail(ErrorKind::kUsage, "{}: id {} at element {} is outside the vocabulary of {}", where,
           values[i], i, vocab);
    }
    ids.push_back(static_cast<std::int32_t>(values[i]));
  }
}

void write_rows(const Model& model, const Tensor& hidden, AtomicWriter& file) {
  const std::int64_t vocab = model.spec().vocab;
  const std::int64_t rows = hidden.dim(0);
  const std::int64_t chunk = std::min(rows, head_rows(vocab));
  Tensor logits = Tensor::allocate(DType::kF32, {chunk, vocab});
  for (std::int64_t at = 0; at < rows; at += chunk) {
    const std::int64_t n = std::min(chunk, rows - at);
    float* const y = logits.mutable_data<float>();
    model.head(hidden.data<float>() + at * hidden.dim(1), n, y);
    file.append(bytes_of(y, n * vocab));
  }
}

std::size_t file_size(const Shape& shape, std::size_t header) {
  const std::int64_t elements = element_count(shape);
  if (elements > (std::numeric_limits<std::int64_t>::max() >> 3)) {
    fail(ErrorKind::kDisk, "logits of shape {} do not fit on any disk", to_string(shape));
  }
  return header + static_cast<std::size_t>(elements) * sizeof(float);
}

}  // namespace

IdMatrix read_ids(const fs::path& path, std::int64_t vocab) {
  const std::string where = path.string();
  const Tensor tensor = read_npy(path);
  const Shape& shape = tensor.shape();
  if (shape.empty() || shape.size() > 2 || tensor.elements() == 0) {
    fail(ErrorKind::kUsage, "{}: ids must be a matrix [batch, seq] with elements, not {}", where,
         to_string(shape));
  }
  IdMatrix matrix;
  matrix.batch = shape.size() == 2 ? shape[0] : 1;
  matrix.seq = shape.back();
  if (tensor.dtype() == DType::kI32) {
    append_ids<std::int32_t>(tensor, vocab, where, matrix.ids);
  } else if (tensor.dtype() == DType::kI64) {
    append_ids<std::int64_t>(tensor, vocab, where, matrix.ids);
  } else {
    fail(ErrorKind::kUsage, "{}: ids must be int32 or int64, not {}", where,
         to_string(tensor.dtype()));
  }
  return matrix;
}

Shape write_logits(const Model& model, const IdMatrix& ids, const fs::path& out,
                   const ProgressSink& progress) {
  const ModelSpec& spec = model.spec();
  const Shape shape = {ids.batch, ids.seq, spec.decoder ? spec.vocab : spec.hidden};
  const std::string header = npy_header(DType::kF32, shape);
  AtomicWriter file(out, file_size(shape, header.size()));
  file.append(std::as_bytes(std::span(header)));
  const std::int64_t step = std::max<std::int64_t>(1, kRowsPerCall / ids.seq);
  for (std::int64_t begin = 0; begin < ids.batch; begin += step) {
    const std::int64_t end = std::min(ids.batch, begin + step);
    const Batch batch = Batch::windows(
        {ids.ids.begin() + begin * ids.seq, ids.ids.begin() + end * ids.seq}, ids.seq);
    if (spec.decoder) {
      write_rows(model, model.hidden(batch), file);
    } else {
      const Tensor states = model.logits(batch);
      file.append(bytes_of(states.data<float>(), states.elements()));
    }
    nibble::progress(progress, "logits", end, ids.batch);
  }
  file.finish();
  return shape;
}

}  // namespace nibble
