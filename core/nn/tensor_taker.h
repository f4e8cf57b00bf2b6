#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "core/nn/checkpoint.h"
#include "core/nn/model_spec.h"
#include "core/nn/tensor_map.h"

namespace specmoe::nn {

/// Takes tensors out of a checkpoint by their alternative names and notes what does not fit, to be reported together.
/// What could not be taken comes as a view without data.
class TensorTaker {
 public:
  using Shape = std::vector<std::int64_t>;
  using Alternatives = TensorNames::Alternatives;

  TensorTaker(const ModelSpec& spec, const Checkpoint& checkpoint) : spec_(spec), checkpoint_(checkpoint) {}

  /// What {layer} and {expert} in names stand for from now on.
  void set_place(int layer, int expert = -1) {
    layer_ = layer;
    expert_ = expert;
  }
  bool has(const Alternatives& names, const std::string& suffix = "") const;

  kernels::WeightView take(const Alternatives& names, const Shape& shape, TensorUse use = TensorUse::kExact,
                           const std::string& suffix = "");
  LinearTensors take_linear(const Alternatives& stem, std::int64_t rows, std::int64_t cols, bool bias);
  /// Matrices of all experts in one tensor, one under another: [rows, cols] each, or [cols, rows] when `by_inputs` and
  /// the tensor is not quantised.
  kernels::WeightView take_experts(const Alternatives& names, std::int64_t experts, std::int64_t rows,
                                   std::int64_t cols, bool by_inputs);
  /// The same from NAME_blocks and NAME_scales, always [rows, cols].
  kernels::WeightView take_mxfp4(const Alternatives& names, std::int64_t experts, std::int64_t rows, std::int64_t cols,
                                 bool by_inputs);

  /// Everything taken so far, in order.
  std::vector<StoredTensor> stored() const { return stored_; }

  /// Throws one Error for everything that was missing or mis-shaped, and for tensors that nobody took.
  void report();

 private:
  const Tensor* find(const Alternatives& names, const std::string& suffix) const;
  const Tensor* take_tensor(const Alternatives& names, const Shape& shape, const std::string& suffix);
  kernels::WeightView view_of(const Tensor& tensor, const Alternatives& names, const std::string& suffix);
  kernels::WeightView take_fp8(const Tensor& tensor, const Alternatives& names, const std::string& suffix);
  kernels::WeightView take_int8(const Tensor& tensor, const Alternatives& names, const std::string& suffix);
  const std::byte* take_scales(const Tensor& tensor, const Alternatives& names, const Shape& shape,
                               const std::string& suffix);
  void note(const std::string& problem);

  const ModelSpec& spec_;
  const Checkpoint& checkpoint_;
  int layer_ = -1;
  int expert_ = -1;
  std::set<const Tensor*> taken_;
  std::vector<StoredTensor> stored_;
  std::vector<std::string> problems_;
  std::size_t problem_count_ = 0;
};

}  // namespace specmoe::nn
