#include "model/layers/layer_context.h"

namespace nibble {

void run_norm(const NormSpec& spec, const Norm& norm, const float* x, std::int64_t rows,
              std::int64_t cols, float* y, Backend& backend) {
  NormArgs args;
  args.kind = spec.kind;
  args.x = x;
  args.x_stride = cols;
  args.rows = rows;
  args.cols = cols;
  args.weight = norm.weight.empty() ? nullptr : norm.weight.data<float>();
  args.bias = norm.bias.empty() ? nullptr : norm.bias.data<float>();
  args.weight_offset = spec.weight_offset;
  args.eps = spec.eps;
  args.y = y;
  args.y_stride = cols;
  backend.run(args);
}

void run_linear(const Linear& linear, const float* x, std::int64_t rows, float* y,
                Backend& backend) {
  LinearArgs args;
  args.x = x;
  args.x_stride = linear.weight.canonical.cols;
  args.m = rows;
  args.w = &linear.weight;
  args.bias = linear.bias.empty() ? nullptr : linear.bias.data<float>();
  args.y = y;
  args.y_stride = linear.weight.canonical.rows;
  backend.run(args);
}

void run_add(const float* x, std::int64_t count, float* y, Backend& backend) {
  AddArgs args;
  args.x = x;
  args.y = y;
  args.count = count;
  backend.run(args);
}

}  // namespace nibble
