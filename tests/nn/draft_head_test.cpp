// Draft heads against a plain implementation in torch (tests/golden/make_head_fixtures.py), and against themselves.
#include "core/nn/draft_head.h"

#include <map>

#include "core/engine.h"
#include "core/nn/safetensors_writer.h"
#include "tests/nn/head_fixture.h"

namespace specmoe::nn::testing {
namespace {

class DraftHeadTest : public ::testing::TestWithParam<std::string> {
 protected:
  DraftHead open(int threads = 1) const {
    return load(fixture_.target, kernels::DType::kFloat32, threads)->draft_head(fixture_.folder);
  }

  HeadFixture fixture_{GetParam()};
};

TEST_P(DraftHeadTest, AgreesWithThePlainOne) {
  for (const int threads : {1, 2}) fixture_.expect_plain_results(open(threads));
}

TEST_P(DraftHeadTest, RowsHaveTheSameBitsHoweverTheyAreBatched) { fixture_.expect_rows_stand_alone(open()); }

TEST_P(DraftHeadTest, RefusesRowsWithoutFeatures) {
  const DraftHead head = open();
  const auto cache = head.model->new_cache(64);
  EXPECT_THROW(run_head(head, *cache, fixture_.first_tokens(2), {}), Error);
  EXPECT_THROW(run_head(head, *cache, fixture_.first_tokens(2), fixture_.first_features(1)), Error);
  EXPECT_EQ(cache->staged(), 0);
  const auto target = load(SPECMOE_TEST_DATA "/golden/models/mixtral_a");
  const auto plain = target->new_cache(64);
  EXPECT_THROW(run_head({target, {}, 0}, *plain, fixture_.first_tokens(1), fixture_.first_features(1)), Error);
  EXPECT_THROW(run_head({target, {}, target->info().layers + 2}, *plain, fixture_.first_tokens(1), {}), Error);
}

INSTANTIATE_TEST_SUITE_P(Formats, DraftHeadTest, ::testing::ValuesIn(HeadFixture::kNames),
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
