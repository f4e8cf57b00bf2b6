#pragma once

#include <vector>

#include "core/language_model.h"
#include "core/nn/model_spec.h"

namespace specmoe::nn {

/// What is left of a model when some of its layers and experts are left out.
///
/// layers  [spec.layers] which of the whole's layers each one is
struct PartSpec {
  ModelSpec spec;
  std::vector<int> layers;
};

/// Throws Error when the model has no such experts or layers.
PartSpec part_of(const ModelSpec& whole, const ModelPart& part);

}  // namespace specmoe::nn
