#include "core/nn/cuda/device_medusa_heads.h"

#include <bit>

namespace specmoe::nn::cuda {

using kernels::Rows;
using kernels::cuda::DeviceArray;
using kernels::cuda::DeviceMatrix;
using kernels::cuda::RowCount;

DeviceMedusaHeads::DeviceMedusaHeads(std::span<const PackedMedusaHead> heads,
                                     std::shared_ptr<const DeviceWeights> target, int device)
    : target_(std::move(target)), stream_(device), store_(device), row_count_(1, device) {
  for (const PackedMedusaHead& packed : heads) {
    Head& head = heads_.emplace_back();
    for (const PackedMedusaHead::Block& block : packed.blocks) {
      head.blocks.push_back({store_.keep(block.weight), store_.keep(block.bias)});
    }
    head.output = store_.keep(packed.output);
  }
  store_.finish();
}

void DeviceMedusaHeads::forward(int index, Rows<const float> rows, ForwardResult& result) {
  const Head& head = heads_.at(static_cast<std::size_t>(index));
  const DeviceModel& target = target_->model();
  const bool borrows = head.output.rows == 0;
  const DeviceMatrix& output = borrows ? target.head : head.output;
  result.vocab = static_cast<int>(output.rows);
  result.logits.resize(static_cast<std::size_t>(rows.rows * output.rows));
  result.argmax.resize(static_cast<std::size_t>(rows.rows));
  reserve(rows.rows, rows.cols, output.rows);
  const Rows<float> x = x_.view(rows.rows, rows.cols);
  const Rows<float> branch = branch_.view(rows.rows, rows.cols);
  const Rows<float> logits = logits_.view(rows.rows, output.rows);
  const auto row_count = static_cast<std::int32_t>(rows.rows);
  const RowCount count = {row_count, row_count_.data()};

  stream_.copy(row_count_.data(), &row_count, sizeof(row_count));
  copy_rows(rows, x, stream_);
  for (const Head::Block& block : head.blocks) {
    kernels::cuda::packed_linear(x, count, block.weight, block.bias, {}, branch, stream_);
    kernels::cuda::add_silu(branch, count, x, stream_);
  }
  kernels::cuda::packed_linear(x, count, output, borrows ? target.head_bias : nullptr, {}, logits, stream_);
  if (borrows) kernels::cuda::shape_logits(logits, count, target.logits, stream_);
  kernels::cuda::row_argmax(logits, count, argmax_.data(), stream_);
  copy_rows(logits, kernels::contiguous(result.logits.data(), rows.rows, output.rows), stream_);
  stream_.copy(result.argmax.data(), argmax_.data(), result.argmax.size() * sizeof(TokenId));
  stream_.synchronize();
}

void DeviceMedusaHeads::reserve(std::int64_t rows, std::int64_t hidden, std::int64_t vocab) {
  if (rows <= most_rows_) return;
  most_rows_ = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(rows)));
  const int device = stream_.device();
  x_ = RowBuffer(most_rows_, hidden, device);
  branch_ = RowBuffer(most_rows_, hidden, device);
  logits_ = RowBuffer(most_rows_, vocab, device);
  argmax_ = DeviceArray<std::int32_t>(static_cast<std::size_t>(most_rows_), device);
}

}  // namespace specmoe::nn::cuda
