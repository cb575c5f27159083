#include "backends/cuda/solver.h"

#include <cusolverDn.h>

#include <algorithm>
#include <vector>

#include "backends/cuda/library.h"
#include "backends/cuda/status.h"

namespace nibble::cuda {
namespace {

#define NIBBLE_SOLVER_FUNCTIONS(X) \
  X(cusolverDnCreate)              \
  X(cusolverDnDestroy)             \
  X(cusolverDnSetStream)           \
  X(cusolverDnCreateParams)        \
  X(cusolverDnDestroyParams)       \
  X(cusolverDnXpotrf)              \
  X(cusolverDnXpotrf_bufferSize)   \
  X(cusolverDnXtrtri)              \
  X(cusolverDnXtrtri_bufferSize)

NIBBLE_LIBRARY_FUNCTIONS(SolverFunctions, NIBBLE_SOLVER_FUNCTIONS);

void check_solver(cusolverStatus_t status, const char* what) {
  if (status == CUSOLVER_STATUS_SUCCESS) return;
  fail(ErrorKind::kDevice,
       "{}: cuSOLVER fails with status {}; NIBBLE_FORCE=inverse_factor:host does without it", what,
       static_cast<int>(status));
}

// The library is column-major: what it takes for an upper triangle is our lower one.
constexpr cublasFillMode_t kTriangle = CUBLAS_FILL_MODE_UPPER;
constexpr cudaDataType kType = CUDA_R_64F;
constexpr std::size_t kInfoBytes = 256;  // in front of the workspace, which stays aligned

}  // namespace

struct Solver::State {
  Library library{"libcusolver.so.12"};
  SolverFunctions f;
  cusolverDnHandle_t handle = nullptr;
  cusolverDnParams_t params = nullptr;

  ~State() {
    if (params != nullptr) f.cusolverDnDestroyParams(params);
    if (handle != nullptr) f.cusolverDnDestroy(handle);
  }

  // What either step wants.
  struct Space {
    std::size_t device_bytes = 0;
    std::size_t host_bytes = 0;
  };
  Space space(double* a, std::int64_t n) const {
    Space root, inverse;
    check_solver(f.cusolverDnXpotrf_bufferSize(handle, params, kTriangle, n, kType, a, n, kType,
                                               &root.device_bytes, &root.host_bytes),
                 "factor");
    check_solver(f.cusolverDnXtrtri_bufferSize(handle, kTriangle, CUBLAS_DIAG_NON_UNIT, n, kType, a,
                                               n, &inverse.device_bytes, &inverse.host_bytes),
                 "inverse of a factor");
    return {std::max(root.device_bytes, inverse.device_bytes),
            std::max(root.host_bytes, inverse.host_bytes)};
  }
};

Solver::Solver(std::unique_ptr<State> state) : state_(std::move(state)) {}
Solver::~Solver() = default;

std::unique_ptr<Solver> Solver::open() {
  auto state = std::make_unique<State>();
  if (!state->f.load(state->library)) return nullptr;
  if (state->f.cusolverDnCreate(&state->handle) != CUSOLVER_STATUS_SUCCESS) return nullptr;
  if (state->f.cusolverDnCreateParams(&state->params) != CUSOLVER_STATUS_SUCCESS) return nullptr;
  return std::unique_ptr<Solver>(new Solver(std::move(state)));
}

Solver* Solver::get() {
  static const std::unique_ptr<Solver> solver = open();
  return solver.get();
}

bool Solver::inverse_of_root(double* a, std::int64_t n,
                             const std::function<void*(std::size_t bytes)>& workspace,
                             cudaStream_t stream) {
  const State& state = *state_;
  check_solver(state.f.cusolverDnSetStream(state.handle, stream), "factor");
  const State::Space space = state.space(a, n);
  auto* const info = static_cast<int*>(workspace(kInfoBytes + space.device_bytes));
  void* const device = reinterpret_cast<std::byte*>(info) + kInfoBytes;
  std::vector<std::byte> host(space.host_bytes);
  const auto succeeded = [&] {
    int answer = 0;
    check(cudaMemcpyAsync(&answer, info, sizeof(answer), cudaMemcpyDeviceToHost, stream),
          "copy from the card");
    check(cudaStreamSynchronize(stream), "factor");
    return answer == 0;
  };
  check_solver(
      state.f.cusolverDnXpotrf(state.handle, state.params, kTriangle, n, kType, a, n, kType, device,
                               space.device_bytes, host.data(), space.host_bytes, info),
      "factor");
  if (!succeeded()) return false;
  check_solver(
      state.f.cusolverDnXtrtri(state.handle, kTriangle, CUBLAS_DIAG_NON_UNIT, n, kType, a, n,
                               device, space.device_bytes, host.data(), space.host_bytes, info),
      "inverse of a factor");
  return succeeded();
}

}  // namespace nibble::cuda
