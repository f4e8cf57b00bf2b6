#pragma once

#include <functional>
#include <string>

#include "core/nn/model_family.h"

namespace specmoe::nn {

// What Qwen2, Qwen3 and their mixtures share.

CommonDefaults qwen_defaults();

/// Windows where layer_types or `rule` puts them, and only when use_sliding_window is set.
void set_qwen_windows(const ConfigReader& config, ModelSpec& spec, const std::function<bool(int layer)>& rule);

/// Norms over each head of queries and keys, as Qwen3 has them.
void set_per_head_norms(ModelSpec& spec);

/// Softmax routers in the sparse layers, with experts of moe_intermediate_size.
///
/// expert_width  default of moe_intermediate_size
void set_qwen_experts(const ConfigReader& config, ModelSpec& spec, int experts, int experts_per_token,
                      int expert_width);

}  // namespace specmoe::nn
