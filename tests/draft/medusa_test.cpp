#include <gtest/gtest.h>

#include "core/drafter.h"
#include "tests/support/tapped.h"
#include "tests/support/toy_model.h"

namespace specmoe {
namespace {

/// The text's first token has no row before it.
TEST(Medusa, ProposesNothingAfterOneToken) {
  const auto drafter = drafters().create("medusa(path=toy)");
  const auto target = test::make_toy_model({});
  drafter->attach({target, {}});
  EXPECT_EQ(test::first_draft(target, *drafter, "expansion(2,2)", {4}, {.temperature = 1.0}).tree.size(), 1);
}

/// A model that runs elsewhere than on the CPU.
class HeadlessModel final : public LanguageModel {
 public:
  HeadlessModel() { info_.name = "toy"; }
  const ModelInfo& info() const override { return info_; }
  std::unique_ptr<KVCache> new_cache(int, std::optional<int>) const override { return nullptr; }
  void forward(std::span<const RowBlock>, ForwardResult&) override {}

 private:
  ModelInfo info_;
};

TEST(Medusa, IsRefusedForModelsThatTakeNoHeads) {
  try {
    drafters().create("medusa(path=heads)")->attach({std::make_shared<HeadlessModel>(), {}});
    FAIL() << "attached";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_TRUE(text.starts_with("medusa: Medusa heads 'heads': model toy takes none")) << text;
  }
}

}  // namespace
}  // namespace specmoe
