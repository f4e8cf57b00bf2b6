// Checkpoints of our own mean what their source means, bit for bit, and say what rounding cost.
#include "core/nn/convert.h"

#include <cmath>

#include "core/nn/checkpoint.h"
#include "core/nn/model_family.h"
#include "core/nn/sha256.h"
#include "core/nn/tensor_map.h"
#include "core/nn/weights.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

using kernels::DType;

Conversion convert(const std::string& source, const std::filesystem::path& to, DType dtype, int threads = 2) {
  std::filesystem::remove_all(to);
  std::filesystem::create_directories(to);
  kernels::ThreadPool pool(threads);
  return convert_checkpoint(source, to.string(), dtype, pool);
}

std::string bytes_of(kernels::PackedMatrix& matrix) {
  if (matrix.rows() == 0) return "";
  const std::span<std::byte> bytes = matrix.storage();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// All packed matrices and the embedding table of a model.
std::string packed_bytes(const std::string& folder, DType dtype) {
  const ModelSpec spec = read_spec(folder);
  const Checkpoint checkpoint(folder);
  kernels::ThreadPool pool(1);
  Weights weights = pack_weights(spec, map_tensors(spec, checkpoint), dtype, kernels::Backend::kScalar, pool);
  std::string bytes = bytes_of(weights.head);
  bytes.append(reinterpret_cast<const char*>(weights.embedding.data()), weights.embedding.size());
  for (LayerWeights& layer : weights.layers) {
    FfnWeights& ffn = layer.ffn;
    for (auto* matrix : {&layer.qkv, &layer.query_up, &layer.kv_up, &layer.output, &ffn.router, &ffn.shared_gate_up,
                         &ffn.shared_down, &ffn.shared_scale}) {
      bytes += bytes_of(*matrix);
    }
    for (auto* matrices : {&ffn.gate_up, &ffn.down}) {
      for (kernels::PackedMatrix& matrix : *matrices) bytes += bytes_of(matrix);
    }
  }
  return bytes;
}

std::vector<float> logits_of(const std::string& folder, DType dtype, const std::vector<TokenId>& ids) {
  const auto model = load(folder, dtype);
  const auto cache = model->new_cache(static_cast<int>(ids.size()));
  return append(*model, *cache, ids).logits;
}

void expect_bits_of_source(const Fixture& source, const FolderCopy& folder) {
  for (const DType dtype : {DType::kInt8, DType::kBFloat16}) {
    convert(source.folder, folder.path(), dtype);
    EXPECT_TRUE(packed_bytes(folder.path(), dtype) == packed_bytes(source.folder, dtype)) << dtype_name(dtype);
    EXPECT_TRUE(same_bits(logits_of(folder.path(), dtype, source.ids), logits_of(source.folder, dtype, source.ids)))
        << dtype_name(dtype);
  }
}

class Convert : public ::testing::TestWithParam<std::string> {
 protected:
  Fixture fixture_ = load_fixture(GetParam());
  FolderCopy folder_{fixture_.folder};  // a name; emptied before each conversion
};

TEST_P(Convert, LoadedItHasTheBitsOfItsSource) { expect_bits_of_source(fixture_, folder_); }

TEST_P(Convert, Int8LoadsInOtherTypesToo) {
  convert(fixture_.folder, folder_.path(), DType::kInt8);
  const std::vector<float> wide = logits_of(folder_.path(), DType::kFloat32, fixture_.ids);
  double distance = 0;
  double norm = 0;
  for (std::size_t i = 0; i < wide.size(); ++i) {
    distance += std::pow(wide[i] - fixture_.logits[i], 2);
    norm += std::pow(fixture_.logits[i], 2);
  }
  EXPECT_LT(std::sqrt(distance / norm), 0.5);  // routers of random weights flip now and then
}

TEST_P(Convert, BFloat16IsAnOrdinaryCheckpoint) {
  const Conversion done = convert(fixture_.folder, folder_.path(), DType::kBFloat16);
  EXPECT_FALSE(folder_.config().contains("quantization_config"));
  const Conversion again = convert(folder_.path(), folder_ / "again", DType::kBFloat16);
  ASSERT_FALSE(again.tensors.empty());
  for (const TensorRounding& tensor : again.tensors) EXPECT_EQ(tensor.largest_difference, 0) << tensor.name;
  EXPECT_EQ(done.data_sha256, again.data_sha256);
}

INSTANTIATE_TEST_SUITE_P(Models, Convert, ::testing::ValuesIn(fixture_names()),
                         [](const auto& info) { return info.param; });

std::vector<std::string> gguf_models() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(SPECMOE_TEST_DATA "/golden/gguf")) {
    if (entry.path().filename() != "quants") names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// From GGUF files: other names, other orders, experts fused or apart.
class ConvertGguf : public ::testing::TestWithParam<std::string> {
 protected:
  Fixture fixture_ = load_fixture("../gguf/" + GetParam());
  FolderCopy folder_{fixture_.folder};
};

TEST_P(ConvertGguf, LoadedItHasTheBitsOfItsSource) { expect_bits_of_source(fixture_, folder_); }

INSTANTIATE_TEST_SUITE_P(Models, ConvertGguf, ::testing::ValuesIn(gguf_models()),
                         [](const auto& info) { return info.param; });

class ConvertOne : public ::testing::Test {
 protected:
  std::string refusal(const std::string& source, DType dtype = DType::kInt8) {
    try {
      convert(source, target_.path(), dtype);
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      return error.what();
    }
    return "";
  }

  FolderCopy source_{load_fixture("mixtral_a").folder};
  FolderCopy target_{load_fixture("mixtral_a").folder};
};

TEST_F(ConvertOne, RoundingIsWhatTheFilesSay) {
  const Conversion done = convert(source_.path(), target_.path(), DType::kInt8);
  const Checkpoint before(source_.path());
  const Checkpoint after(target_.path());
  ASSERT_FALSE(done.tensors.empty());
  for (const TensorRounding& tensor : done.tensors) {
    const std::string name = tensor.name.substr(tensor.name.find('.') + 1);  // without "model."
    const Tensor* source = before.find(tensor.name.starts_with("model.") ? name : tensor.name);
    ASSERT_NE(source, nullptr) << tensor.name;
    const Tensor* rounded = after.find(tensor.name.starts_with("model.") ? name : tensor.name);
    const Tensor* scales = after.find((tensor.name.starts_with("model.") ? name : tensor.name) + "_scale");
    if (rounded->dtype == "BF16") continue;  // the embedding table
    ASSERT_NE(scales, nullptr) << tensor.name;
    const std::int64_t cols = source->shape.back();
    const std::int64_t rows = static_cast<std::int64_t>(rounded->end - rounded->begin) / cols;
    double largest = 0;
    double squares = 0;
    double all = 0;
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      float scale = 0;
      std::memcpy(&scale, scales->data + i / cols * 4, 4);
      const double value =
          kernels::WeightView{source->data, source->dtype == "F32" ? DType::kFloat32 : DType::kBFloat16, rows, cols}
              .element(i / cols, i % cols);
      const double difference = static_cast<float>(static_cast<std::int8_t>(rounded->data[i])) * scale - value;
      largest = std::max(largest, std::abs(difference));
      squares += difference * difference;
      all += value * value;
    }
    EXPECT_NEAR(tensor.largest_difference, largest, 1e-12) << tensor.name;
    EXPECT_NEAR(tensor.relative(), std::sqrt(squares / all), 1e-9) << tensor.name;
    EXPECT_GT(tensor.relative(), 1e-4) << tensor.name;
    EXPECT_LT(tensor.relative(), 2e-2) << tensor.name;
  }
}

TEST_F(ConvertOne, FilesDoNotDependOnTheThreads) {
  const Conversion one = convert(source_.path(), target_.path(), DType::kInt8, 1);
  const std::string file = read_file(target_ / "model.safetensors");
  const Conversion three = convert(source_.path(), target_.path(), DType::kInt8, 3);
  EXPECT_TRUE(file == read_file(target_ / "model.safetensors"));
  EXPECT_EQ(one.tensors[0].squared_difference, three.tensors[0].squared_difference);
}

TEST_F(ConvertOne, HashesAreInTheMetadata) {
  const Conversion done = convert(source_.path(), target_.path(), DType::kInt8);
  const std::string file = read_file(target_ / "model.safetensors");
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof(length));
  const auto metadata = nlohmann::json::parse(file.substr(8, length)).at("__metadata__");
  EXPECT_EQ(metadata.at("data_sha256"), sha256_hex(file.substr(8 + length)));
  EXPECT_EQ(metadata.at("data_sha256"), done.data_sha256);
  const std::string config = sha256_hex(read_file(source_ / "config.json"));
  const std::string weights = sha256_hex(read_file(source_ / "model.safetensors"));
  EXPECT_EQ(metadata.at("source_sha256"), sha256_hex(config + "  config.json\n" + weights + "  model.safetensors\n"));
}

TEST_F(ConvertOne, TheLanguagePartOfAModelThatSees) {
  FolderCopy whole(load_fixture("gemma3_text_a").folder);
  nlohmann::json config = {{"model_type", "gemma3"}, {"text_config", whole.config()}, {"torch_dtype", "float32"}};
  config["text_config"].erase("model_type");
  whole.set_config(config);
  convert(whole.path(), target_.path(), DType::kInt8);
  EXPECT_EQ(target_.config().at("model_type"), "gemma3_text");
  EXPECT_TRUE(packed_bytes(target_.path(), DType::kInt8) == packed_bytes(whole.path(), DType::kInt8));
}

TEST_F(ConvertOne, WhatCannotBeConverted) {
  EXPECT_NE(refusal(source_.path(), DType::kFloat32).find("expected int8 or bfloat16"), std::string::npos);
  FolderCopy int8(source_.path());
  convert(source_.path(), int8.path(), DType::kInt8);
  EXPECT_NE(refusal(int8.path()).find("is int8 already"), std::string::npos);
  std::string bytes = read_file(source_ / "model.safetensors");
  const auto place = bytes.size() - 4096;
  const float nan = NAN;
  for (std::size_t i = place; i + 4 <= bytes.size(); i += 4) std::memcpy(bytes.data() + i, &nan, 4);
  write_file(source_ / "model.safetensors", bytes);
  EXPECT_NE(refusal(source_.path()).find("not finite"), std::string::npos);
}

TEST_F(ConvertOne, DamagedInt8IsRefused) {
  convert(source_.path(), target_.path(), DType::kInt8);
  nlohmann::json config = target_.config();
  config["quantization_config"]["weights"] = "int3";
  target_.set_config(config);
  EXPECT_NE(load_error(target_.path()).find("weights 'int3' is not supported"), std::string::npos);
  config.erase("quantization_config");
  target_.set_config(config);
  EXPECT_NE(load_error(target_.path()).find("I8"), std::string::npos);
  convert(source_.path(), target_.path(), DType::kInt8);
  std::string bytes = read_file(target_ / "model.safetensors");
  const std::size_t scale = bytes.find("_scale\"");
  bytes[scale + 1] = 'S';
  write_file(target_ / "model.safetensors", bytes);
  const std::string text = load_error(target_.path());
  EXPECT_NE(text.find("missing"), std::string::npos) << text;
  EXPECT_NE(text.find("_Scale"), std::string::npos) << text;
}

TEST(Sha256, KnownHashes) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  Sha256 million;
  for (int i = 0; i < 10000; ++i) million.add(std::string(100, 'a'));
  EXPECT_EQ(million.hex(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace
}  // namespace specmoe::nn::testing
