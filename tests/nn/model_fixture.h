#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "core/language_model.h"
#include "core/nn/model_loader.h"
#include "core/nn/safetensors.h"
#include "kernels/check.h"

namespace specmoe::nn::testing {

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

inline void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// One of the tiny checkpoints of tests/golden/models and what transformers computed with it.
struct Fixture {
  std::string name;
  std::string folder;
  std::vector<TokenId> ids;           // [T]
  std::vector<float> logits;          // [T, V]
  std::vector<std::int32_t> routers;  // [MoE layers, T, k]
  std::vector<TokenId> greedy;        // `prompt` ids and what follows them
  int prompt = 12;
  int vocab = 0;
};

inline Fixture load_fixture(const std::string& name) {
  Fixture fixture;
  fixture.name = name;
  fixture.folder = SPECMOE_TEST_DATA "/golden/models/" + name;
  const SafetensorsFile file(fixture.folder + "/expected.safetensors");
  const auto copy = [&file](const std::string& tensor_name, auto& values) {
    for (const Tensor& tensor : file.tensors()) {
      if (tensor.name != tensor_name) continue;
      values.resize((tensor.end - tensor.begin) / sizeof(values[0]));
      if (!values.empty()) std::memcpy(values.data(), tensor.data, tensor.end - tensor.begin);
    }
  };
  copy("input_ids", fixture.ids);
  copy("logits", fixture.logits);
  copy("routers", fixture.routers);
  copy("greedy_ids", fixture.greedy);
  fixture.vocab = static_cast<int>(fixture.logits.size() / fixture.ids.size());
  return fixture;
}

inline std::vector<std::string> fixture_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(SPECMOE_TEST_DATA "/golden/models")) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::shared_ptr<LanguageModel> load(const std::string& folder, kernels::DType dtype = kernels::DType::kFloat32,
                                           int threads = 1) {
  LoadOptions options;
  options.dtype = dtype;
  options.threads = threads;
  options.keep_threads = true;
  return load_model(folder, options);
}

/// Stages rows behind what the cache holds and runs them, logits for all.
inline ForwardResult run_rows(LanguageModel& model, KVCache& cache, std::span<const TokenId> tokens,
                              std::span<const std::int32_t> parents, const std::vector<int>& taps = {}) {
  ForwardResult result;
  result.taps = taps;
  const RowBlock block{&cache, tokens, parents, LogitsWanted::kAll};
  model.forward({&block, 1}, result);
  return result;
}

/// The same for a chain, whose rows are then kept.
inline ForwardResult append(LanguageModel& model, KVCache& cache, std::span<const TokenId> tokens) {
  std::vector<std::int32_t> parents(tokens.size());
  std::iota(parents.begin(), parents.end(), -1);
  ForwardResult result = run_rows(model, cache, tokens, parents);
  std::vector<std::int32_t> path(tokens.size());
  std::iota(path.begin(), path.end(), 0);
  cache.keep(path);
  return result;
}

/// Bits, not values: -0 and NaN count.
inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// A copy of a model folder that a test may damage; removed at the end.
class FolderCopy {
 public:
  explicit FolderCopy(const std::string& source) {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("specmoe_model_" + std::to_string(getpid()) + "_" + std::to_string(count++));
    std::filesystem::copy(source, path_, std::filesystem::copy_options::recursive);
  }
  ~FolderCopy() { std::filesystem::remove_all(path_); }
  FolderCopy(const FolderCopy&) = delete;
  FolderCopy& operator=(const FolderCopy&) = delete;

  std::string path() const { return path_.string(); }
  std::filesystem::path operator/(const std::string& file) const { return path_ / file; }
  nlohmann::json config() const { return nlohmann::json::parse(read_file(path_ / "config.json")); }
  void set_config(const nlohmann::json& config) const { write_file(path_ / "config.json", config.dump()); }
  void set_config(const std::string& key, const nlohmann::json& value) const {
    nlohmann::json changed = config();
    changed[key] = value;
    set_config(changed);
  }

 private:
  std::filesystem::path path_;
};

/// What load() says about a folder that it must refuse: one line, or the test fails.
inline std::string load_error(const std::string& folder) {
  try {
    load(folder);
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    return text;
  }
  ADD_FAILURE() << folder << " was loaded";
  return "";
}

}  // namespace specmoe::nn::testing
