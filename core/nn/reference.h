#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/types.h"
#include "kernels/packed_matrix.h"

namespace specmoe::nn {

struct ReferenceOptions {
  bool float64 = true;                                // arithmetic; false: float32
  kernels::DType weights = kernels::DType::kFloat32;  // kBFloat16: matrices are rounded first, as when packed
};

struct ReferenceRows {
  int vocab = 0;
  std::vector<double> logits;         // [n, V]
  std::vector<std::int32_t> experts;  // [MoE layers, n, k] by rank
};

/// The slow, obvious forward of a checkpoint through libtorch: whole text at once, dense mask, no cache. The oracle of
/// tests; it shares the parsed spec and the rotary frequencies with the engine and nothing else.
class ReferenceModel {
 public:
  explicit ReferenceModel(const std::string& folder, const ReferenceOptions& options = {});
  ~ReferenceModel();

  /// parents [n] row that row i follows, less than i; -1: it begins the text. Branches make a tree.
  ReferenceRows forward(std::span<const TokenId> tokens, std::span<const std::int32_t> parents) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace specmoe::nn
