#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/nn/gguf.h"
#include "core/nn/safetensors.h"

namespace specmoe::nn {

/// The tensors of a Hugging Face folder (model.safetensors, or the shards of model.safetensors.index.json) or of a GGUF
/// file.
class Checkpoint {
 public:
  /// Throws Error for a folder without weights, a damaged file, a tensor that is there twice, an index that does not
  /// fit its shards.
  explicit Checkpoint(const std::string& path);

  const std::string& path() const { return path_; }
  /// By name without a leading "model.", which base-model saves lack.
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  const Tensor* find(const std::string& name) const;

 private:
  void add_file(const std::string& name);
  void add_shards(const std::string& index_path);

  std::string path_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::unique_ptr<GgufFile> gguf_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace specmoe::nn
