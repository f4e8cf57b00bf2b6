#include "core/nn/model_part.h"

#include <algorithm>
#include <numeric>

#include "kernels/check.h"

namespace specmoe::nn {

PartSpec part_of(const ModelSpec& whole, const ModelPart& part) {
  const int experts = part.experts_per_token;
  int used = 0;
  for (const LayerSpec& layer : whole.layers) {
    if (layer.ffn.router) used = std::max(used, layer.ffn.router->experts_per_token);
  }
  SPECMOE_CHECK(experts == 0 || used > 0, "model ", whole.name, " has no experts, and cannot use ", experts,
                " a token; leave out layers instead");
  SPECMOE_CHECK(experts >= 0 && experts <= used, "model ", whole.name, " uses ", used,
                " experts a token, and cannot use ", experts);
  std::vector<int> layers(whole.layers.size());
  std::iota(layers.begin(), layers.end(), 0);
  for (const int skipped : part.skipped_layers) {
    SPECMOE_CHECK(std::erase(layers, skipped) == 1, "model ", whole.name, " has layers 0 to ", whole.layers.size() - 1,
                  ", and cannot leave out ", skipped);
  }
  SPECMOE_CHECK(!layers.empty(), "model ", whole.name, " cannot leave out all of its layers");
  PartSpec left{whole, std::move(layers)};
  left.spec.layers.clear();
  for (const int layer : left.layers) {
    LayerSpec& kept = left.spec.layers.emplace_back(whole.layers[static_cast<std::size_t>(layer)]);
    if (experts > 0 && kept.ffn.router) kept.ffn.router->experts_per_token = experts;
  }
  return left;
}

}  // namespace specmoe::nn
