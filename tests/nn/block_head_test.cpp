// Heads that propose whole blocks against a plain implementation in torch (tests/golden/make_block_head_fixtures.py),
// and against themselves.
#include "core/engine.h"
#include "core/grow.h"
#include "core/nn/draft_head.h"
#include "core/nn/model_family.h"
#include "core/tree_policy.h"
#include "tests/nn/head_fixture.h"
#include "tests/support/tapped.h"

namespace specmoe::nn::testing {
namespace {

const std::string kTarget = SPECMOE_TEST_DATA "/golden/models/mixtral_a";

class BlockHeadTest : public ::testing::TestWithParam<std::string> {
 protected:
  DraftHead open(kernels::DType dtype = kernels::DType::kFloat32, int threads = 1) const {
    return load(kTarget, dtype, threads)->draft_head(fixture_.folder);
  }

  BlockFixture fixture_{GetParam()};
};

TEST_P(BlockHeadTest, AgreesWithThePlainOne) {
  for (const int threads : {1, 2}) fixture_.expect_plain_results(open(kernels::DType::kFloat32, threads));
}

TEST_P(BlockHeadTest, BlocksHaveTheSameBitsHoweverTheTextWasReadAndBesideOthers) {
  for (const auto dtype : {kernels::DType::kFloat32, kernels::DType::kBFloat16, kernels::DType::kInt8}) {
    fixture_.expect_rows_stand_alone(open(dtype), open(dtype, 3));
  }
}

TEST_P(BlockHeadTest, RefusesPassesThatAreNeitherTextNorBlocks) {
  const DraftHead head = open();
  const auto text = head.model->new_cache(64), block = head.model->new_cache(64);
  const std::vector<TokenId> token = {5};
  const std::vector<std::int32_t> root = {-1};
  const auto error = [&](const std::vector<RowBlock>& blocks, const std::vector<int>& taps = {}) -> std::string {
    ForwardResult result;
    result.taps = taps;
    try {
      head.model->forward(blocks, result);
    } catch (const Error& caught) {
      return caught.what();
    }
    return "";
  };
  const RowBlock read = {text.get(), token, root, LogitsWanted::kNone, fixture_.features(0, 1)};
  EXPECT_NE(error({{text.get(), token, root, LogitsWanted::kAll, fixture_.features(0, 1)}}).find("no logits"),
            std::string::npos);
  EXPECT_NE(error({read}, {0}).find("no boundaries"), std::string::npos);
  EXPECT_NE(error({read, {block.get(), token, root}}).find("in all of its blocks or in none"), std::string::npos);
  EXPECT_EQ(text->staged() + block->staged(), 0);
  EXPECT_EQ(error({read}), "");
}

INSTANTIATE_TEST_SUITE_P(Formats, BlockHeadTest, ::testing::ValuesIn(BlockFixture::kNames),
                         [](const auto& info) { return info.param; });

/// Row i of the block is the proposal i places behind the root, whatever was accepted before.
TEST(DflashDraft, EachDepthHasItsRowOfTheBlock) {
  const auto target = load(kTarget);
  const std::string folder = kHeads + "dflash";
  const DraftHead head = target->draft_head(folder);
  const auto drafter = drafters().create("dflash(path=" + folder + ")");
  drafter->attach({target, {}});
  EXPECT_EQ(drafter->taps(), head.taps);
  std::vector<TokenId> text = {5, 7, 11, 13, 17};
  test::Tapped tapped(target, *drafter);
  const auto state = tapped.open(*drafter, text);
  for (const int accepted : {2, 0, 4}) {
    const Draft<float> draft = test::draft_after(target, *drafter, *state, "chain(7)", text, {.temperature = 0.0});

    const auto read = std::span(text).first(text.size() - 1);
    const std::vector<float> rows = prefill(*target, *target->new_cache(64), read, head.taps);
    const auto cache = head.model->new_cache(64);
    prefill(*head.model, *cache, read, {}, rows);
    std::vector<TokenId> block(5, *head.model->info().mask_token);
    block[0] = text.back();
    const std::vector<std::int32_t> chain = {-1, 0, 1, 2, 3};
    const ForwardResult expected = run_rows(*head.model, *cache, block, chain);
    ASSERT_EQ(draft.tree.size(), 5) << "nothing is proposed deeper than the block";
    for (int node = 1; node < 5; ++node) EXPECT_EQ(draft.tree.token(node), expected.argmax[node]) << node;

    tapped.advance(*drafter, *state, draft.tree, accepted, 19 + accepted, text);
  }
}

/// What was emitted while the topology asked for nothing is read before the next block.
TEST(DflashDraft, GoesOnAfterAPause) {
  const auto target = load(kTarget);
  const auto drafter = drafters().create("dflash(path=" + kHeads + "dflash)");
  drafter->attach({target, {}});
  const std::vector<TokenId> text = {5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43};
  test::Tapped tapped(target, *drafter);
  const auto state = tapped.open(*drafter, std::span(text).first(2));
  for (std::size_t root = 1; root + 1 < text.size(); ++root) {
    TokenTree tree;
    tree.reset(text[root]);
    Verdict verdict;
    verdict.next = text[root + 1];
    tapped.commit(*drafter, *state, tree, verdict);
  }
  const SamplingParams greedy{.temperature = 0.0};
  const Draft<float> draft = test::draft_after(target, *drafter, *state, "chain(4)", text, greedy);
  const Draft<float> fresh = test::first_draft(target, *drafter, "chain(4)", text, greedy);
  EXPECT_EQ(fresh.tree.size(), 5);
  EXPECT_TRUE(std::ranges::equal(draft.tree.tokens(), fresh.tree.tokens()));
}

/// Drafts of random heads are right now and then.
TEST(DflashDraft, GreedyTextIsThePlainText) {
  const auto target = load(kTarget, kernels::DType::kBFloat16, 2);
  std::vector<Request> requests(3);
  requests[0].prompt = {5};
  requests[1].prompt = {5, 7, 11, 13};
  requests[2].prompt = {90, 4};
  for (Request& request : requests) request.max_new_tokens = 140;  // the head's context ends before
  const auto plain = Engine(target, {}).generate(requests);
  int accepted = 0, drafted = 0;
  for (const std::string& spec : {kHeads + "dflash", kHeads + "dflash_window", kHeads + "dflash,block=3"}) {
    for (const std::string& tree : tree_policies().names()) {
      Engine engine(target, {.drafter = "dflash(path=" + spec + ")", .tree = tree, .allow_lossy = true});
      const auto records = engine.generate(requests, 2);
      for (std::size_t i = 0; i < requests.size(); ++i) {
        EXPECT_EQ(records[i].tokens, plain[i].tokens) << spec << " " << tree << " " << i;
        for (const StepRecord& step : records[i].steps) accepted += step.accepted;
        drafted += records[i].steps.back().drafted;
      }
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_EQ(drafted, 0) << "beyond its context a head proposes nothing";
}

/// What the error says of a head whose config.json was changed by `change`.
std::string refusal(const std::string& drafter, const std::string& fixture,
                    const std::function<void(nlohmann::json&)>& change) {
  const FolderCopy copy(kHeads + fixture);
  nlohmann::json config = copy.config();
  change(config);
  copy.set_config(config);
  try {
    drafters().create(drafter + "(path=" + copy.path() + ")")->attach({load(kTarget), {}});
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(DflashInput, SaysWhatDoesNotFit) {
  const auto own = [](const char* key, const nlohmann::json& value) {
    return [key, value](nlohmann::json& config) { config["dflash_config"][key] = value; };
  };
  const auto top = [](const char* key, const nlohmann::json& value) {
    return [key, value](nlohmann::json& config) { config[key] = value; };
  };
  const auto nothing = [](nlohmann::json&) {};
  const std::vector<std::tuple<std::string, std::function<void(nlohmann::json&)>, std::string>> cases = {
      {"dflash", top("vocab_size", 200), "made for another model"},
      {"dflash", top("hidden_size", 32), "made for another model"},
      {"dflash", top("model_type", "mixtral"), "one layer"},
      {"dflash", top("block_size", 1), "block_size"},
      {"dflash", top("block_size", 65), "block_size"},
      {"dflash", own("target_layer_ids", {0, 2}), "target_layer_ids"},
      {"dflash", own("target_layer_ids", nlohmann::json::array()), "must name 1 to 64 layers"},
      {"dflash", own("target_layer_ids", {0}), "fc.weight"},
      {"dflash", own("target_layer_ids", nullptr), "must name 1 to 64 layers"},
      {"dflash", own("mask_token_id", nullptr), "mask_token_id is missing"},
      {"dflash", own("mask_token_id", 199), "mask_token_id"},
      {"dflash", own("selector_rank", 256), "heads of DFlash 2 are not supported"},
      {"dflash_window", top("is_causal", false), "is_causal = false is not supported for layers with a sliding_window"},
      {"eagle3_safeailab", nothing, "does not propose blocks"},
  };
  for (const auto& [fixture, change, expected] : cases) {
    const std::string said = refusal("dflash", fixture, change);
    EXPECT_TRUE(said.starts_with("dflash: ")) << said;
    EXPECT_NE(said.find(expected), std::string::npos) << fixture << ", expected '" << expected << "', got: " << said;
  }
  EXPECT_NE(refusal("eagle", "dflash", nothing).find("draft with dflash(path="), std::string::npos);
  EXPECT_EQ(refusal("dflash", "dflash", nothing), "");
  try {
    load(kHeads + "dflash");
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("dflash(path="), std::string::npos) << error.what();
  }
}

TEST(DflashInput, LayersAreNamedByWhatLeavesThem) {
  const ModelSpec target = read_spec(kTarget);
  EXPECT_EQ(read_draft_head(Checkpoint(kHeads + "dflash"), target).taps, (std::vector<int>{1, 3}));
  EXPECT_EQ(read_draft_head(Checkpoint(kHeads + "dflash_window"), target).taps, (std::vector<int>{1}));
}

}  // namespace
}  // namespace specmoe::nn::testing
