#pragma once

#include "core/device_draft.h"
#include "draft/propose.h"
#include "kernels/cuda/decode_ops.h"
#include "verify/verify_tree.h"

/// What happens between the passes of a whole step: kernels of one block each, which write on the device what the host
/// writes in steps that it leads.
namespace specmoe::cuda {

/// A sequence from step to step, in device memory.
struct StepState {
  UniformKey uniforms;         // of the running step
  std::int32_t length = 0;     // tokens of the text; the last one is the root
  std::int32_t remaining = 0;  // tokens that may still be emitted
  std::int32_t outcome = 0;    // where the running step's outcome goes
};

/// The rows that passes of one model add to its cache: what DecodeStep::inputs() has on the device, and what of the
/// cache a host would keep in a StagedCache.
struct StagedRows {
  std::int32_t* counts = nullptr;
  TokenId* tokens = nullptr;
  std::int32_t* wanted = nullptr;
  kernels::cuda::DeviceRow* rows = nullptr;
  kernels::cuda::AttentionTile* tiles = nullptr;
  kernels::cuda::DeviceSequence* sequence = nullptr;  // [1]
  int tile_rows = 1;

  std::int32_t most = 0;               // rows staged at a time
  std::int32_t words = 0;              // of an ancestor mask
  std::uint64_t* ancestors = nullptr;  // [most, words]
  std::int32_t* parents = nullptr;     // [most] staged row that each hangs on, -1: the last committed one
  std::int32_t* staged = nullptr;      // [1]
  std::int32_t* path = nullptr;        // [most_path] staged rows to keep, -1 behind the last
  std::int32_t* kept = nullptr;        // [1] how many: committed when the next step begins
  int most_path = 0;
};

/// What the host learns of a step: in host memory that the device writes.
struct OutcomeRoom {
  struct Head {
    std::int32_t nodes, accepted, next;
    std::int32_t last;  // of its launch
    VerifyProblem problem;
    NodeId problem_node;
    std::uint32_t broken;  // as DeviceDraft::broken
  };
  int nodes = 0;   // most
  int path = 0;    // most, root included
  int layers = 0;  // of the target
  int count = 1;   // outcomes that there is room for

  int integers() const { return static_cast<int>(sizeof(Head) / sizeof(std::int32_t)) + 2 * nodes + path + layers; }
};

/// One outcome's place.
struct Outcome {
  OutcomeRoom::Head* head;
  TokenId* tokens;       // [nodes]
  NodeId* parents;       // [nodes]
  NodeId* path;          // [accepted + 1]
  std::int32_t* active;  // [layers] distinct experts
  SPECMOE_HD static Outcome at(std::int32_t* memory, const OutcomeRoom& room, int integers, int index) {
    std::int32_t* first = memory + static_cast<std::int64_t>(integers) * index;
    std::int32_t* arrays = first + sizeof(OutcomeRoom::Head) / sizeof(std::int32_t);
    return {reinterpret_cast<OutcomeRoom::Head*>(first), arrays, arrays + room.nodes, arrays + 2 * room.nodes,
            arrays + 2 * room.nodes + room.path};
  }
};

/// The memory of a sequence on the device. draft_rows.most is 0 when no model drafts.
struct StepMemory {
  StepState* state = nullptr;
  TokenId* text = nullptr;
  DeviceDraft draft;
  StagedRows target_rows, draft_rows;
  int most_depth = 0;

  VerifyCase* judged = nullptr;      // [1]
  DeviceVerdict* verdict = nullptr;  // [1]; its path is target_rows.path
  const TokenId* stops = nullptr;    // [stop_count]
  int stop_count = 0;
  const std::int32_t* active_experts = nullptr;  // [layers] of the target
  OutcomeRoom room;
  std::int32_t* outcomes = nullptr;  // host memory
};

/// Sizes of passes are powers of two: the number of the smallest that holds `rows` rows, from 0.
SPECMOE_HD inline int pass_size(int rows) {
  int size = 0;
  while (1 << size < rows) ++size;
  return size;
}

/// Commits what the last step kept, and plants the root.
void begin_step(const StepMemory& memory, kernels::cuda::Stream& stream);
/// The drafting model's next rows: the frontier; for the root what of the text its cache lacks. tiles: entries of the
/// pass's list
void stage_frontier(const StepMemory& memory, bool root, int tiles, kernels::cuda::Stream& stream);
/// The target's rows: all nodes; and what judging needs to know of them. `size` chooses part pass_size(nodes).
void stage_tree(const StepMemory& memory, int tiles, kernels::cuda::ChoiceFlag size, kernels::cuda::Stream& stream);
/// Takes the verdict: the text grows, the kept rows are named, the host's outcome is written. `loop` says whether a
/// next step follows, as far as there is room for its outcome.
void settle_step(const StepMemory& memory, kernels::cuda::LoopFlag loop, kernels::cuda::Stream& stream);

}  // namespace specmoe::cuda
