#pragma once

#include <deque>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/nn/checkpoint.h"
#include "core/nn/tensor_map.h"

namespace specmoe::nn {

/// A model that is converted: its tensors under the names that they have in a Hugging Face folder, and the files that
/// belong beside them.
class ConversionSource {
 public:
  /// path     a Hugging Face folder, a GGUF file, or a folder with one
  /// throws   Error for an int8 checkpoint of our own
  explicit ConversionSource(const std::string& path);

  const Checkpoint& checkpoint() const { return checkpoint_; }
  const std::vector<StoredTensor>& tensors() const { return model_.stored; }
  /// Nothing for a GGUF file, which is one file.
  std::optional<std::filesystem::path> config_file() const;

  /// Writes config.json and the tokenizer's files into `folder`.
  void write_companions(const std::filesystem::path& folder, kernels::DType dtype) const;

 private:
  void take_family_names();
  void fuse_experts(const ModelSpec& family, int layer);
  void add(const std::string& name, int layer, const std::vector<std::int64_t>& shape, const kernels::WeightView& view,
           bool by_inputs);

  std::string path_;
  std::optional<std::string> gguf_;
  ModelSpec spec_;
  Checkpoint checkpoint_;
  ModelTensors model_;
  std::deque<Tensor> made_;  // that no file holds as they are
};

}  // namespace specmoe::nn
