#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <span>

#include "kernels/moe_ffn.h"
#include "kernels/moe_router.h"
#include "tests/support/kernel_data.h"
#include "tests/support/router_reference.h"

namespace specmoe::kernels {
namespace {

struct Shape {
  std::int64_t rows, width, inner, experts, k;
};

/// Weights, inputs and routing of one MoE layer; the last expert is never chosen.
struct Layer {
  Layer(const Shape& s, DType dtype, Backend backend) : shape(s) {
    const std::int64_t inner_padded = (s.inner + 15) / 16 * 16;
    for (std::int64_t e = 0; e < s.experts; ++e) {
      const auto seed = static_cast<std::uint32_t>(10 * e);
      const float scale = 2.0f / std::sqrt(static_cast<float>(s.width));
      gates.push_back(random_floats(s.inner * s.width, seed, scale));
      ups.push_back(random_floats(s.inner * s.width, seed + 1, scale));
      gate_up.emplace_back(2 * inner_padded, s.width, dtype, backend);
      gate_up.back().pack_gate_up(weight_view(gates.back(), s.inner, s.width),
                                  weight_view(ups.back(), s.inner, s.width));
      down.push_back(random_matrix(s.width, s.inner, dtype, backend, seed + 2));
    }
    x = random_floats(s.rows * s.width, 3);
    residual = random_floats(s.rows * s.width, 4);
    weight = random_floats(s.rows * s.k, 5);
    input_weight = random_floats(s.rows * s.k, 7);
    up_bias = random_floats(s.experts * 2 * s.inner, 8);
    down_bias = random_floats(s.experts * s.width, 9);
    std::mt19937 bits(6);
    for (std::int64_t t = 0; t < s.rows; ++t) {
      std::vector<std::int32_t> order(static_cast<std::size_t>(s.experts - 1));
      std::iota(order.begin(), order.end(), 0);
      for (std::size_t i = order.size() - 1; i > 0; --i) std::swap(order[i], order[bits() % (i + 1)]);
      expert.insert(expert.end(), order.begin(), order.begin() + s.k);
    }
  }

  double gate_up_at(std::int64_t e, std::int64_t n, std::int64_t k, bool up) const {
    return gate_up[e].at(n / 16 * 32 + n % 16 + (up ? 16 : 0), k);
  }

  Shape shape;
  std::vector<std::vector<float>> gates, ups;
  std::vector<PackedMatrix> gate_up, down;
  std::vector<float> x, residual, weight, input_weight, up_bias, down_bias;
  std::vector<std::int32_t> expert;
};

struct Outcome {
  std::vector<float> hidden, out;
};

/// What MoeUp and moe_down can be asked for beyond the plain products.
struct Extras {
  Activation activation;
  bool input_weight = false;
  bool biases = false;
  bool residual = true;
};
const Extras kExtras[] = {{},
                          {{Activation::Kind::kGeluTanh}, false, false, false},
                          {{Activation::Kind::kClamped, 1.3f, 0.7f}, false, true},
                          {{}, true, false}};

Outcome run(const Layer& layer, Backend backend, std::int64_t first, std::int64_t rows, int shards,
            const Extras& extras) {
  const Shape& s = layer.shape;
  MoeUp how;
  how.activation = extras.activation;
  if (extras.input_weight) how.input_weight = layer.input_weight.data() + first * s.k;
  if (extras.biases) how.bias = layer.up_bias.data();
  const Rows<const float> residual = contiguous(layer.residual.data() + first * s.width, rows, s.width);
  MoePlan plan;
  plan.build(layer.expert.data() + first * s.k, rows, s.k, s.experts);
  Outcome result;
  result.hidden.assign(static_cast<std::size_t>(rows * s.k * s.inner), NAN);
  result.out.assign(static_cast<std::size_t>(rows * s.width), NAN);
  std::vector<float> scratch(static_cast<std::size_t>(rows * s.k * s.width), NAN);
  const Rows<float> hidden = view(result.hidden, rows * s.k, s.inner);
  for (int i = 0; i < shards; ++i) {
    moe_up.on(backend)(contiguous(layer.x.data() + first * s.width, rows, s.width), layer.gate_up.data(), plan, how,
                       hidden, {i, shards});
  }
  for (int i = 0; i < shards; ++i) {
    moe_down.on(backend)(hidden, layer.down.data(), plan, layer.weight.data() + first * s.k,
                         extras.biases ? layer.down_bias.data() : nullptr,
                         extras.residual ? residual : Rows<const float>{}, view(scratch, rows * s.k, s.width),
                         view(result.out, rows, s.width), {i, shards});
  }
  return result;
}

class MoeTest : public BackendTest {};

/// Every shape as it is, and the first few with each of the extras.
std::vector<std::pair<Shape, Extras>> every_shape_with_extras(std::span<const Shape> shapes) {
  std::vector<std::pair<Shape, Extras>> cases;
  for (const Shape& shape : shapes) cases.emplace_back(shape, kExtras[0]);
  for (const Extras& extras : std::span(kExtras).subspan(1)) {
    for (const Shape& shape : shapes.first(std::min<std::size_t>(5, shapes.size()))) cases.emplace_back(shape, extras);
  }
  return cases;
}

double activate(const Activation& activation, double gate, double up) {
  switch (activation.kind) {
    case Activation::Kind::kSilu:
      return gate / (1 + std::exp(-gate)) * up;
    case Activation::Kind::kGeluTanh:
      return gate / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (gate + 0.044715 * gate * gate * gate))) * up;
    case Activation::Kind::kClamped:
      break;
  }
  const double low = std::min<double>(gate, activation.limit);
  return low / (1 + std::exp(-double{activation.alpha} * low)) *
         (std::clamp<double>(up, -activation.limit, activation.limit) + 1);
}

TEST_P(MoeTest, MatchesDoubleReference) {
  const Shape shapes[] = {{0, 16, 16, 4, 2}, {1, 32, 48, 8, 2},  {2, 33, 20, 4, 1},
                          {7, 40, 64, 5, 4}, {33, 24, 37, 9, 2}, {16, 64, 96, 64, 8}};
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kInt8}) {
    for (const auto& [s, extras] : every_shape_with_extras(shapes)) {
      const Layer layer(s, dtype, GetParam());
      const Outcome got = run(layer, GetParam(), 0, s.rows, 1, extras);
      const std::vector<float> seen = product_inputs(layer.x, dtype, GetParam());
      const std::vector<float> seen_hidden = product_inputs(got.hidden, dtype, GetParam());
      for (std::int64_t t = 0; t < s.rows; ++t) {
        std::vector<double> out(static_cast<std::size_t>(s.width));
        for (std::int64_t d = 0; d < s.width; ++d) out[d] = extras.residual ? layer.residual[t * s.width + d] : 0;
        for (std::int64_t pair = t * s.k; pair < (t + 1) * s.k; ++pair) {
          const std::int64_t e = layer.expert[pair];
          for (std::int64_t n = 0; n < s.inner; ++n) {
            double gate = 0, up = 0;
            for (std::int64_t d = 0; d < s.width; ++d) {
              gate += layer.gate_up_at(e, n, d, false) * seen[t * s.width + d];
              up += layer.gate_up_at(e, n, d, true) * seen[t * s.width + d];
            }
            const double factor = extras.input_weight ? layer.input_weight[pair] : 1;
            const auto bias = [&](std::int64_t at) { return extras.biases ? layer.up_bias[e * 2 * s.inner + at] : 0; };
            const double hidden = activate(extras.activation, factor * gate + bias(n), factor * up + bias(s.inner + n));
            expect_close(got.hidden[pair * s.inner + n], hidden, kSums, concat("hidden of pair ", pair, " at ", n));
            for (std::int64_t d = 0; d < s.width; ++d) {
              out[d] += double{layer.weight[pair]} * seen_hidden[pair * s.inner + n] * layer.down[e].at(d, n);
            }
          }
          for (std::int64_t d = 0; extras.biases && d < s.width; ++d) {
            out[d] += layer.weight[pair] * layer.down_bias[e * s.width + d];
          }
        }
        for (std::int64_t d = 0; d < s.width; ++d) {
          expect_close(got.out[t * s.width + d], out[d], kSums, concat(dtype_name(dtype), " row ", t, " at ", d));
        }
      }
    }
  }
}

TEST_P(MoeTest, RowsDoNotDependOnTheirNumberOrOnShards) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kInt8}) {
    const Shape shapes[] = {Shape{33, 64, 96, 5, 2}, Shape{33, 40, 37, 17, 8}};
    for (const auto& [s, extras] : every_shape_with_extras(shapes)) {
      const Layer layer(s, dtype, GetParam());
      Outcome alone;
      for (std::int64_t t = 0; t < s.rows; ++t) {
        const Outcome row = run(layer, GetParam(), t, 1, 1, extras);
        alone.hidden.insert(alone.hidden.end(), row.hidden.begin(), row.hidden.end());
        alone.out.insert(alone.out.end(), row.out.begin(), row.out.end());
      }
      for (const std::int64_t rows : kRowCounts) {
        for (const int shards : {1, 2, 3}) {
          const Outcome got = run(layer, GetParam(), 0, rows, shards, extras);
          EXPECT_TRUE(std::equal(got.hidden.begin(), got.hidden.end(), alone.hidden.begin())) << rows << " " << shards;
          EXPECT_TRUE(std::equal(got.out.begin(), got.out.end(), alone.out.begin())) << rows << " " << shards;
        }
      }
    }
  }
}

TEST_P(MoeTest, RouterTakesTheLargestAndTheLowerIdOfEqualOnes) {
  const auto backend = GetParam();
  for (const Shape& s : {Shape{7, 0, 0, 8, 2}, Shape{5, 0, 0, 64, 8}, Shape{3, 0, 0, 5, 5}, Shape{2, 0, 0, 1, 1}}) {
    for (const bool renormalise : {false, true}) {
      std::vector<float> logits = random_floats(s.rows * s.experts, 21, 4.0f);
      if (s.experts > 4) logits[4] = logits[1] = 5.0f;
      std::vector<std::int32_t> expert(static_cast<std::size_t>(s.rows * s.k), -1);
      std::vector<float> weight(expert.size(), NAN);
      std::vector<float> scores = logits;  // overwritten
      Routing routing;
      routing.experts_per_token = static_cast<int>(s.k);
      routing.renormalise = renormalise;
      moe_router.up_to(vectors_of(backend))(view(scores, s.rows, s.experts), routing, nullptr, expert.data(),
                                            weight.data());
      expect_routing(expert, weight, logits, s.experts, s.k, renormalise);
    }
  }
}

TEST_P(MoeTest, RouterGivesValidIdsForBrokenLogits) {
  std::vector<float> logits(8, NAN);
  std::vector<std::int32_t> expert(3, -1);
  std::vector<float> weight(3);
  for (const auto score : {Routing::Score::kSoftmax, Routing::Score::kSoftmaxOfChosen, Routing::Score::kSigmoid}) {
    for (const int groups : {1, 4}) {
      std::vector<float> scores = logits;
      Routing routing;
      routing.experts_per_token = 3;
      routing.score = score;
      routing.groups = groups;
      routing.kept_groups = groups / 2 + groups % 2;
      moe_router.up_to(vectors_of(GetParam()))(view(scores, 1, 8), routing, nullptr, expert.data(), weight.data());
      std::sort(expert.begin(), expert.end());
      EXPECT_TRUE(expert[0] >= 0 && expert[2] < 8 && expert[0] != expert[1] && expert[1] != expert[2]);
    }
  }
}

struct Choice {
  std::vector<std::int32_t> expert;
  std::vector<float> weight;
};

Choice route(Backend backend, std::vector<float> logits, const Routing& routing, const float* choice_bias = nullptr) {
  Choice choice;
  choice.expert.assign(static_cast<std::size_t>(routing.experts_per_token), -1);
  choice.weight.assign(choice.expert.size(), NAN);
  moe_router.up_to(vectors_of(backend))(view(logits, 1, static_cast<std::int64_t>(logits.size())), routing, choice_bias,
                                        choice.expert.data(), choice.weight.data());
  return choice;
}

void expect_weights(const Choice& choice, const std::vector<double>& expected) {
  ASSERT_EQ(choice.weight.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    expect_close(choice.weight[i], expected[i], kElementwise, concat("weight ", i));
  }
}

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

TEST_P(MoeTest, RouterSoftmaxOfTheChosen) {
  Routing routing;
  routing.experts_per_token = 2;
  routing.score = Routing::Score::kSoftmaxOfChosen;
  routing.scale = 0.5f;
  const Choice choice = route(GetParam(), {1.0f, -3.0f, 2.5f, 2.0f}, routing);
  EXPECT_EQ(choice.expert, (std::vector<std::int32_t>{2, 3}));
  expect_weights(choice, {0.5 * logistic(0.5), 0.5 * logistic(-0.5)});
}

// Logits so large that their scores are all 1: the order is still that of the logits.
TEST_P(MoeTest, RouterSigmoid) {
  Routing routing;
  routing.experts_per_token = 2;
  routing.score = Routing::Score::kSigmoid;
  routing.renormalise = false;
  Choice choice = route(GetParam(), {40.0f, 60.0f, 50.0f}, routing);
  EXPECT_EQ(choice.expert, (std::vector<std::int32_t>{1, 2}));
  choice = route(GetParam(), {-1.0f, 0.5f, -2.0f}, routing);
  EXPECT_EQ(choice.expert, (std::vector<std::int32_t>{1, 0}));
  expect_weights(choice, {logistic(0.5), logistic(-1)});
}

// Experts 4 and 5 would be chosen by score; the bias lifts 0 and 1, whose weights stay what the logits say.
TEST_P(MoeTest, RouterBiasChoosesButDoesNotWeigh) {
  Routing routing;
  routing.experts_per_token = 2;
  routing.score = Routing::Score::kSigmoid;
  routing.epsilon = 0.25f;
  routing.scale = 2.5f;
  const std::vector<float> logits = {0.0f, -1.0f, -4.0f, -4.0f, 3.0f, 2.0f};
  const std::vector<float> bias = {0.9f, 1.0f, -0.5f, -0.5f, 0.0f, 0.0f};
  const Choice choice = route(GetParam(), logits, routing, bias.data());
  EXPECT_EQ(choice.expert, (std::vector<std::int32_t>{0, 1}));
  const double total = logistic(0) + logistic(-1) + 0.25;
  expect_weights(choice, {2.5 * logistic(0) / total, 2.5 * logistic(-1) / total});
}

// Three groups of two. The best expert is alone in its group: by maximum that group stays, by sum of two it goes. All
// biased scores are negative, so what masks the others must be lower than any score.
TEST_P(MoeTest, RouterGroups) {
  Routing routing;
  routing.experts_per_token = 2;
  routing.score = Routing::Score::kSigmoid;
  routing.renormalise = false;
  routing.groups = 3;
  routing.kept_groups = 1;
  const std::vector<float> logits = {2.0f, -9.0f, 1.0f, 0.5f, -1.0f, -1.0f};
  const std::vector<float> bias(6, -3.0f);
  EXPECT_EQ(route(GetParam(), logits, routing, bias.data()).expert, (std::vector<std::int32_t>{0, 1}));
  routing.group_score = Routing::GroupScore::kSumOfTopTwo;
  EXPECT_EQ(route(GetParam(), logits, routing, bias.data()).expert, (std::vector<std::int32_t>{2, 3}));
  routing.kept_groups = 2;
  EXPECT_EQ(route(GetParam(), logits, routing).expert, (std::vector<std::int32_t>{0, 2}));
  routing.score = Routing::Score::kSoftmax;
  routing.group_score = Routing::GroupScore::kMax;
  const Choice choice = route(GetParam(), logits, routing);
  EXPECT_EQ(choice.expert, (std::vector<std::int32_t>{0, 2}));
  double total = 0;
  for (const double logit : logits) total += std::exp(logit);
  expect_weights(choice, {std::exp(2.0) / total, std::exp(1.0) / total});
}

// Jitter 0.1: an expert takes part when it is at most a fifth of max(|its logit|, best) below the best.
TEST_P(MoeTest, RouterSparsemixer) {
  Routing routing;
  routing.experts_per_token = 2;
  routing.score = Routing::Score::kSparsemixer;
  routing.jitter = 0.1f;
  const Choice choice = route(GetParam(), {1.0f, 2.0f, 1.7f, 1.5f, -3.0f}, routing);
  EXPECT_EQ(choice.expert, (std::vector<std::int32_t>{1, 2}));
  expect_weights(choice, {1 / (1 + std::exp(-0.3)), 1 / (1 + std::exp(-0.2))});
}

TEST(MoePlanTest, GroupsPairsByExpert) {
  MoePlan plan;
  const std::vector<std::int32_t> expert = {3, 0, 5, 3, 0, 3};
  plan.build(expert.data(), 3, 2, 7);
  EXPECT_EQ(plan.experts, (std::vector<std::int32_t>{0, 3, 5}));
  EXPECT_EQ(plan.offsets, (std::vector<std::int32_t>{0, 2, 5, 6}));
  EXPECT_EQ(plan.pairs, (std::vector<std::int32_t>{1, 4, 0, 3, 5, 2}));
  const std::int32_t* before = plan.pairs.data();
  plan.build(expert.data(), 2, 2, 7);
  EXPECT_EQ(plan.pairs.data(), before);
  EXPECT_EQ(plan.experts, (std::vector<std::int32_t>{0, 3, 5}));
  plan.build(nullptr, 0, 2, 7);
  EXPECT_TRUE(plan.experts.empty());
  EXPECT_EQ(plan.offsets, (std::vector<std::int32_t>{0}));
}

INSTANTIATE_TEST_SUITE_P(Cpu, MoeTest, testing::ValuesIn(kProductBackends), backend_test_name);

}  // namespace
}  // namespace specmoe::kernels
