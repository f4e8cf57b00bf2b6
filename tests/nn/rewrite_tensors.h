#pragma once

#include <functional>
#include <map>

#include "core/nn/safetensors_writer.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {

using Tensors = std::map<std::string, Tensor>;

/// Changes the tensors in one file of a folder.
inline void rewrite(const FolderCopy& copy, const std::string& name, const std::function<void(Tensors&)>& change) {
  const std::filesystem::path old = copy / "old";
  std::filesystem::rename(copy / name, old);
  const SafetensorsFile file(old.string());
  Tensors tensors;
  for (const Tensor& tensor : file.tensors()) tensors.emplace(tensor.name, tensor);
  change(tensors);
  std::vector<NewTensor> entries;
  for (const auto& [key, tensor] : tensors)
    entries.push_back({key, tensor.dtype, tensor.shape, tensor.end - tensor.begin});
  SafetensorsWriter writer((copy / name).string(), entries, {});
  for (const auto& [key, tensor] : tensors) writer.write(key, 0, std::span(tensor.data, tensor.end - tensor.begin));
  writer.finish("");
  std::filesystem::remove(old);
}

}  // namespace specmoe::nn::testing
