#include "core/nn/checkpoint.h"

#include <filesystem>
#include <set>
#include <string_view>

#include "core/nn/config_reader.h"
#include "core/nn/gguf_model.h"
#include "kernels/check.h"

namespace specmoe::nn {

namespace fs = std::filesystem;

namespace {
std::string without_prefix(const std::string& name) {
  for (const std::string_view prefix : {"model.", "language_model."}) {
    if (name.starts_with(prefix)) return without_prefix(name.substr(prefix.size()));
  }
  return name;
}
}  // namespace

Checkpoint::Checkpoint(const std::string& path, const std::string& file) : path_(path) {
  if (const auto gguf = find_gguf(path)) {
    gguf_ = std::make_unique<GgufFile>(*gguf);
    file_paths_.push_back(*gguf);
    for (Tensor& tensor : gguf_tensors(*gguf_)) tensors_.emplace(tensor.name, std::move(tensor));
    return;
  }
  std::error_code ignored;
  SPECMOE_CHECK(fs::is_directory(path, ignored), "model folder '", path, "' does not exist");
  const std::string index = (fs::path(path) / "model.safetensors.index.json").string();
  if (fs::exists(fs::path(path) / file, ignored)) {
    add_file(file);
  } else {
    SPECMOE_CHECK(fs::exists(index, ignored), "model folder ", path, " has neither ", file,
                  " nor model.safetensors.index.json");
    add_shards(index);
  }
}

const Tensor* Checkpoint::find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

void Checkpoint::release() const {
  if (gguf_ != nullptr) gguf_->release();
  for (const auto& file : files_) file->release();
}

void Checkpoint::add_file(const std::string& name) {
  file_paths_.push_back((fs::path(path_) / name).string());
  files_.push_back(std::make_unique<SafetensorsFile>(file_paths_.back()));
  for (const Tensor& tensor : files_.back()->tensors()) {
    const bool is_new = tensors_.emplace(without_prefix(tensor.name), tensor).second;
    SPECMOE_CHECK(is_new, path_, ": tensor ", tensor.name, " is there twice (second time in ", name, ")");
  }
}

void Checkpoint::add_shards(const std::string& index_path) {
  const ConfigReader index = ConfigReader::read(index_path);
  const auto weight_map = index.object("weight_map");
  SPECMOE_CHECK(weight_map.has_value(), index_path, ": no weight_map");
  std::map<std::string, std::set<std::string>> promised;  // shard: its tensors
  for (const std::string& tensor : weight_map->keys()) {
    const std::string shard = weight_map->text(tensor, "");
    const bool plain = shard.find_first_of("/\\") == std::string::npos && shard.ends_with(".safetensors");
    SPECMOE_CHECK(plain, index_path, ": tensor ", tensor, " is mapped to '", shard,
                  "', expected the plain name of a .safetensors file beside the index");
    promised[shard].insert(tensor);
  }
  for (const auto& [shard, names] : promised) {
    add_file(shard);
    std::set<std::string> present;
    for (const Tensor& tensor : files_.back()->tensors()) present.insert(tensor.name);
    for (const std::string& name : names) {
      SPECMOE_CHECK(present.contains(name), index_path, ": tensor ", name, " is not in ", shard);
    }
  }
}

void ReleasingProgress::operator()(std::int64_t done, std::int64_t total) {
  if (done - released_ >= kBytesBetween) {
    checkpoint_.release();
    released_ = done;
  }
  if (progress_) progress_(done, total);
}

}  // namespace specmoe::nn
