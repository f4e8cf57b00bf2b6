// Medusa heads against a plain implementation in torch (tests/golden/make_head_fixtures.py), and against themselves.
#include "core/nn/medusa_heads.h"

#include <map>

#include "core/engine.h"
#include "core/grow.h"
#include "core/nn/model_family.h"
#include "core/nn/safetensors_writer.h"
#include "core/tree_policy.h"
#include "tests/nn/head_fixture.h"
#include "tests/nn/medusa_checks.h"
#include "tests/nn/rewrite_tensors.h"
#include "tests/support/medusa_folder.h"
#include "tests/support/tapped.h"

namespace specmoe::nn::testing {
namespace {

const std::string kTarget = SPECMOE_TEST_DATA "/golden/models/mixtral_a";

class MedusaHeadsTest : public ::testing::TestWithParam<std::string> {
 protected:
  MedusaFixture fixture_{GetParam()};
};

TEST_P(MedusaHeadsTest, AgreeWithThePlainOnes) {
  for (const int threads : {1, 2}) {
    fixture_.expect_plain_results(*load(kTarget, kernels::DType::kFloat32, threads)->medusa_heads(fixture_.folder));
  }
}

TEST_P(MedusaHeadsTest, RowsHaveTheSameBitsHoweverTheyAreBatched) {
  for (const auto dtype : {kernels::DType::kFloat32, kernels::DType::kBFloat16, kernels::DType::kInt8}) {
    const auto team = load(kTarget, dtype, 3)->medusa_heads(fixture_.folder);
    fixture_.expect_rows_stand_alone(*team, *load(kTarget, dtype)->medusa_heads(fixture_.folder));
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, MedusaHeadsTest, ::testing::ValuesIn(MedusaFixture::kNames),
                         [](const auto& info) { return info.param; });

/// The target's row after the final norm at the last token of a text.
std::vector<float> last_row(LanguageModel& target, std::span<const TokenId> text) {
  const auto cache = target.new_cache(64, std::nullopt);
  std::vector<float> rows = prefill(target, *cache, text, {target.info().layers + 1});
  return {rows.end() - target.info().hidden_size, rows.end()};
}

TEST(MedusaDraft, BorrowedOutputsAreTheTargetsToTheBit) {
  for (const char* name : {"mixtral_a", "granitemoe_a", "phimoe_a", "gemma3_text_a"}) {
    expect_borrowed_outputs(
        *load(SPECMOE_TEST_DATA "/golden/models/" + std::string(name), kernels::DType::kBFloat16, 2));
  }
}

/// Head i's best token below depth i, read from the row of the last token before the root.
TEST(MedusaDraft, EachDepthHasItsHeadOnTheRowBeforeTheRoot) {
  const auto target = load(kTarget);
  const std::string folder = kHeads + "medusa";
  const auto heads = target->medusa_heads(folder);
  const auto drafter = drafters().create("medusa(path=" + folder + ")");
  drafter->attach({target, {}});
  EXPECT_EQ(drafter->checkpoints().at(0).path, folder);
  std::vector<TokenId> text = {5, 7, 11, 13, 17};
  test::Tapped tapped(target, *drafter);
  const auto state = tapped.open(*drafter, text);
  for (const int accepted : {2, 0, 3}) {
    const Draft<float> draft = test::draft_after(target, *drafter, *state, "chain(7)", text, {.temperature = 0.0});
    ASSERT_EQ(draft.tree.size(), 1 + heads->count()) << "nothing is proposed deeper than the heads";
    const std::vector<float> row = last_row(*target, std::span(text).first(text.size() - 1));
    ForwardResult result;
    for (int i = 0; i < heads->count(); ++i) {
      heads->forward(i, kernels::contiguous(row.data(), 1, static_cast<std::int64_t>(row.size())), result);
      EXPECT_EQ(draft.tree.token(i + 1), result.argmax[0]) << "depth " << i;
    }
    tapped.advance(*drafter, *state, draft.tree, accepted, 19 + accepted, text);
  }
}

/// Drafts of random heads are right now and then.
TEST(MedusaDraft, GreedyTextIsThePlainText) {
  const auto target = load(kTarget, kernels::DType::kBFloat16, 2);
  std::vector<Request> requests(3);
  requests[0].prompt = {5};
  requests[1].prompt = {5, 7, 11, 13};
  requests[2].prompt = {90, 4};
  for (Request& request : requests) request.max_new_tokens = 80;
  const auto plain = Engine(target, {}).generate(requests);
  for (const char* name : {"medusa", "medusa_borrowing"}) {
    int accepted = 0;
    for (const std::string& tree : tree_policies().names()) {
      Engine engine(target, {.drafter = "medusa(path=" + kHeads + name + ")", .tree = tree, .allow_lossy = true});
      const auto drafted = engine.generate(requests, 2);
      for (std::size_t i = 0; i < requests.size(); ++i) {
        EXPECT_EQ(drafted[i].tokens, plain[i].tokens) << name << " " << tree << " " << i;
        for (const StepRecord& step : drafted[i].steps) accepted += step.accepted;
      }
    }
    EXPECT_GT(accepted, 0) << name;
  }
}

void rename(Tensors& tensors, const std::string& from, const std::string& to) {
  auto node = tensors.extract(from);
  node.key() = to;
  tensors.insert(std::move(node));
}

constexpr const char* kFile = "medusa_lm_head.safetensors";

/// What the drafter says of a changed copy of the fixture `medusa`.
std::string refusal(const std::function<void(const FolderCopy&)>& change) {
  const FolderCopy copy(kHeads + "medusa");
  change(copy);
  try {
    drafters().create("medusa(path=" + copy.path() + ")")->attach({load(kTarget), {}});
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_TRUE(text.starts_with("medusa: ")) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    return text;
  }
  return "";
}

TEST(MedusaInput, SaysWhatDoesNotFit) {
  const auto tensors = [](const std::function<void(Tensors&)>& change) {
    return [change](const FolderCopy& copy) { rewrite(copy, kFile, change); };
  };
  const std::vector<std::pair<std::function<void(const FolderCopy&)>, std::string>> cases = {
      {[](const FolderCopy& copy) { std::filesystem::remove(copy / "config.json"); }, "no config.json"},
      {[](const FolderCopy& copy) { std::filesystem::remove(copy / kFile); }, "neither model.safetensors nor"},
      {[](const FolderCopy& copy) { std::filesystem::rename(copy / kFile, copy / "medusa_lm_head.pt"); },
       "medusa_lm_head.pt is a pickle, which is not read; convert it"},
      {[](const FolderCopy& copy) { copy.set_config("medusa_num_layers", "one"); }, "medusa_num_layers"},
      {[](const FolderCopy& copy) { copy.set_config("medusa_num_layers", -1); }, "medusa_num_layers"},
      {[](const FolderCopy& copy) { copy.set_config("medusa_num_layers", 1); }, "extra 0.1.linear.weight"},
      {[](const FolderCopy& copy) { copy.set_config("medusa_num_layers", 3); }, "missing 0.2.linear.weight [64, 64]"},
      {tensors([](Tensors& all) { std::erase_if(all, [](const auto& entry) { return entry.first[0] == '1'; }); }),
       "missing 1.0.linear.weight [64, 64]"},
      {tensors([](Tensors& all) { all.erase("1.2.weight"); }), "missing 1.2.weight [199, 64]"},
      {tensors([](Tensors& all) { all.erase("0.2.weight"); }), "missing 0.2.weight [199, 64]"},
      {tensors([](Tensors& all) { all.erase("2.1.linear.bias"); }), "missing 2.1.linear.bias [64]"},
      {tensors([](Tensors& all) { all["1.0.linear.weight"].shape = {64 * 64}; }), "is BF16 [4096], expected [64, 64]"},
      {tensors([](Tensors& all) { all["0.0.linear.weight"].shape = {128, 32}; }), "made for another model"},
      {tensors([](Tensors& all) { all["0.2.weight"].shape = {398, 32}; }), "made for another model"},
      {tensors([](Tensors& all) { rename(all, "0.0.linear.bias", "0.0.linear.offset"); }), "extra 0.0.linear.offset"},
      {tensors([](Tensors& all) { rename(all, "2.2.weight", "99999999999999999999.2.weight"); }),
       "extra 99999999999999999999.2.weight"},
      {tensors([](Tensors& all) { rename(all, "2.2.weight", "64.2.weight"); }), "extra 64.2.weight"},
      {tensors([](Tensors& all) {
         std::erase_if(all, [](const auto& entry) { return entry.first != "0.0.linear.bias"; });
         rename(all, "0.0.linear.bias", "lm_head.bias");
       }),
       "no Medusa heads; expected tensors 0.0.linear.weight"},
      {[&](const FolderCopy& copy) {
         copy.set_config("medusa_num_layers", 0);
         rewrite(copy, kFile,
                 [](Tensors& all) { std::erase_if(all, [](const auto& e) { return e.first[2] == '2'; }); });
       },
       "predict what the target does"},
  };
  for (const auto& [change, expected] : cases) {
    const std::string said = refusal(change);
    EXPECT_NE(said.find(expected), std::string::npos) << "expected '" << expected << "', got: " << said;
  }
  EXPECT_EQ(refusal([](const FolderCopy&) {}), "");
}

TEST(MedusaInput, HeadsBelongToTheirTarget) {
  const Checkpoint checkpoint = open_medusa_heads(kHeads + "medusa");
  const auto said = [&](int hidden, int vocabulary) -> std::string {
    ModelSpec target;
    target.hidden_size = hidden;
    target.vocab_size = vocabulary;
    try {
      read_medusa_heads(checkpoint, target);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(said(64, 199), "");
  EXPECT_NE(said(32, 199).find("made for another model, tests/golden/models/mixtral_a: 0.0.linear.weight is BF16 [64, "
                               "64], the target has hidden rows of 32"),
            std::string::npos);
  EXPECT_NE(said(64, 198).find("0.2.weight is BF16 [199, 64], the target has a vocabulary of 198"), std::string::npos);
}

/// Heads are counted by their tensors, and may be all of a head but its output matrix.
TEST(MedusaInput, ReadsWhatIsThere) {
  const ModelSpec target = read_spec(kTarget);
  const MedusaSpec own = read_medusa_heads(open_medusa_heads(kHeads + "medusa"), target);
  EXPECT_EQ(own.heads, 3);
  EXPECT_EQ(own.blocks, 2);
  EXPECT_TRUE(own.own_output);
  EXPECT_EQ(own.parameters(), 3 * (2 * (64 * 64 + 64) + 199 * 64));
  EXPECT_EQ(own.read_bytes(kernels::DType::kFloat32), 4 * (2 * (64 * 64 + 64) + 208 * 64));  // whole panels of 16
  EXPECT_EQ(own.weight_bytes(kernels::DType::kFloat32), 3 * own.read_bytes(kernels::DType::kFloat32));
  const MedusaSpec borrowing = read_medusa_heads(open_medusa_heads(kHeads + "medusa_borrowing"), target);
  EXPECT_EQ(borrowing.heads, 2);
  EXPECT_FALSE(borrowing.own_output);
  EXPECT_EQ(borrowing.parameters(), 2 * (64 * 64 + 64));
  EXPECT_EQ(borrowing.read_bytes(kernels::DType::kFloat32), 4 * (64 * 64 + 64 + 208 * 64));
  EXPECT_EQ(borrowing.weight_bytes(kernels::DType::kFloat32), 2 * 4 * (64 * 64 + 64));
}

TEST(MedusaInput, NamesMayHaveEitherPrefix) {
  for (const std::string prefix : {"medusa_head.", "medusa.", "model.medusa_head."}) {
    EXPECT_EQ(refusal([&](const FolderCopy& copy) {
                rewrite(copy, kFile, [&](Tensors& all) {
                  const Tensors old = std::exchange(all, {});
                  for (const auto& [name, tensor] : old) all.emplace(prefix + name, tensor);
                });
              }),
              "")
        << prefix;
  }
}

/// Heads without blocks are output matrices alone.
TEST(MedusaInput, HeadsMayHaveNoBlocks) {
  EXPECT_EQ(refusal([](const FolderCopy& copy) {
              copy.set_config("medusa_num_layers", 0);
              rewrite(copy, kFile, [](Tensors& all) {
                for (const char* head : {"0", "1", "2"})
                  rename(all, concat(head, ".2.weight"), concat(head, ".0.weight"));
                std::erase_if(all, [](const auto& entry) { return entry.first.find("linear") != std::string::npos; });
              });
            }),
            "");
}

/// As merged checkpoints come: the target leaves the heads out, and drafter medusa the target.
TEST(MedusaInput, ATargetAndItsHeadsShareAFolder) {
  const FolderCopy folder(kTarget);
  const SafetensorsFile heads(kHeads + "medusa_borrowing/model.safetensors");
  rewrite(folder, "model.safetensors", [&](Tensors& all) {
    for (const Tensor& tensor : heads.tensors()) all.emplace(tensor.name, tensor);
  });
  EXPECT_NE(load_error(folder.path()).find("extra medusa_head.0.0.linear.bias"), std::string::npos);
  folder.set_config("medusa_num_heads", 2);
  const auto target = load(folder.path());
  Engine engine(target, {.drafter = "medusa(path=" + folder.path() + ")"});
  Request request;
  request.prompt = {5, 7, 11};
  request.max_new_tokens = 20;
  EXPECT_EQ(engine.generate({&request, 1})[0].tokens, Engine(target, {}).generate({&request, 1})[0].tokens);
}

TEST(MedusaInput, HeadsAreNoModel) { EXPECT_NE(load_error(kHeads + "medusa").find("medusa(path="), std::string::npos); }

}  // namespace
}  // namespace specmoe::nn::testing
