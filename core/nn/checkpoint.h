#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/nn/gguf.h"
#include "core/nn/job_list.h"
#include "core/nn/safetensors.h"

namespace specmoe::nn {

/// The tensors of a Hugging Face folder (`file`, or the shards of model.safetensors.index.json) or of a GGUF file.
class Checkpoint {
 public:
  /// Throws Error for a folder without weights, a damaged file, a tensor that is there twice, an index that does not
  /// fit its shards.
  explicit Checkpoint(const std::string& path, const std::string& file = "model.safetensors");

  const std::string& path() const { return path_; }
  /// By name without a leading "model.", which base-model saves lack, and "language_model.", which stands before or
  /// behind it where a model sees images too.
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  const Tensor* find(const std::string& name) const;
  /// Where the tensors lie.
  const std::vector<std::string>& files() const { return file_paths_; }
  /// Forgets what was read of the files, so that they do not stay in memory beside what is made of them.
  void release() const;

 private:
  void add_file(const std::string& name);
  void add_shards(const std::string& index_path);

  std::string path_;
  std::vector<std::string> file_paths_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::unique_ptr<GgufFile> gguf_;
  std::map<std::string, Tensor> tensors_;
};

/// Releases a checkpoint's pages now and then while work on it goes on, and passes the progress on.
class ReleasingProgress {
 public:
  static constexpr std::int64_t kBytesBetween = 16 << 20;  // of work; that much of the files may be in memory

  ReleasingProgress(const Checkpoint& checkpoint, const WorkProgress& progress)
      : checkpoint_(checkpoint), progress_(progress) {}
  void operator()(std::int64_t done, std::int64_t total);

 private:
  const Checkpoint& checkpoint_;
  const WorkProgress& progress_;
  std::int64_t released_ = 0;
};

}  // namespace specmoe::nn
