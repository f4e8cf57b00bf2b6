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
class ElsewhereModel final : public LanguageModel {
 public:
  ElsewhereModel() { info_.device = "cuda:0"; }
  const ModelInfo& info() const override { return info_; }
  std::unique_ptr<KVCache> new_cache(int, std::optional<int>) const override { return nullptr; }
  void forward(std::span<const RowBlock>, ForwardResult&) override {}

 private:
  ModelInfo info_;
};

TEST(Medusa, IsRefusedOnADeviceByName) {
  try {
    drafters().create("medusa(path=toy)")->attach({std::make_shared<ElsewhereModel>(), {}});
    FAIL() << "attached";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_TRUE(text.starts_with("medusa: Medusa heads 'toy' are for device cpu, not for cuda:0")) << text;
  }
}

}  // namespace
}  // namespace specmoe
