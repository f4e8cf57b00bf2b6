// Short texts turn by other factors than long ones. Which they are is known from the first token on, and room for a
// tree does not count as text: or else speculation would change what a model writes near the border.
#include "core/engine.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

constexpr int kBorder = 128;  // original_max_position_embeddings of the fixture

TEST(Longrope, TheLongestTextDecidesNotTheRoom) {
  const Fixture fixture = load_fixture("llama_longrope_short");
  const auto model = load(fixture.folder);
  const auto logits = [&](int capacity, std::optional<int> text) {
    const auto cache = model->new_cache(capacity, text);
    return append(*model, *cache, fixture.ids).logits;
  };
  const std::vector<float> short_text = logits(kBorder, std::nullopt);
  EXPECT_TRUE(same_bits(logits(kBorder + 100, kBorder), short_text));
  EXPECT_FALSE(same_bits(logits(kBorder + 1, std::nullopt), short_text));
}

TEST(Longrope, SpeculationWritesTheSameUpToTheBorder) {
  const Fixture fixture = load_fixture("llama_longrope_short");
  const auto model = load(fixture.folder);
  Request request;
  request.prompt.assign(fixture.greedy.begin(), fixture.greedy.begin() + fixture.prompt);
  request.max_new_tokens = kBorder - 1 - fixture.prompt;  // room for one more row ends at the border
  Engine plain(model, {});
  Engine speculative(model, {.drafter = "synthetic(alpha=0.8)", .tree = "expansion(3,2,1)", .allow_lossy = true});
  EXPECT_EQ(speculative.generate({&request, 1})[0].tokens, plain.generate({&request, 1})[0].tokens);
}

}  // namespace
}  // namespace specmoe::nn::testing
