#include "core/nn/cuda/weight_store.h"

#include "kernels/cuda/device_order.h"

namespace specmoe::nn::cuda {

using kernels::PackedMatrix;
using kernels::cuda::DeviceMatrices;
using kernels::cuda::DeviceMatrix;
using kernels::cuda::DeviceNorm;

namespace {

DeviceMatrix shape_of(const PackedMatrix& matrix, const std::byte* data) {
  return {data, matrix.rows(), matrix.cols(), kernels::cuda::device_panel_bytes(matrix.cols(), matrix.dtype()),
          matrix.dtype()};
}

}  // namespace

const std::byte* WeightStore::keep(std::span<const std::byte> bytes) {
  if (bytes.empty()) return nullptr;
  memory_.emplace_back(bytes.size(), stream_.device());
  stream_.copy(memory_.back().data(), bytes.data(), bytes.size());
  stream_.synchronize();
  return memory_.back().data();
}

const float* WeightStore::keep(const std::vector<float>& values) {
  return reinterpret_cast<const float*>(keep(std::as_bytes(std::span(values))));
}

const std::int32_t* WeightStore::keep(const std::vector<std::int32_t>& values) {
  return reinterpret_cast<const std::int32_t*>(keep(std::as_bytes(std::span(values))));
}

DeviceNorm WeightStore::keep(const NormWeights& norm) { return {keep(norm.weight), keep(norm.bias)}; }

DeviceMatrix WeightStore::keep(const PackedMatrix& matrix) {
  if (matrix.rows() == 0) return {};
  memory_.emplace_back(kernels::cuda::device_bytes(matrix), stream_.device());
  upload_->put(matrix, memory_.back().data());
  return shape_of(matrix, memory_.back().data());
}

DeviceMatrices WeightStore::keep(std::span<const PackedMatrix> matrices) {
  const std::size_t each = kernels::cuda::device_bytes(matrices.front());
  memory_.emplace_back(each * matrices.size(), stream_.device());
  std::byte* to = memory_.back().data();
  std::vector<const std::byte*> addresses;
  for (const PackedMatrix& matrix : matrices) {
    upload_->put(matrix, to);
    addresses.push_back(to);
    to += each;
  }
  const std::byte* table = keep(std::as_bytes(std::span(addresses)));
  return {reinterpret_cast<const std::byte* const*>(table), static_cast<std::int64_t>(matrices.size()),
          shape_of(matrices.front(), addresses.front())};
}

}  // namespace specmoe::nn::cuda
