#include "backends/cuda/blas.h"

#include <cublasLt.h>

#include <map>
#include <span>
#include <tuple>

#include "backends/cuda/library.h"

namespace nibble::cuda {
namespace {

#define NIBBLE_BLAS_FUNCTIONS(X)          \
  X(cublasLtCreate)                       \
  X(cublasLtDestroy)                      \
  X(cublasLtMatmul)                       \
  X(cublasLtMatmulDescCreate)             \
  X(cublasLtMatmulDescDestroy)            \
  X(cublasLtMatmulDescSetAttribute)       \
  X(cublasLtMatrixLayoutCreate)           \
  X(cublasLtMatrixLayoutDestroy)          \
  X(cublasLtMatmulPreferenceCreate)       \
  X(cublasLtMatmulPreferenceDestroy)      \
  X(cublasLtMatmulPreferenceSetAttribute) \
  X(cublasLtMatmulAlgoGetHeuristic)

NIBBLE_LIBRARY_FUNCTIONS(Functions, NIBBLE_BLAS_FUNCTIONS);

// What makes a plan another one.
using Shape = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, BlasType, bool,
                         std::int32_t, std::int32_t>;

constexpr int kMaxAlgorithms = 12;

// A product of one shape: descriptions and the chosen algorithm. The library is column-major: it
// sees w as [cols, rows], x as [cols, m] and y as [rows, m].
struct Plan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

struct Types {
  cudaDataType_t element, sum;
  cublasComputeType_t compute;
};
cudaDataType_t result_type(const BlasProduct& args, const Types& types) {
  if (!args.half_results) return types.sum;
  return args.type == BlasType::kF16 ? CUDA_R_16F : CUDA_R_16BF;
}

Types types_of(BlasType type) {
  switch (type) {
    case BlasType::kF16:
      return {CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F};
    case BlasType::kBf16:
      return {CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F};
    case BlasType::kInt8:
      return {CUDA_R_8I, CUDA_R_32I, CUBLAS_COMPUTE_32I};
    case BlasType::kFp8:
      break;
  }
  return {CUDA_R_8F_E4M3, CUDA_R_32F, CUBLAS_COMPUTE_32F};
}

}  // namespace

struct Blas::State {
  Library library{"libcublasLt.so.13"};
  Functions f;
  cublasLtHandle_t handle = nullptr;
  std::map<Shape, Plan> plans;

  ~State() {
    for (auto& [shape, plan] : plans) release(plan);
    if (handle != nullptr) f.cublasLtDestroy(handle);
  }

  void release(const Plan& plan) {
    if (plan.w != nullptr) f.cublasLtMatrixLayoutDestroy(plan.w);
    if (plan.x != nullptr) f.cublasLtMatrixLayoutDestroy(plan.x);
    if (plan.y != nullptr) f.cublasLtMatrixLayoutDestroy(plan.y);
    if (plan.product != nullptr) f.cublasLtMatmulDescDestroy(plan.product);
  }

  // The first algorithms that the library proposes; how many there are.
  int propose(const BlasProduct& args, const Plan& plan,
              std::span<cublasLtMatmulHeuristicResult_t> found) {
    cublasLtMatmulPreference_t preference = nullptr;
    if (f.cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS) return 0;
    f.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                           &args.workspace_bytes, sizeof(args.workspace_bytes));
    int count = 0;
    const cublasStatus_t status = f.cublasLtMatmulAlgoGetHeuristic(
        handle, plan.product, plan.w, plan.x, plan.y, plan.y, preference,
        static_cast<int>(found.size()), found.data(), &count);
    f.cublasLtMatmulPreferenceDestroy(preference);
    return status == CUBLAS_STATUS_SUCCESS ? count : 0;
  }

  bool choose(const BlasProduct& args, Plan& plan) {
    cublasLtMatmulHeuristicResult_t found[kMaxAlgorithms] = {};
    const auto wanted = static_cast<std::size_t>(args.algorithm) + 1;
    const int count = propose(args, plan, std::span(found).first(wanted));
    plan.algorithm = found[args.algorithm].algo;
    return count == args.algorithm + 1;
  }

  bool make(const BlasProduct& args, Plan& plan) {
    const Types types = types_of(args.type);
    const cublasOperation_t transpose = CUBLAS_OP_T;
    const auto layout = [&](cublasLtMatrixLayout_t& to, cudaDataType_t of, std::int64_t rows,
                            std::int64_t cols, std::int64_t stride) {
      return f.cublasLtMatrixLayoutCreate(&to, of, static_cast<std::uint64_t>(rows),
                                          static_cast<std::uint64_t>(cols),
                                          stride) == CUBLAS_STATUS_SUCCESS;
    };
    return f.cublasLtMatmulDescCreate(&plan.product, types.compute, types.sum) ==
               CUBLAS_STATUS_SUCCESS &&
           f.cublasLtMatmulDescSetAttribute(plan.product, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                            sizeof(transpose)) == CUBLAS_STATUS_SUCCESS &&
           set_scales(args, plan) &&
           layout(plan.w, types.element, args.cols, args.rows, args.cols) &&
           layout(plan.x, types.element, args.cols, args.m, args.cols) &&
           layout(plan.y, result_type(args, types), args.rows, args.m, args.y_stride) &&
           choose(args, plan);
  }

  template <class T>
  bool set(const Plan& plan, cublasLtMatmulDescAttributes_t attribute, const T& value) {
    return f.cublasLtMatmulDescSetAttribute(plan.product, attribute, &value, sizeof(value)) ==
           CUBLAS_STATUS_SUCCESS;
  }

  // One scale a row of w and of x.
  bool set_scales(const BlasProduct& args, const Plan& plan) {
    if (args.w_scales == nullptr) return true;
    const std::int32_t by_row = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    return set(plan, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, by_row) &&
           set(plan, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, by_row) &&
           set(plan, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, args.w_scales) &&
           set(plan, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, args.x_scales);
  }

  // Null when the library has no algorithm for the shape.
  const Plan* plan_of(const BlasProduct& args) {
    const Shape shape{args.m,         args.rows,        args.cols,
                      args.y_stride,  args.type,        args.w_scales != nullptr,
                      args.algorithm, args.half_results};
    const auto known = plans.find(shape);
    if (known != plans.end()) return known->second.product != nullptr ? &known->second : nullptr;
    Plan plan;
    if (!make(args, plan)) {
      release(plan);
      plan = {};
    }
    const Plan& made = plans.emplace(shape, plan).first->second;
    return made.product != nullptr ? &made : nullptr;
  }
};

Blas::Blas(std::unique_ptr<State> state) : state_(std::move(state)) {}
Blas::~Blas() = default;

std::unique_ptr<Blas> Blas::open() {
  auto state = std::make_unique<State>();
  if (!state->f.load(state->library)) return nullptr;
  if (state->f.cublasLtCreate(&state->handle) != CUBLAS_STATUS_SUCCESS) return nullptr;
  return std::unique_ptr<Blas>(new Blas(std::move(state)));
}

Blas* Blas::get() {
  static const std::unique_ptr<Blas> blas = open();
  return blas.get();
}

bool Blas::scales(const BlasProduct& args) { return state_->plan_of(args) != nullptr; }

int Blas::algorithms(const BlasProduct& args) {
  const Plan* const plan = state_->plan_of(args);
  if (plan == nullptr) return 0;
  cublasLtMatmulHeuristicResult_t found[kMaxAlgorithms] = {};
  return state_->propose(args, *plan, found);
}

bool Blas::takes(std::int64_t cols) { return cols % 8 == 0; }

cudaError_t multiply(const BlasProduct& args, cudaStream_t stream) {
  if (args.m == 0 || args.rows == 0) return cudaSuccess;
  Blas::State& state = *args.blas->state_;
  const Plan* const plan = state.plan_of(args);
  if (plan == nullptr || !state.set_scales(args, *plan)) return cudaErrorNotSupported;
  // Of the type of the sums.
  const float float_factors[] = {1, args.accumulate ? 1.0f : 0.0f};
  const std::int32_t integer_factors[] = {1, 0};
  const bool integers = args.type == BlasType::kInt8;
  const void* const alpha = integers ? static_cast<const void*>(integer_factors) : float_factors;
  const void* const beta =
      integers ? static_cast<const void*>(integer_factors + 1) : float_factors + 1;
  const cublasStatus_t status = state.f.cublasLtMatmul(
      state.handle, plan->product, alpha, args.w, plan->w, args.x, plan->x, beta, args.y, plan->y,
      args.y, plan->y, &plan->algorithm, args.workspace, args.workspace_bytes, stream);
  return status == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorLaunchFailure;
}

}  // namespace nibble::cuda
