#pragma once

#include "tests/nn/model_fixture.h"
#include "tests/support/medusa_folder.h"

namespace specmoe::nn::testing {

/// Blocks of zeros change nothing, and what is left is the target's output: its matrix, bias, scale and cap.
inline void expect_borrowed_outputs(LanguageModel& target) {
  const std::int64_t hidden = target.info().hidden_size;
  const test::MedusaFolder folder(target.info().hidden_size, 0.0F);
  const auto cache = target.new_cache(8, std::nullopt);
  const std::vector<TokenId> tokens = {5, 7, 11};
  const std::vector<std::int32_t> chain = {-1, 0, 1};
  const ForwardResult expected = run_rows(target, *cache, tokens, chain, {target.info().layers + 1});
  ForwardResult got;
  target.medusa_heads(folder.path())->forward(2, kernels::contiguous(expected.tapped.data(), 3, hidden), got);
  EXPECT_TRUE(same_bits(got.logits, expected.logits)) << target.info().name;
  EXPECT_EQ(got.argmax, expected.argmax) << target.info().name;
}

}  // namespace specmoe::nn::testing
