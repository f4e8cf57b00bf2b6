#pragma once

#include "core/device_draft.h"
#include "core/draft.h"
#include "core/drafter.h"
#include "kernels/view.h"

/// What drafters propose for the frontier of a DeviceDraft, on a device. Children are drawn by core/draw.h and
/// draft/ngram_rule.h, the code that the CPU draws them with: of the same rows and uniforms come the same tokens.
namespace specmoe::cuda {

inline constexpr int kMostProposed = 256;  // children of one node
inline constexpr int kMostNgram = 64;      // longest match

/// Up to `children` below each frontier node by `law`, which is not kMultiDrafter: a row proposes for each.
///
/// rows       the draft's rows; frontier node i has row first_row + i
/// threads    per frontier node: a multiple of 32, at most 1024. What is drawn does not depend on it
void propose_by_law(const DeviceDraft& draft, DraftLaw law, kernels::Rows<const float> rows, int first_row,
                    int children, kernels::cuda::Stream& stream, int threads);

/// The argmax of each frontier node's row. argmax  [frontier], -1 where a row is NaN
void propose_argmax(const DeviceDraft& draft, const TokenId* argmax, kernels::cuda::Stream& stream);

/// A committed text in device memory.
struct DeviceText {
  const TokenId* tokens = nullptr;
  const std::int32_t* length = nullptr;  // [1]
};

/// Prompt lookup behind the text and each frontier node's path; the text's last token is the draft's root.
void propose_ngram(const DeviceDraft& draft, const NgramRule& rule, DeviceText text, int children,
                   kernels::cuda::Stream& stream, int threads);

}  // namespace specmoe::cuda
