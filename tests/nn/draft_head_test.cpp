// Draft heads against a plain implementation in torch (tests/golden/make_head_fixtures.py), and against themselves.
#include <cmath>
#include <map>

#include "core/engine.h"
#include "core/nn/draft_head.h"
#include "core/nn/safetensors_writer.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

const std::string kHeads = SPECMOE_TEST_DATA "/golden/heads/";

/// A head, the model of tests/golden/models that it is for, and what it must give.
struct HeadFixture {
  std::string folder;
  std::string target;
  std::vector<TokenId> tokens;   // [12]
  std::vector<float> features;   // [8, W] of the target; the other four rows go on from what the head handed on
  std::vector<float> logits;     // [12, V]
  std::vector<float> handed_on;  // [12, D]

  explicit HeadFixture(const std::string& name) : folder(kHeads + name), target(SPECMOE_TEST_DATA "/golden/models/") {
    target += name.starts_with("mtp") ? "deepseek_v3_a" : "mixtral_a";
    const SafetensorsFile file(folder + "/expected.safetensors");
    const auto copy = [&file](const std::string& tensor_name, auto& values) {
      for (const Tensor& tensor : file.tensors()) {
        if (tensor.name != tensor_name) continue;
        values.resize((tensor.end - tensor.begin) / sizeof(values[0]));
        std::memcpy(values.data(), tensor.data, tensor.end - tensor.begin);
      }
    };
    copy("tokens", tokens);
    copy("features", features);
    copy("logits", logits);
    copy("recycled", handed_on);
  }
};

constexpr std::size_t kTargetRows = 8;

/// Runs rows of a head behind what the cache holds, and keeps them.
ForwardResult run_head(const DraftHead& head, KVCache& cache, std::span<const TokenId> tokens,
                       std::span<const float> features) {
  ForwardResult result;
  result.taps = {head.recycled};
  std::vector<std::int32_t> rows(tokens.size());
  std::iota(rows.begin(), rows.end(), -1);
  const RowBlock block{&cache, tokens, rows, LogitsWanted::kAll, features};
  head.model->forward({&block, 1}, result);
  std::iota(rows.begin(), rows.end(), 0);
  cache.keep(rows);
  return result;
}

void expect_near(std::span<const float> got, std::span<const float> expected, const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::isinf(expected[i])) {
      ASSERT_EQ(got[i], expected[i]) << what << " " << i;
    } else {
      // float32 sums of a few hundred terms; the largest values are near 10.
      ASSERT_NEAR(got[i], expected[i], 2e-4) << what << " " << i;
    }
  }
}

class DraftHeadTest : public ::testing::TestWithParam<std::string> {
 protected:
  DraftHead open(int threads = 1) const {
    return load(fixture_.target, kernels::DType::kFloat32, threads)->draft_head(fixture_.folder);
  }
  std::span<const float> features(std::size_t first, std::size_t count) const {
    const std::size_t width = fixture_.features.size() / kTargetRows;
    return std::span(fixture_.features).subspan(first * width, count * width);
  }
  std::span<const float> logits(std::size_t first, std::size_t count) const {
    const std::size_t vocab = fixture_.logits.size() / fixture_.tokens.size();
    return std::span(fixture_.logits).subspan(first * vocab, count * vocab);
  }
  std::span<const TokenId> tokens(std::size_t first, std::size_t count) const {
    return std::span(fixture_.tokens).subspan(first, count);
  }

  HeadFixture fixture_{GetParam()};
};

TEST_P(DraftHeadTest, AgreesWithThePlainOne) {
  for (const int threads : {1, 2}) {
    const DraftHead head = open(threads);
    const auto cache = head.model->new_cache(64);
    ForwardResult result = run_head(head, *cache, tokens(0, kTargetRows), features(0, kTargetRows));
    const std::size_t width = fixture_.handed_on.size() / fixture_.tokens.size();
    ASSERT_EQ(static_cast<std::size_t>(head.model->info().hidden_size), width);
    expect_near(result.logits, logits(0, kTargetRows), "logits");
    expect_near(result.tapped, std::span(fixture_.handed_on).first(kTargetRows * width), "handed on");
    for (std::size_t i = kTargetRows; i < fixture_.tokens.size(); ++i) {
      const std::vector<float> before(result.tapped.end() - static_cast<std::ptrdiff_t>(width), result.tapped.end());
      result = run_head(head, *cache, tokens(i, 1), before);
      expect_near(result.logits, logits(i, 1), concat("logits of row ", i));
      EXPECT_EQ(result.argmax[0], std::max_element(result.logits.begin(), result.logits.end()) - result.logits.begin());
    }
  }
}

TEST_P(DraftHeadTest, RowsHaveTheSameBitsHoweverTheyAreBatched) {
  const DraftHead head = open();
  const auto whole = head.model->new_cache(64);
  const ForwardResult expected = run_head(head, *whole, tokens(0, kTargetRows), features(0, kTargetRows));
  const std::size_t width = expected.tapped.size() / kTargetRows;
  const auto cache = head.model->new_cache(64);
  std::vector<float> logits, handed_on;
  for (std::size_t i = 0; i < kTargetRows; ++i) {
    const ForwardResult result = run_head(head, *cache, tokens(i, 1), features(i, 1));
    logits.insert(logits.end(), result.logits.begin(), result.logits.end());
    handed_on.insert(handed_on.end(), result.tapped.begin(), result.tapped.end());
  }
  EXPECT_TRUE(same_bits(logits, expected.logits));
  EXPECT_TRUE(same_bits(handed_on, expected.tapped));

  // A sequence that goes on from the target's rows beside one that goes on from the head's.
  const std::span<const float> last = std::span(expected.tapped).last(width);
  const ForwardResult alone = run_head(head, *whole, tokens(kTargetRows, 1), last);
  const auto other = head.model->new_cache(64);
  ForwardResult together;
  together.want_logits = false;
  together.taps = {head.recycled};
  const std::vector<std::int32_t> parents = {-1, 0, 1};
  const std::vector<RowBlock> blocks = {
      {other.get(), tokens(0, 3), parents, LogitsWanted::kAll, features(0, 3)},
      {cache.get(), tokens(kTargetRows, 1), std::span(parents).first(1), LogitsWanted::kAll, last}};
  head.model->forward(blocks, together);
  EXPECT_TRUE(same_bits(std::span(together.tapped).first(3 * width), std::span(expected.tapped).first(3 * width)));
  EXPECT_TRUE(same_bits(std::span(together.tapped).last(width), alone.tapped));
  EXPECT_EQ(together.argmax[3], alone.argmax[0]);
}

TEST_P(DraftHeadTest, RefusesRowsWithoutFeatures) {
  const DraftHead head = open();
  const auto cache = head.model->new_cache(64);
  EXPECT_THROW(run_head(head, *cache, tokens(0, 2), {}), Error);
  EXPECT_THROW(run_head(head, *cache, tokens(0, 2), features(0, 1)), Error);
  EXPECT_EQ(cache->staged(), 0);
  const auto target = load(SPECMOE_TEST_DATA "/golden/models/mixtral_a");
  const auto plain = target->new_cache(64);
  EXPECT_THROW(run_head({target, {}, 0}, *plain, tokens(0, 1), features(0, 1)), Error);
  EXPECT_THROW(run_head({target, {}, target->info().layers + 2}, *plain, tokens(0, 1), {}), Error);
}

INSTANTIATE_TEST_SUITE_P(Formats, DraftHeadTest,
                         ::testing::Values("eagle1", "eagle3_safeailab", "eagle3_specforge", "eagle3_speculators",
                                           "mtp_deepseek_v3"),
                         [](const auto& info) { return info.param; });

/// What the error says of a head whose config.json was changed by `change`.
std::string refusal(const std::string& fixture, const std::function<void(nlohmann::json&)>& change) {
  const FolderCopy copy(kHeads + fixture);
  nlohmann::json config = copy.config();
  change(config);
  copy.set_config(config);
  try {
    load(SPECMOE_TEST_DATA "/golden/models/mixtral_a")->draft_head(copy.path());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(DraftHeadInput, SaysWhatDoesNotFit) {
  const std::vector<std::tuple<std::string, std::function<void(nlohmann::json&)>, std::string>> cases = {
      {"eagle1", [](auto& c) { c["vocab_size"] = 198; }, "made for another model"},
      {"eagle1", [](auto& c) { c["hidden_size"] = 32; }, "made for another model"},
      {"eagle1", [](auto& c) { c["num_hidden_layers"] = 2; }, "one layer"},
      {"eagle1", [](auto& c) { c["bias"] = false; }, "extra fc.bias"},
      {"eagle1", [](auto& c) { c["model_type"] = "mixtral"; }, "one layer"},
      {"eagle3_safeailab", [](auto& c) { c["target_hidden_size"] = 65; }, "made for another model"},
      {"eagle3_safeailab", [](auto& c) { c["draft_vocab_size"] = 200; }, "draft_vocab_size"},
      {"eagle3_safeailab", [](auto& c) { c["draft_vocab_size"] = 119; }, "lm_head.weight"},
      {"eagle3_safeailab", [](auto& c) { c.erase("eagle_aux_hidden_state_layer_ids"); }, "no default"},
      {"eagle3_safeailab", [](auto& c) { c["eagle_aux_hidden_state_layer_ids"] = {0, 3, 2}; }, "layer_ids"},
      {"eagle3_safeailab", [](auto& c) { c["eagle_aux_hidden_state_layer_ids"] = {2}; }, "told apart"},
      {"eagle3_safeailab", [](auto& c) { c["eagle_aux_hidden_state_layer_ids"] = {0, 1}; }, "fc.weight"},
      {"eagle3_specforge", [](auto& c) { c["eagle_config"]["eagle_aux_hidden_state_layer_ids"] = {0, 2}; },
       "layer_ids"},
      {"eagle3_specforge", [](auto& c) { c["fc_norm"] = false; }, "extra fc_norm.0.weight"},
      {"eagle3_speculators", [](auto& c) { c.erase("norm_before_residual"); }, "norm_before_residual"},
      {"eagle3_speculators", [](auto& c) { c["speculators_model_type"] = "dflash"; }, "known: eagle3"},
  };
  for (const auto& [fixture, change, expected] : cases) {
    const std::string said = refusal(fixture, change);
    EXPECT_NE(said.find(expected), std::string::npos) << fixture << ", expected '" << expected << "', got: " << said;
  }
  EXPECT_EQ(refusal("eagle1", [](auto&) {}), "");
}

TEST(DraftHeadInput, AModuleBelongsToItsTarget) {
  const auto said = [](const std::string& folder, const std::string& target,
                       const std::function<void(nlohmann::json&)>& change) {
    const FolderCopy copy(folder);
    nlohmann::json config = copy.config();
    change(config);
    copy.set_config(config);
    try {
      load(SPECMOE_TEST_DATA "/golden/models/" + target)->draft_head(copy.path());
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string module = kHeads + "mtp_deepseek_v3";
  const auto as_it_is = [](nlohmann::json&) {};
  EXPECT_EQ(said(module, "deepseek_v3_a", as_it_is), "");
  EXPECT_NE(said(module, "mixtral_a", as_it_is).find("made for another model"), std::string::npos);
  EXPECT_NE(said(module, "deepseek_v3_a", [](auto& c) { c["num_nextn_predict_layers"] = 0; }).find("one layer"),
            std::string::npos);
  EXPECT_NE(said(module, "deepseek_v3_a", [](auto& c) { c["num_hidden_layers"] = 2; }).find("made for another model"),
            std::string::npos);
  const auto promised = [](auto& c) { c["num_nextn_predict_layers"] = 1; };
  EXPECT_NE(said(SPECMOE_TEST_DATA "/golden/models/deepseek_v3_a", "deepseek_v3_a", promised).find("missing"),
            std::string::npos);
}

/// As DeepSeek-V3 comes: the target leaves the module out, and drafter mtp the target.
TEST(DraftHeadInput, ATargetAndItsModuleShareAFolder) {
  const FolderCopy folder(kHeads + "mtp_deepseek_v3");
  const SafetensorsFile module(kHeads + "mtp_deepseek_v3/model.safetensors");
  const SafetensorsFile model(SPECMOE_TEST_DATA "/golden/models/deepseek_v3_a/model.safetensors");
  std::map<std::string, Tensor> tensors;  // the fixture of the model has one of the module's names as well
  for (const SafetensorsFile* file : {&module, &model}) {
    for (const Tensor& tensor : file->tensors()) tensors.emplace(tensor.name, tensor);
  }
  std::vector<NewTensor> entries;
  for (const auto& [name, tensor] : tensors)
    entries.push_back({name, tensor.dtype, tensor.shape, tensor.end - tensor.begin});
  std::filesystem::remove(folder / "model.safetensors");
  SafetensorsWriter writer((folder / "model.safetensors").string(), entries, {});
  for (const auto& [name, tensor] : tensors) writer.write(name, 0, std::span(tensor.data, tensor.end - tensor.begin));
  writer.finish("");
  const auto target = load(folder.path());
  Request request;
  request.prompt = {5, 7, 11, 13};
  request.max_new_tokens = 40;
  const RequestRecord plain = Engine(target, {}).generate({&request, 1})[0];
  Engine engine(target, {.drafter = "mtp(path=" + folder.path() + ")", .tree = "confidence(nodes=6,depth=3,width=3)"});
  const RequestRecord drafted = engine.generate({&request, 1})[0];
  EXPECT_EQ(drafted.tokens, plain.tokens);
  EXPECT_GT(drafted.steps[0].drafted, 0);
}

TEST(DraftHeadInput, LayersAreNamedByWhatTheyEnterOrLeave) {
  const auto taps = [](const nlohmann::json& change, int layers) {
    nlohmann::json config = nlohmann::json::parse(read_file(kHeads + "eagle3_safeailab/config.json"));
    config.erase("eagle_aux_hidden_state_layer_ids");
    config.update(change);
    ModelSpec target;
    target.vocab_size = config["vocab_size"];
    target.hidden_size = 64;
    target.layers.resize(static_cast<std::size_t>(layers));
    return parse_draft_head(ConfigReader::parse(config.dump(), "config.json"), target).taps;
  };
  const std::string key = "eagle_aux_hidden_state_layer_ids";
  EXPECT_EQ(taps(nlohmann::json::object(), 48), (std::vector<int>{2, 24, 45}));
  EXPECT_EQ(taps({{key, {1, 17, 36}}}, 36), (std::vector<int>{1, 17, 36}));
  EXPECT_EQ(taps({{"eagle_config", {{key, {1, 17, 33}}}}}, 36), (std::vector<int>{2, 18, 34}));
  EXPECT_EQ(taps({{"eagle_config", nullptr}}, 32), (std::vector<int>{2, 16, 29}));
}

TEST(DraftHeadInput, AHeadIsNotAModel) {
  try {
    load(kHeads + "eagle3_safeailab");
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("eagle(path="), std::string::npos) << error.what();
  }
}

/// d2t leads each of a head's tokens to one of the target's.
TEST(DraftHeadInput, TheVocabularyMustAscendWithinTheTargets) {
  const auto loads = [](std::int64_t index, std::int64_t offset) {
    const FolderCopy copy(kHeads + "eagle3_safeailab");
    const SafetensorsFile file((copy / "model.safetensors").string());
    std::uint64_t header = 0;
    std::string bytes = read_file(copy / "model.safetensors");
    std::memcpy(&header, bytes.data(), sizeof(header));
    for (const Tensor& tensor : file.tensors()) {
      if (tensor.name != "d2t") continue;
      std::memcpy(bytes.data() + 8 + header + tensor.begin + static_cast<std::uint64_t>(index) * 8, &offset, 8);
    }
    write_file(copy / "other", bytes);
    std::filesystem::rename(copy / "other", copy / "model.safetensors");
    try {
      load(SPECMOE_TEST_DATA "/golden/models/mixtral_a")->draft_head(copy.path());
    } catch (const Error&) {
      return false;
    }
    return true;
  };
  EXPECT_TRUE(loads(119, 79));  // the last of 120 tokens is the last of 199
  EXPECT_FALSE(loads(119, 80));
  EXPECT_FALSE(loads(0, -1));
  EXPECT_FALSE(loads(5, -5));
  EXPECT_FALSE(loads(5, INT64_MIN));
  EXPECT_FALSE(loads(5, INT64_MAX));
}

}  // namespace
}  // namespace specmoe::nn::testing
