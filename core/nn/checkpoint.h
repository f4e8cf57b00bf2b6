#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/nn/safetensors.h"

namespace specmoe::nn {

/// The tensors of a Hugging Face folder: model.safetensors, or the shards of model.safetensors.index.json.
class Checkpoint {
 public:
  /// Throws Error for a folder without weights, a damaged file, a tensor that is there twice, an index that does not
  /// fit its shards.
  explicit Checkpoint(const std::string& folder);

  const std::string& folder() const { return folder_; }
  /// By name without a leading "model.", which base-model saves lack, and "language_model.", which stands before or
  /// behind it where a model sees images too.
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  const Tensor* find(const std::string& name) const;

 private:
  void add_file(const std::string& name);
  void add_shards(const std::string& index_path);

  std::string folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace specmoe::nn
