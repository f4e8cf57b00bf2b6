// What drafts from a target on a device: heads on its hidden rows, and parts of it.
#include "core/engine.h"
#include "core/nn/cuda/device_weights.h"
#include "tests/cuda/device_test.h"
#include "tests/nn/head_fixture.h"
#include "tests/nn/medusa_checks.h"
#include "tests/nn/part_checks.h"
#include "tests/nn/rewrite_tensors.h"

namespace specmoe::nn::cuda {
namespace {

using testing::Fixture;
using testing::HeadFixture;
using testing::load_fixture;

std::shared_ptr<LanguageModel> load_on(const std::string& device, const std::string& folder,
                                       kernels::DType dtype = kernels::DType::kFloat32) {
  LoadOptions options;
  options.dtype = dtype;
  options.device = device;
  options.threads = 1;
  return load_model(folder, options);
}

template <class Base>
class OnDevice : public Base {
 protected:
  void SetUp() override {
    if (kernels::cuda::device_count() == 0) GTEST_SKIP() << "this machine has no CUDA device";
#ifdef SPECMOE_CUDA_EMULATION
    cuda_emulation::set_schedule(1);
#endif
  }
};

/// Of each name in tests/golden.
using NamedDeviceTest = OnDevice<::testing::TestWithParam<std::string>>;

class DeviceHeadTest : public NamedDeviceTest {
 protected:
  DraftHead open(kernels::DType dtype) const {
    return load_on("cuda", fixture_.target, dtype)->draft_head(fixture_.folder);
  }

  HeadFixture fixture_{GetParam()};
};

TEST_P(DeviceHeadTest, AgreesWithThePlainOne) {
  const DraftHead head = open(kernels::DType::kFloat32);
  EXPECT_EQ(head.model->info().device, "cuda:0");
  fixture_.expect_plain_results(head);
}

TEST_P(DeviceHeadTest, RowsHaveTheSameBitsHoweverTheyAreBatched) {
  fixture_.expect_rows_stand_alone(open(kernels::DType::kBFloat16));
}

INSTANTIATE_TEST_SUITE_P(Formats, DeviceHeadTest, ::testing::ValuesIn(HeadFixture::kNames),
                         [](const auto& info) { return info.param; });

class DeviceBlockHeadTest : public OnDevice<::testing::Test> {
 protected:
  DraftHead open(const std::string& name, kernels::DType dtype) const {
    return load_on("cuda", SPECMOE_TEST_DATA "/golden/models/mixtral_a", dtype)->draft_head(testing::kHeads + name);
  }
};

TEST_F(DeviceBlockHeadTest, AgreesWithThePlainOneAndRowsStandAlone) {
  const testing::BlockFixture fixture("dflash");
  fixture.expect_plain_results(open("dflash", kernels::DType::kFloat32));
  const DraftHead head = open("dflash", kernels::DType::kBFloat16);
  fixture.expect_rows_stand_alone(head, head);
}

TEST_F(DeviceBlockHeadTest, RefusesLayersOfTwoKinds) {
  try {
    open("dflash_window", kernels::DType::kFloat32);
    FAIL() << "opened";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("partly causal"), std::string::npos) << error.what();
  }
}

class DeviceMedusaTest : public NamedDeviceTest {
 protected:
  std::shared_ptr<MedusaHeads> open(kernels::DType dtype) const {
    return load_on("cuda", SPECMOE_TEST_DATA "/golden/models/mixtral_a", dtype)->medusa_heads(fixture_.folder);
  }

  testing::MedusaFixture fixture_{GetParam()};
};

TEST_P(DeviceMedusaTest, AgreeWithThePlainOnes) { fixture_.expect_plain_results(*open(kernels::DType::kFloat32)); }

TEST_P(DeviceMedusaTest, RowsHaveTheSameBitsHoweverTheyAreBatched) {
  const auto heads = open(kernels::DType::kBFloat16);
  fixture_.expect_rows_stand_alone(*heads, *heads);
}

INSTANTIATE_TEST_SUITE_P(Formats, DeviceMedusaTest, ::testing::ValuesIn(testing::MedusaFixture::kNames),
                         [](const auto& info) { return info.param; });

/// Blocks of zeros change nothing, and what is left is the target's output: its matrix, bias, scale and cap.
class DeviceMedusaOutputTest : public NamedDeviceTest {};

TEST_P(DeviceMedusaOutputTest, BorrowedIsTheTargetsToTheBit) {
  testing::expect_borrowed_outputs(*load_on("cuda", SPECMOE_TEST_DATA "/golden/models/" + GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Models, DeviceMedusaOutputTest, ::testing::Values("granitemoe_a", "phimoe_a", "gemma3_text_a"),
                         [](const auto& info) { return info.param; });

class DeviceBoundaryTest : public NamedDeviceTest {};

TEST_P(DeviceBoundaryTest, PartsHoldTheBoundariesOfTheWhole) {
  Fixture fixture = load_fixture(GetParam());
  fixture.ids.resize(3);
  const auto whole = load_on("cuda", fixture.folder, kernels::DType::kBFloat16);
  testing::expect_parts_hold_boundaries(*whole, fixture);
  EXPECT_TRUE(testing::same_bits(testing::logits_of(*whole->partial({}), fixture.ids),
                                 testing::logits_of(*whole, fixture.ids)));
}

TEST_P(DeviceBoundaryTest, HoldWhatTheCpusHold) {
  const Fixture fixture = load_fixture(GetParam());
  const auto tapped = [&](const std::string& device) {
    const auto model = load_on(device, fixture.folder);
    std::vector<int> taps(static_cast<std::size_t>(model->info().layers) + 2);
    std::iota(taps.rbegin(), taps.rend(), 0);
    const auto cache = model->new_cache(16);
    return testing::run_rows(*model, *cache, std::span(fixture.ids).first(3), std::vector<std::int32_t>{-1, 0, 0}, taps)
        .tapped;
  };
  const std::vector<float> device = tapped("cuda"), cpu = tapped("cpu");
  double largest = 1.0;
  for (const float value : cpu) largest = std::max(largest, std::abs(static_cast<double>(value)));
  ASSERT_EQ(device.size(), cpu.size());
  for (std::size_t i = 0; i < cpu.size(); ++i) ASSERT_NEAR(device[i], cpu[i], 1e-4 * largest) << i;
}

INSTANTIATE_TEST_SUITE_P(Models, DeviceBoundaryTest,
                         ::testing::Values("deepseek_v3_a", "gemma3_text_a", "gpt_oss_a", "mixtral_a", "phimoe_a"),
                         [](const auto& info) { return info.param; });

/// A layer's keys and values move up in the cache where layers before it are left out.
TEST(DevicePartPlaces, FollowOneAnother) {
  ModelSpec spec;
  spec.layers.resize(3);
  DeviceModel whole;
  CachePlaces places;
  for (LayerSpec& layer : spec.layers) {
    layer.attention.kv_heads = 2;
    layer.attention.head_dim = 8;
    places.take(layer.attention, whole.layers.emplace_back().attention);
  }
  EXPECT_EQ(whole.layers[2].attention.first, 32);
  spec.layers.pop_back();
  const DeviceModel part = part_of(whole, spec, std::vector<int>{0, 2});
  ASSERT_EQ(part.layers.size(), 2U);
  EXPECT_EQ(part.layers[0].attention.first, 0);
  EXPECT_EQ(part.layers[1].attention.first, 16);
}

class DevicePartTest : public kernels::cuda::DeviceTest {};

TEST_P(DevicePartTest, OfFewerExpertsIsTheCheckpointThatUsesFewer) {
  for (const char* name : {"mixtral_a", "granitemoe_a"}) {
    const Fixture fixture = load_fixture(name);
    const auto ids = std::span(fixture.ids).first(6);
    const testing::FolderCopy fewer(fixture.folder);
    fewer.set_config("num_experts_per_tok", 1);
    const auto part = load_on("cuda", fixture.folder)->partial({.experts_per_token = 1});  // outlives the whole
    EXPECT_EQ(part->info().experts_per_token, 1);
    EXPECT_EQ(part->info().device, "cuda:0");
    const std::vector<float> logits = testing::logits_of(*part, ids);
    EXPECT_TRUE(testing::same_bits(logits, testing::logits_of(*load_on("cuda", fewer.path()), ids))) << name;
  }
}

// A head without an embedding reads a tied target's out of its output matrix.
TEST_P(DevicePartTest, HeadsReadATiedTargetsEmbedding) {
  const HeadFixture fixture("eagle1");
  const testing::FolderCopy tied(fixture.target);
  tied.set_config("tie_word_embeddings", true);
  testing::rewrite(tied, "model.safetensors", [](testing::Tensors& all) { all.erase("lm_head.weight"); });
  const auto logits = [&](const std::string& device) {
    const DraftHead head = load_on(device, tied.path())->draft_head(fixture.folder);
    const auto cache = head.model->new_cache(8);
    return testing::run_head(head, *cache, fixture.first_tokens(3), fixture.first_features(3)).logits;
  };
  const std::vector<float> device = logits("cuda"), cpu = logits("cpu");
  testing::expect_near_plain(device, cpu, "logits");
}

/// What a drafter on `device` makes of a greedy text, and who leads its steps.
struct Drafted {
  RequestRecord record;
  std::string leader;
};
Drafted draft_on(const std::string& device, const std::string& target, const EngineSpec& spec) {
  Request request;
  request.prompt = {5, 7, 11, 13};
  request.max_new_tokens = 8;
  LoadOptions options;
  options.device = device;
  options.threads = 1;
  Engine engine(load_on(device, target), spec, draft_loader(options));
  return {engine.generate({&request, 1})[0], engine.step_leader()};
}

// The tree's second child is never kept, so rows of caches and of features have to be the right ones.
TEST_P(DevicePartTest, DraftersWriteThePlainTextAndAcceptWhatTheCpuAccepts) {
  const std::string mixtral = SPECMOE_TEST_DATA "/golden/models/mixtral_a";
  const std::vector<TokenId> plain = draft_on("cpu", mixtral, {}).record.tokens;
  int accepted = 0;
  const std::string host = "steps led by the host: no device leads this drafter";
  for (const auto& [drafter, leader] : {std::pair{"eagle(path=" + testing::kHeads + "eagle3_specforge)", host},
                                        {"medusa(path=" + testing::kHeads + "medusa_borrowing)", host},
                                        {"dflash(path=" + testing::kHeads + "dflash)", host},
                                        {"self", std::string("whole steps on cuda:0")},
                                        {"self(skip=0)", std::string("whole steps on cuda:0")}}) {
    const EngineSpec spec = {drafter, "expansion(2,1)"};
    const Drafted device = draft_on("cuda", mixtral, spec), cpu = draft_on("cpu", mixtral, spec);
    EXPECT_EQ(device.leader, leader);
    EXPECT_EQ(device.record.tokens, plain) << drafter;
    EXPECT_EQ(device.record.from_draft, cpu.record.from_draft) << drafter;
    accepted += std::accumulate(cpu.record.from_draft.begin(), cpu.record.from_draft.end(), 0);
  }
  EXPECT_GT(accepted, 0);
}

SPECMOE_DEVICE_TESTS(DevicePartTest);

}  // namespace
}  // namespace specmoe::nn::cuda
