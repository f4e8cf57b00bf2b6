// A checkpoint that does not hold exactly what its configuration calls for is refused, whatever the layout.
#include "core/nn/tensor_map.h"

#include "core/nn/kv_storage.h"
#include "core/nn/model_family.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

class TensorMap : public ::testing::TestWithParam<std::string> {};

/// One name at a time gets another last letter: the tensor is missing, and there is one too many.
TEST_P(TensorMap, EveryNameIsLookedUp) {
  const FolderCopy copy(load_fixture(GetParam()).folder);
  for (const auto& entry : std::filesystem::directory_iterator(copy.path())) {
    const std::string file = entry.path().filename().string();
    if (!file.starts_with("model") || !file.ends_with(".safetensors")) continue;
    const std::string original = read_file(entry.path());
    const std::vector<Tensor> tensors = SafetensorsFile(entry.path().string()).tensors();
    for (const Tensor& tensor : tensors) {
      if (tensor.name.find("enorm") != std::string::npos) continue;  // of a layer that is left out
      std::string bytes = original;
      const std::size_t at = bytes.find('"' + tensor.name + '"');
      ASSERT_NE(at, std::string::npos);
      bytes[at + tensor.name.size()] = '~';
      write_file(entry.path(), bytes);
      const std::string error = load_error(copy.path());
      const bool names_it = error.find(tensor.name) != std::string::npos;  // an index still has the old name
      const std::string renamed = "extra " + tensor.name.substr(0, tensor.name.size() - 1) + "~";
      EXPECT_TRUE(names_it || (error.find(renamed) != std::string::npos && error.find("missing") != std::string::npos))
          << tensor.name << ": " << error;
    }
    write_file(entry.path(), original);
  }
  load(copy.path());
}

INSTANTIATE_TEST_SUITE_P(Models, TensorMap, ::testing::ValuesIn(fixture_names()),
                         [](const auto& info) { return info.param; });

// Ten million positions, as configurations of recent models promise, are refused before anything is allocated.
TEST(KvStorageTest, RefusesMoreThanTheMachineHas) {
  ModelSpec spec = read_spec(load_fixture("llama_default").folder);
  for (LayerSpec& layer : spec.layers) layer.attention.head_dim = layer.attention.kv_heads = 1 << 12;
  try {
    const KvStorage cache(spec, kernels::DType::kFloat32, 10'485'760, nullptr, 10'485'760);
    FAIL() << "a cache of " << KvStorage::bytes(spec, kernels::DType::kFloat32, 10'485'760) << " bytes";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("a KV cache of 10485760 tokens for llama_default needs "), std::string::npos) << text;
    EXPECT_NE(text.find(" GiB, this machine has "), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace specmoe::nn::testing
