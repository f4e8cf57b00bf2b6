#pragma once

#include <string>
#include <vector>

#include "core/nn/checkpoint.h"
#include "core/nn/config_reader.h"
#include "core/nn/model_spec.h"
#include "core/nn/weights.h"

namespace specmoe::nn {

/// A draft head as its folder describes it; DraftHead says what the fields mean.
struct DraftHeadSpec {
  ModelSpec model;
  std::vector<int> taps;
  int recycled = 0;
};

/// Whether a config.json says that it belongs to an EAGLE-3 or a DFlash head. Those of EAGLE heads look like a model's.
bool is_draft_head(const ConfigReader& config);
/// The same of a DFlash head alone.
bool is_block_head(const ConfigReader& config);

/// Heads for `target` of EAGLE and EAGLE-2 (which has the same ones), of EAGLE-3 as its authors, SpecForge and
/// speculators write them, of DFlash as its authors do, and the multi-token prediction module of checkpoints of
/// DeepSeek-V3's kind (ModelSpec::prediction_layers). Throws Error for what is not supported and for a head made for
/// another target.
DraftHeadSpec parse_draft_head(const ConfigReader& config, const ModelSpec& target);

/// The same of a folder. model.tied_embeddings: it has no embedding of its own.
DraftHeadSpec read_draft_head(const Checkpoint& checkpoint, const ModelSpec& target);

/// The target's token for each one of a head's own vocabulary: id + d2t[id]. Empty when the head has no such table.
std::vector<TokenId> draft_vocabulary(const DraftHeadSpec& head, const Checkpoint& checkpoint);

/// The head in a folder with its weights; the embedding and the output matrix that it lacks are empty.
struct PackedDraftHead {
  DraftHeadSpec head;
  Weights weights;
};
PackedDraftHead pack_draft_head(const std::string& path, const ModelSpec& target, kernels::DType dtype,
                                kernels::Backend backend, kernels::ThreadPool& pool);

}  // namespace specmoe::nn
