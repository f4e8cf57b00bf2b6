// The libtorch oracle against transformers, and the engine against the oracle where transformers gives no figures:
// rounded weights, trees.
#include "core/nn/reference.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

class Reference : public ::testing::TestWithParam<std::string> {
 protected:
  Fixture fixture_ = load_fixture(GetParam());
};

std::vector<std::int32_t> chain(std::size_t count) {
  std::vector<std::int32_t> parents(count);
  std::iota(parents.begin(), parents.end(), -1);
  return parents;
}

template <class Values>
void expect_close(const Values& got, std::span<const double> expected, double tolerance) {
  ASSERT_EQ(got.size(), expected.size());
  double largest = 1.0;
  for (const double value : expected) largest = std::max(largest, std::abs(value));
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], tolerance * largest) << i;
}

TEST_P(Reference, IsTransformers) {
  for (const bool float64 : {true, false}) {
    const ReferenceModel reference(fixture_.folder, {float64});
    const ReferenceRows rows = reference.forward(fixture_.ids, chain(fixture_.ids.size()));
    expect_close(fixture_.logits, rows.logits, 1e-4);
    EXPECT_EQ(rows.experts, fixture_.routers);
  }
}

/// Rounded weights are exact in both, so the tolerance is that of float32. Back ends that round inputs as well have no
/// such reference; tests/kernels compares their products with exact ones of rounded inputs.
TEST_P(Reference, EngineWithRoundedWeights) {
  const ReferenceModel reference(fixture_.folder, {true, kernels::DType::kBFloat16});
  const ReferenceRows rows = reference.forward(fixture_.ids, chain(fixture_.ids.size()));
  for (const auto backend : {kernels::Backend::kScalar, kernels::Backend::kAvx2, kernels::Backend::kAvx512}) {
    if (!kernels::backend_available(backend)) continue;
    LoadOptions options;
    options.threads = 1;
    options.backend = backend;
    const auto model = load_model(fixture_.folder, options);
    const auto cache = model->new_cache(64);
    const ForwardResult result = append(*model, *cache, fixture_.ids);
    expect_close(result.logits, rows.logits, 1e-4);
    EXPECT_EQ(result.experts, rows.experts) << kernels::backend_name(backend);
  }
}

TEST_P(Reference, EngineOnTrees) {
  const std::size_t prefix = 18;
  std::vector<TokenId> tokens = fixture_.ids;
  std::vector<std::int32_t> parents = chain(prefix);
  while (parents.size() < tokens.size()) {
    const auto i = static_cast<std::int32_t>(parents.size());
    parents.push_back(std::max(static_cast<std::int32_t>(prefix) - 1, i - 1 - (i * 7) % 5));
  }
  const ReferenceRows rows = ReferenceModel(fixture_.folder).forward(tokens, parents);

  const auto model = load(fixture_.folder);
  const auto cache = model->new_cache(64);
  append(*model, *cache, std::span(tokens).first(prefix));
  std::vector<std::int32_t> staged;
  for (std::size_t i = prefix; i < tokens.size(); ++i) staged.push_back(parents[i] - static_cast<std::int32_t>(prefix));
  const ForwardResult result = run_rows(*model, *cache, std::span(tokens).subspan(prefix), staged);
  const std::size_t skipped = prefix * static_cast<std::size_t>(rows.vocab);
  expect_close(result.logits, std::span(rows.logits).subspan(skipped), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Models, Reference, ::testing::ValuesIn(fixture_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace specmoe::nn::testing
