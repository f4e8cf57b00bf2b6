// Routers, activations and biases that few families have, against the CPU's kernels.
#include "kernels/cuda/plan_sorter.h"
#include "kernels/moe_ffn.h"
#include "kernels/moe_router.h"
#include "tests/cuda/device_test.h"

namespace specmoe::kernels::cuda {
namespace {

using Score = Routing::Score;

class DeviceMoeRuleTest : public DeviceTest {
 protected:
  struct Choice {
    std::vector<std::int32_t> expert;
    std::vector<float> weight;
    bool operator==(const Choice&) const = default;
  };
  Choice on_cpu(std::vector<float> logits, std::int64_t experts, const Routing& routing, const float* bias) {
    const auto rows = static_cast<std::int64_t>(logits.size()) / experts;
    const auto pairs = static_cast<std::size_t>(rows * routing.experts_per_token);
    Choice choice = {std::vector<std::int32_t>(pairs), std::vector<float>(pairs)};
    moe_router.on(Backend::kScalar)(view(logits, rows, experts), routing, bias, choice.expert.data(),
                                    choice.weight.data());
    return choice;
  }
  /// Rows [first, first + rows); the plan must be that of the chosen experts.
  Choice on_device(const std::vector<float>& logits, std::int64_t experts, const Routing& routing, const float* bias,
                   std::int64_t first, std::int64_t rows, std::int64_t most, const PlanSorter* sorter = nullptr) {
    const int k = routing.experts_per_token;
    const DeviceRows device =
        upload_rows({logits.begin() + first * experts, logits.begin() + (first + rows) * experts}, rows, experts);
    const DeviceArray<float> device_bias =
        upload(bias == nullptr ? std::vector<float>() : std::vector<float>(bias, bias + experts));
    const DeviceArray<std::int32_t> active(1), ids(experts), offsets(experts + 1), pairs(most * k), expert(most * k);
    const DeviceArray<float> weight(most * k);
    const DevicePlan plan = {k, active.data(), ids.data(), offsets.data(), pairs.data()};
    route_by_rule(device.view(), count(rows, most), routing, bias == nullptr ? nullptr : device_bias.data(),
                  expert.data(), weight.data(), plan, *stream_, sorter);
    Choice choice = {download(expert.data(), rows * k), download(weight.data(), rows * k)};
    MoePlan expected;
    expected.build(choice.expert.data(), rows, k, experts);
    EXPECT_EQ(download(ids.data(), download(active.data(), 1)[0]), expected.experts);
    EXPECT_EQ(download(pairs.data(), rows * k), expected.pairs);
    return choice;
  }
};

struct Case {
  const char* name;
  std::int64_t experts;
  Routing routing;
  bool biased;
};

std::vector<Case> cases() {
  Routing grouped;
  grouped.experts_per_token = 3;
  grouped.groups = 4;
  grouped.kept_groups = 2;
  grouped.scale = 2.5f;
  grouped.renormalise = false;
  Routing sums = grouped;
  sums.score = Score::kSigmoid;
  sums.group_score = Routing::GroupScore::kSumOfTopTwo;
  sums.renormalise = true;
  sums.epsilon = 1e-2f;
  Routing sigmoid;
  sigmoid.experts_per_token = 1;
  sigmoid.score = Score::kSigmoid;
  sigmoid.renormalise = false;
  Routing chosen;
  chosen.experts_per_token = 4;
  chosen.score = Score::kSoftmaxOfChosen;
  chosen.scale = 0.22f;
  Routing sparse;
  sparse.experts_per_token = 2;
  sparse.score = Score::kSparsemixer;
  sparse.jitter = 0.1f;
  Routing many = sums;
  many.experts_per_token = 8;
  many.groups = 8;
  many.kept_groups = 4;
  return {{"groups by their best", 16, grouped, false},
          {"groups by two, biased", 16, sums, true},
          {"sigmoid", 16, sigmoid, false},
          {"sigmoid, biased", 70, sigmoid, true},
          {"softmax of the chosen", 33, chosen, false},
          {"sparsemixer", 16, sparse, false},
          {"many", 256, many, true}};
}

TEST_P(DeviceMoeRuleTest, RoutersDecideAsTheCpu) {
  constexpr std::int64_t kRows = 12;
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    std::vector<float> logits = random_floats(kRows * c.experts, 21, 3.0f);
    // Ties within groups and across them; a row of nothing else.
    for (std::int64_t e = 0; e < c.experts; e += 3) logits[e] = 1.5f;
    std::fill_n(logits.begin() + c.experts, c.experts, 0.25f);
    std::vector<float> bias = random_floats(c.experts, 22, 0.3f);
    bias[0] = bias[3];
    const float* choice_bias = c.biased ? bias.data() : nullptr;
    const Choice expected = on_cpu(logits, c.experts, c.routing, choice_bias);
    const Choice got = on_device(logits, c.experts, c.routing, choice_bias, 0, kRows, 16);
    EXPECT_EQ(got.expert, expected.expert);
    for (std::size_t i = 0; i < got.weight.size(); ++i) {
      expect_close(got.weight[i], expected.weight[i], kElementwise, concat("weight of pair ", i));
    }
    const int k = c.routing.experts_per_token;
    for (const std::int64_t t : {std::int64_t{0}, std::int64_t{1}, kRows - 1}) {
      const Choice alone = {{got.expert.begin() + t * k, got.expert.begin() + (t + 1) * k},
                            {got.weight.begin() + t * k, got.weight.begin() + (t + 1) * k}};
      EXPECT_EQ(on_device(logits, c.experts, c.routing, choice_bias, t, 1, 1), alone);
    }
  }
}

// Passes of many rows have a block for some of the rows each, and their plan from elsewhere.
TEST_P(DeviceMoeRuleTest, ManyRowsAreRoutedAsFew) {
  constexpr std::int64_t kRows = PlanSorter::kFewRows + 5;
  const Case c = cases()[1];
  const std::vector<float> bias = random_floats(c.experts, 22, 0.3f);
  const std::vector<float> logits = random_floats(kRows * c.experts, 24, 3.0f);
  const PlanSorter sorter(static_cast<int>(kRows * c.routing.experts_per_token), *stream_);
  EXPECT_EQ(on_device(logits, c.experts, c.routing, bias.data(), 0, kRows, kRows, &sorter),
            on_device(logits, c.experts, c.routing, bias.data(), 0, kRows, kRows));
}

TEST_P(DeviceMoeRuleTest, RouterGivesValidIdsForBrokenLogits) {
  for (const Case& c : cases()) {
    const std::vector<float> logits(static_cast<std::size_t>(c.experts), NAN);
    const std::vector<float> bias(static_cast<std::size_t>(c.experts), NAN);
    auto chosen = on_device(logits, c.experts, c.routing, c.biased ? bias.data() : nullptr, 0, 1, 1).expert;
    std::sort(chosen.begin(), chosen.end());
    EXPECT_TRUE(chosen.front() >= 0 && chosen.back() < c.experts) << c.name;
    EXPECT_EQ(std::adjacent_find(chosen.begin(), chosen.end()), chosen.end()) << c.name;
  }
}

TEST_P(DeviceMoeRuleTest, RefusesGroupsThatDoNotFit) {
  Routing routing = cases()[0].routing;
  routing.groups = 5;
  EXPECT_THROW(on_device(std::vector<float>(16), 16, routing, nullptr, 0, 1, 1), Error);
}

TEST_P(DeviceMoeRuleTest, OneExpertTakesEveryRowWithItsGate) {
  const std::vector<float> gates = {-2.0f, 0.0f, 3.0f};
  const DeviceRows gate = upload_rows(gates, 3, 1);
  const DeviceArray<std::int32_t> active(1), ids(1), offsets(2), pairs(3);
  const DeviceArray<float> weight(3);
  const DevicePlan plan = {1, active.data(), ids.data(), offsets.data(), pairs.data()};
  route_to_one(count(3, 4), {}, 0.5f, weight.data(), plan, *stream_);
  EXPECT_EQ(download(weight.data(), 3), std::vector<float>(3, 0.5f));
  route_to_one(count(3, 4), gate.view(), 0.5f, weight.data(), plan, *stream_);
  const std::vector<float> got = download(weight.data(), 3);
  for (std::size_t t = 0; t < 3; ++t) {
    expect_close(got[t], 0.5 / (1.0 + std::exp(-double{gates[t]})), kElementwise, concat("gate ", t));
  }
  EXPECT_EQ(download(pairs.data(), 3), (std::vector<std::int32_t>{0, 1, 2}));
  EXPECT_EQ(download(offsets.data(), 2), (std::vector<std::int32_t>{0, 3}));
}

/// An MoE layer of random weights, its experts on both sides.
class DeviceMoeUpTest : public DeviceMoeRuleTest {
 protected:
  static constexpr std::int64_t kWidth = 24, kInner = 20, kExperts = 3, kPerToken = 2;

  struct Outcome {
    std::vector<float> hidden, out;
  };
  struct How {
    Activation activation;
    bool weighted, biased, residual;
  };

  void SetUp() override {
    DeviceMoeRuleTest::SetUp();
    if (IsSkipped()) return;
    for (std::uint32_t e = 0; e < kExperts; ++e) {
      const auto gates = random_floats(kInner * kWidth, 10 * e + 1), ups = random_floats(kInner * kWidth, 10 * e + 2);
      gate_up_.emplace_back((kInner + 15) / 16 * 32, kWidth, DType::kFloat32, Backend::kScalar);
      gate_up_.back().pack_gate_up(weight_view(gates, kInner, kWidth), weight_view(ups, kInner, kWidth));
      down_.push_back(random_matrix(kWidth, kInner, DType::kFloat32, Backend::kScalar, 10 * e + 3));
    }
  }
  DeviceMatrices device(const std::vector<PackedMatrix>& hosts) {
    std::vector<const std::byte*> table;
    for (const PackedMatrix& host : hosts) {
      bytes_.push_back(upload_panels(host));
      table.push_back(bytes_.back().data());
    }
    tables_.push_back(upload(table));
    return {tables_.back().data(), kExperts, device_matrix(hosts.front(), nullptr)};
  }
  const float* device(const std::vector<float>& values, bool wanted = true) {
    floats_.push_back(upload(values));
    return wanted ? floats_.back().data() : nullptr;
  }

  Outcome on_cpu(const How& how, std::int64_t rows, const MoePlan& plan) {
    Outcome outcome = {std::vector<float>(rows * kPerToken * kInner), std::vector<float>(rows * kWidth)};
    std::vector<float> scratch(rows * kPerToken * kWidth);
    const MoeUp up = {how.activation, how.weighted ? weights_.data() : nullptr, how.biased ? up_bias_.data() : nullptr};
    kernels::moe_up.on(Backend::kScalar)(view(x_, rows, kWidth), gate_up_.data(), plan, up,
                                         view(outcome.hidden, rows * kPerToken, kInner), {});
    kernels::moe_down.on(Backend::kScalar)(
        view(outcome.hidden, rows * kPerToken, kInner), down_.data(), plan, weights_.data(),
        how.biased ? down_bias_.data() : nullptr, how.residual ? view(x_, rows, kWidth) : Rows<float>{},
        view(scratch, rows * kPerToken, kWidth), view(outcome.out, rows, kWidth), {});
    return outcome;
  }
  Outcome on_device(const How& how, std::int64_t rows, const MoePlan& plan) {
    const DeviceRows x = upload_rows({x_.begin(), x_.begin() + rows * kWidth}, rows, kWidth);
    const DeviceRows hidden(rows * kPerToken, kInner), scratch(rows * kPerToken, kWidth), out(rows, kWidth);
    const DeviceArray<std::int32_t> active = upload(std::vector{static_cast<std::int32_t>(plan.experts.size())});
    const DeviceArray<std::int32_t> ids = upload(plan.experts), offsets = upload(plan.offsets),
                                    pairs = upload(plan.pairs);
    const DevicePlan device_plan = {kPerToken, active.data(), ids.data(), offsets.data(), pairs.data()};
    const DeviceArray<unsigned> counters((kWidth + 15) / 16);
    stream_->zero(counters.data(), counters.size() * sizeof(unsigned));
    const float* weight = device(weights_);
    const MoeUp up = {how.activation, how.weighted ? weight : nullptr, device(up_bias_, how.biased)};
    kernels::cuda::moe_up(x.view(), count(rows, rows), device(gate_up_), device_plan, up, hidden.view(), *stream_);
    kernels::cuda::moe_down(hidden.view(), count(rows, rows), device(down_), device_plan, weight,
                            device(down_bias_, how.biased), how.residual ? x.view() : Rows<float>{}, scratch.view(),
                            counters.data(), out.view(), *stream_);
    return {download_rows(hidden.view()), download_rows(out.view())};
  }

  std::vector<PackedMatrix> gate_up_, down_;
  std::vector<DeviceArray<std::byte>> bytes_;
  std::vector<DeviceArray<const std::byte*>> tables_;
  std::vector<DeviceArray<float>> floats_;
  std::vector<float> x_ = random_floats(9 * kWidth, 41), weights_ = random_floats(9 * kPerToken, 42);
  std::vector<float> up_bias_ = random_floats(kExperts * 2 * kInner, 43);
  std::vector<float> down_bias_ = random_floats(kExperts * kWidth, 44);
};

TEST_P(DeviceMoeUpTest, ActivationsBiasesAndWeightsAreTheCpus) {
  using Kind = Activation::Kind;
  for (const How& how : {How{{Kind::kSilu}, false, true, true}, How{{Kind::kGeluTanh}, false, false, false},
                         How{{Kind::kClamped, 1.7f, 1.5f}, false, true, true}, How{{Kind::kSilu}, true, false, false},
                         How{{Kind::kSilu}, true, true, true}}) {
    for (const std::int64_t rows : {1, 9}) {
      std::vector<std::int32_t> expert;
      for (std::int64_t t = 0; t < rows; ++t) {
        expert.push_back(static_cast<std::int32_t>(t % kExperts));
        expert.push_back(static_cast<std::int32_t>((t / 2 + t % kExperts + 1) % kExperts));
        if (expert[2 * t] == expert[2 * t + 1]) expert.back() = (expert.back() + 1) % kExperts;
      }
      MoePlan plan;
      plan.build(expert.data(), rows, kPerToken, kExperts);
      const Outcome expected = on_cpu(how, rows, plan), got = on_device(how, rows, plan);
      for (std::size_t i = 0; i < got.hidden.size(); ++i) {
        expect_close(got.hidden[i], expected.hidden[i], kSums, concat("hidden ", i, " of ", rows, " rows"));
      }
      for (std::size_t i = 0; i < got.out.size(); ++i) {
        expect_close(got.out[i], expected.out[i], kSums, concat("out ", i, " of ", rows, " rows"));
      }
    }
  }
}

SPECMOE_DEVICE_TESTS(DeviceMoeRuleTest);
SPECMOE_DEVICE_TESTS(DeviceMoeUpTest);

}  // namespace
}  // namespace specmoe::kernels::cuda
