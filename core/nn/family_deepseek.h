#pragma once

#include "core/nn/model_family.h"

namespace specmoe::nn {

// What DeepSeek-V2 and V3 (arXiv:2405.04434, arXiv:2412.19437) share with the families that took over their mixtures.

/// A text that must be `known` where it is there.
void expect_text(const ConfigReader& config, const char* key, const char* known);

/// Defaults of the mixtures, for keys that config.json may leave out.
struct DeepseekMixture {
  int shared_experts, expert_width, first_mixture;
  double weight_scale;
};

/// Makes layers from first_k_dense_replace on mixtures that are as wide as moe_intermediate_size, with shared experts;
/// the ones before stay as they are. Adds the names.
///
/// router  without its scale
void set_deepseek_mixtures(const ConfigReader& config, ModelSpec& spec, const DeepseekMixture& defaults,
                           const RouterSpec& router);

/// Dense layers that mlp_layer_types begins with, 1 when it is not there. All others must be mixtures.
int leading_dense_layers(const ConfigReader& config, const CommonDefaults& defaults);

/// Adds groups of experts (n_group, topk_group); null stands for one. Throws Error for those that the experts do not go
/// into.
RouterSpec parse_expert_groups(const ConfigReader& config, RouterSpec router, int groups, int kept_groups);

/// The router of DeepSeek-V3: sigmoid scores, a bias that takes part in the choice and not in the weights, and groups.
///
/// router  its counts
RouterSpec parse_sigmoid_router(const ConfigReader& config, RouterSpec router, bool renormalise, int groups,
                                int kept_groups);

/// Ignores the tensors of `count` layers behind the last one.
void leave_out_layers(ModelSpec& spec, std::int64_t count);

/// Counts the layers behind the last one that predict further tokens, and leaves them out.
void set_prediction_layers(const ConfigReader& config, ModelSpec& spec);

/// Latent attention, mixtures and prediction layers, as DeepSeek-V3 has them.
///
/// latent  its sizes where config.json says none
/// router  without its scale
ModelSpec parse_deepseek_v3_like(const ConfigReader& config, const CommonDefaults& defaults, const LatentSpec& latent,
                                 const DeepseekMixture& mixture, const RouterSpec& router);

}  // namespace specmoe::nn
