// Products and factors of large matrices, for those who quantize.
#include <vector>

#include "backends/cuda/impls.h"
#include "backends/cuda/kernels/inverse_factor.h"
#include "backends/cuda/kernels/subtract_product.h"
#include "backends/cuda/queue.h"
#include "backends/cuda/solver.h"
#include "ops/reference/reference.h"

namespace nibble::cuda {
namespace {

Support takes_any_product(const SubtractProductArgs&, const DeviceCaps&) { return Support::yes(); }

void run_subtract_product(const SubtractProductArgs& args, ExecContext& context) {
  SubtractProduct product;
  product.a = args.a;
  product.b = args.b;
  product.c = args.c;
  product.a_stride = args.a_stride;
  product.b_stride = args.b_stride;
  product.c_stride = args.c_stride;
  product.m = args.m;
  product.n = args.n;
  product.k = args.k;
  context.queue->launch("subtract_product", product, subtract_product);
}

bool has_solver(const DeviceCaps&) { return Solver::get() != nullptr; }

Support solver_supports(const InverseFactorArgs&, const DeviceCaps& caps) {
  return has_solver(caps) ? Support::yes() : Support::no("there is no libcusolver.so.12");
}

// Whether h is positive definite is known on the host once the factor is there.
void run_solver(const InverseFactorArgs& args, ExecContext& context) {
  DeviceQueue& queue = *context.queue;
  *args.definite = true;
  if (args.n == 0) return;
  queue.on_host([&] {
    check(reverse_square(args.h, args.n, queue.stream()), "factor");
    const auto workspace = [&](std::size_t bytes) { return queue.workspace(bytes); };
    *args.definite = Solver::get()->inverse_of_root(args.h, args.n, workspace, queue.stream());
    if (!*args.definite) return;
    std::int32_t bad = 0;
    ReversedFactor factor;
    factor.lower = args.h;
    factor.upper = args.upper;
    factor.bad = static_cast<std::int32_t*>(queue.workspace(sizeof(bad)));
    factor.n = args.n;
    check(cudaMemsetAsync(factor.bad, 0, sizeof(bad), queue.stream()), "factor");
    check(reversed_factor(factor, queue.stream()), "factor");
    check(cudaMemcpyAsync(&bad, factor.bad, sizeof(bad), cudaMemcpyDeviceToHost, queue.stream()),
          "copy from the card");
    check(cudaStreamSynchronize(queue.stream()), "factor");
    *args.definite = bad == 0;
  });
}

Support takes_any_factor(const InverseFactorArgs&, const DeviceCaps&) { return Support::yes(); }

// The host does it, and the matrix goes there and back.
void run_host_factor(const InverseFactorArgs& args, ExecContext& context) {
  const cudaStream_t stream = context.queue->stream();
  context.queue->on_host([&] {
    const auto count = static_cast<std::size_t>(args.n * args.n);
    std::vector<double> h(count);
    std::vector<float> upper(count);
    check(cudaMemcpyAsync(h.data(), args.h, count * sizeof(double), cudaMemcpyDeviceToHost, stream),
          "copy from the card");
    check(cudaStreamSynchronize(stream), "device");
    InverseFactorArgs on_host = args;
    on_host.h = h.data();
    on_host.upper = upper.data();
    reference::inverse_factor(on_host, context);
    if (!*args.definite) return;
    check(cudaMemcpyAsync(args.upper, upper.data(), count * sizeof(float), cudaMemcpyHostToDevice,
                          stream),
          "copy to the card");
  });
}

}  // namespace

ImplList<SubtractProductArgs> subtract_product_impls() {
  static constexpr Impl<SubtractProductArgs> kImpls[] = {
      {"cuda", takes_any_product, run_subtract_product}};
  return kImpls;
}

ImplList<InverseFactorArgs> inverse_factor_impls() {
  static constexpr Impl<InverseFactorArgs> kImpls[] = {
      {"cusolver", solver_supports, run_solver, Arithmetic::kFloat32, has_solver},
      {"host", takes_any_factor, run_host_factor}};
  return kImpls;
}

}  // namespace nibble::cuda
