#pragma once

#include "kernels/cuda/decode_ops.h"

namespace specmoe::kernels::cuda {

/// Makes the plan of a pass with many rows: sorts its pairs by expert, with scratch of its own. The plan is the one
/// that route() makes by itself, number for number.
class PlanSorter {
 public:
  /// Passes of more rows than this are worth the launches that sorting takes.
  static constexpr int kFewRows = 64;

  /// pairs  most rows of a pass, times its experts per token
  PlanSorter(int pairs, Stream& stream);

  /// Queues it. expert: [rows, plan.k] on the device, each in [0, experts)
  void build(const std::int32_t* expert, RowCount rows, int experts, const DevicePlan& plan, Stream& stream) const;

 private:
  int pairs_;
  std::size_t scratch_bytes_;
  DeviceArray<std::byte> scratch_;
  DeviceArray<std::int32_t> keys_, values_, sorted_keys_, ranks_;
};

}  // namespace specmoe::kernels::cuda
