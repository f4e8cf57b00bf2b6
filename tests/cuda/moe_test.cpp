#include <numeric>

#include "kernels/cuda/plan_sorter.h"
#include "kernels/moe_router.h"
#include "tests/cuda/device_test.h"
#include "tests/support/router_reference.h"

namespace specmoe::kernels::cuda {
namespace {

struct Shape {
  std::int64_t rows, width, inner, experts, k;
};

/// Device memory of a plan for `rows` rows.
struct PlanMemory {
  PlanMemory(std::int64_t rows, std::int64_t experts, std::int64_t k)
      : active(1), ids(experts), offsets(experts + 1), pairs(std::max<std::int64_t>(1, rows * k)), k(k) {}
  DevicePlan view() const {
    return {static_cast<std::int32_t>(k), active.data(), ids.data(), offsets.data(), pairs.data()};
  }
  DeviceArray<std::int32_t> active, ids, offsets, pairs;
  std::int64_t k;
};

class DeviceMoeTest : public DeviceTest {
 protected:
  struct Choice {
    std::vector<std::int32_t> expert;
    std::vector<float> weight;
    MoePlan plan;
  };
  Choice choose(const std::vector<float>& logits, std::int64_t rows, std::int64_t experts, std::int64_t k,
                bool renormalise, std::int64_t most = 0, const PlanSorter* sorter = nullptr) {
    most = std::max(most, rows);
    const DeviceRows device = upload_rows(logits, rows, experts);
    const PlanMemory memory(most, experts, k);
    const DeviceArray<std::int32_t> expert(rows * k);
    const DeviceArray<float> weight(rows * k);
    route(device.view(), count(rows, most), renormalise, expert.data(), weight.data(), memory.view(), *stream_, sorter);
    Choice choice{download(expert.data(), rows * k), download(weight.data(), rows * k), {}};
    const auto active = static_cast<std::size_t>(download(memory.active.data(), 1)[0]);
    choice.plan.experts = download(memory.ids.data(), active);
    choice.plan.offsets = download(memory.offsets.data(), active + 1);
    choice.plan.pairs = download(memory.pairs.data(), rows * k);
    return choice;
  }
};

TEST_P(DeviceMoeTest, RouterAndPlanAreTheReferences) {
  for (const Shape& s : {Shape{7, 0, 0, 8, 2}, Shape{5, 0, 0, 64, 8}, Shape{3, 0, 0, 5, 5}, Shape{1, 0, 0, 1, 1},
                         Shape{20, 0, 0, 130, 4}}) {
    for (const bool renormalise : {false, true}) {
      std::vector<float> logits = random_floats(s.rows * s.experts, 21, 4.0f);
      if (s.experts > 4) logits[4] = logits[1] = 5.0f;
      const Choice got = choose(logits, s.rows, s.experts, s.k, renormalise);
      expect_routing(got.expert, got.weight, logits, s.experts, s.k, renormalise);
      MoePlan plan;
      plan.build(got.expert.data(), s.rows, s.k, s.experts);
      EXPECT_EQ(got.plan.experts, plan.experts);
      EXPECT_EQ(got.plan.offsets, plan.offsets);
      EXPECT_EQ(got.plan.pairs, plan.pairs);
    }
  }
}

TEST_P(DeviceMoeTest, SortedPlansAreTheOthers) {
  constexpr std::int64_t kMost = PlanSorter::kFewRows + 6;
  for (const Shape& s : {Shape{kMost, 0, 0, 5, 2}, Shape{kMost, 0, 0, 40, 8}, Shape{3, 0, 0, 8, 2},
                         Shape{1, 0, 0, 1, 1}, Shape{0, 0, 0, 4, 2}}) {
    SCOPED_TRACE(concat(s.rows, " rows, ", s.k, " of ", s.experts));
    const std::vector<float> logits = random_floats(s.rows * s.experts, 23, 4.0f);
    const PlanSorter sorter(static_cast<int>(kMost * s.k), *stream_);
    const Choice sorted = choose(logits, s.rows, s.experts, s.k, true, kMost, &sorter);
    const Choice other = choose(logits, s.rows, s.experts, s.k, true, kMost);
    EXPECT_EQ(sorted.expert, other.expert);
    EXPECT_EQ(sorted.weight, other.weight);
    EXPECT_EQ(sorted.plan.experts, other.plan.experts);
    EXPECT_EQ(sorted.plan.offsets, other.plan.offsets);
    EXPECT_EQ(sorted.plan.pairs, other.plan.pairs);
  }
  const PlanSorter small(8, *stream_);
  EXPECT_THROW(choose(random_floats(kMost * 4, 1), kMost, 4, 2, true, kMost, &small), Error);
}

TEST_P(DeviceMoeTest, RouterGivesValidIdsForBrokenLogits) {
  std::vector<std::int32_t> expert = choose(std::vector<float>(8, NAN), 1, 8, 3, true).expert;
  std::sort(expert.begin(), expert.end());
  EXPECT_TRUE(expert[0] >= 0 && expert[2] < 8 && expert[0] != expert[1] && expert[1] != expert[2]);
}

/// Weights, inputs and routing of one MoE layer on the device; the last expert is never chosen.
struct Layer {
  Shape shape;
  std::vector<PackedMatrix> gate_up, down;
  std::vector<DeviceArray<std::byte>> bytes;
  DeviceArray<const std::byte*> gate_up_table, down_table;
  std::vector<float> x, residual, logits;
};

class DeviceMoeLayerTest : public DeviceMoeTest {
 protected:
  Layer make(const Shape& s, DType dtype) {
    Layer layer;
    layer.shape = s;
    std::vector<const std::byte*> gate_up, down;
    const auto keep = [&](const PackedMatrix& matrix) {
      layer.bytes.push_back(upload_panels(matrix));
      return static_cast<const std::byte*>(layer.bytes.back().data());
    };
    const float scale = 2.0f / std::sqrt(static_cast<float>(s.width));
    for (std::int64_t e = 0; e < s.experts; ++e) {
      const auto seed = static_cast<std::uint32_t>(10 * e);
      const auto gates = random_floats(s.inner * s.width, seed, scale);
      const auto ups = random_floats(s.inner * s.width, seed + 1, scale);
      layer.gate_up.emplace_back((s.inner + 15) / 16 * 32, s.width, dtype, Backend::kScalar);
      layer.gate_up.back().pack_gate_up(weight_view(gates, s.inner, s.width), weight_view(ups, s.inner, s.width));
      layer.down.push_back(random_matrix(s.width, s.inner, dtype, Backend::kScalar, seed + 2));
      gate_up.push_back(keep(layer.gate_up.back()));
      down.push_back(keep(layer.down.back()));
    }
    layer.gate_up_table = upload(gate_up);
    layer.down_table = upload(down);
    layer.x = random_floats(s.rows * s.width, 3);
    layer.residual = random_floats(s.rows * s.width, 4);
    layer.logits = random_floats(s.rows * s.experts, 5, 3.0f);
    for (std::int64_t t = 0; t < s.rows; ++t) layer.logits[(t + 1) * s.experts - 1] = -99.0f;
    return layer;
  }

  static DeviceMatrices matrices(const DeviceArray<const std::byte*>& table, const std::vector<PackedMatrix>& hosts) {
    return {table.data(), static_cast<std::int64_t>(hosts.size()), device_matrix(hosts.front(), nullptr)};
  }

  struct Outcome {
    std::vector<float> hidden, out;
    std::vector<std::int32_t> expert;
    std::vector<float> weight;
  };
  Outcome run(const Layer& layer, std::int64_t first, std::int64_t rows, std::int64_t most) {
    const Shape& s = layer.shape;
    const auto rows_of = [&](const std::vector<float>& values, std::int64_t cols) {
      return upload_rows({values.begin() + first * cols, values.begin() + (first + rows) * cols}, rows, cols);
    };
    const DeviceRows x = rows_of(layer.x, s.width), logits = rows_of(layer.logits, s.experts);
    const DeviceRows out = rows_of(layer.residual, s.width);  // in place
    const DeviceRows hidden(rows * s.k, s.inner), scratch(rows * s.k, s.width);
    const PlanMemory plan(most, s.experts, s.k);
    const DeviceArray<std::int32_t> expert(rows * s.k);
    const DeviceArray<float> weight(rows * s.k);
    const DeviceArray<unsigned> counters((s.width + 15) / 16);
    stream_->zero(counters.data(), counters.size() * sizeof(unsigned));
    const RowCount row_count = count(rows, most);
    route(logits.view(), row_count, true, expert.data(), weight.data(), plan.view(), *stream_);
    moe_up(x.view(), row_count, matrices(layer.gate_up_table, layer.gate_up), plan.view(), {}, hidden.view(), *stream_);
    moe_down(hidden.view(), row_count, matrices(layer.down_table, layer.down), plan.view(), weight.data(), nullptr,
             out.view(), scratch.view(), counters.data(), out.view(), *stream_);
    EXPECT_EQ(download(counters.data(), counters.size()), std::vector<unsigned>(counters.size(), 0));
    return {download_rows(hidden.view()), download_rows(out.view()), download(expert.data(), rows * s.k),
            download(weight.data(), rows * s.k)};
  }
};

TEST_P(DeviceMoeLayerTest, MatchesDoubleReference) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const Shape& s : {Shape{1, 32, 48, 8, 2}, Shape{2, 33, 20, 4, 1}, Shape{20, 24, 37, 3, 2}}) {
      const Layer layer = make(s, dtype);
      const Outcome got = run(layer, 0, s.rows, s.rows);
      for (std::int64_t t = 0; t < s.rows; ++t) {
        std::vector<double> out(layer.residual.begin() + t * s.width, layer.residual.begin() + (t + 1) * s.width);
        for (std::int64_t pair = t * s.k; pair < (t + 1) * s.k; ++pair) {
          const std::int64_t e = got.expert[pair];
          for (std::int64_t n = 0; n < s.inner; ++n) {
            double gate = 0, up = 0;
            for (std::int64_t d = 0; d < s.width; ++d) {
              gate += layer.gate_up[e].at(n / 16 * 32 + n % 16, d) * double{layer.x[t * s.width + d]};
              up += layer.gate_up[e].at(n / 16 * 32 + n % 16 + 16, d) * double{layer.x[t * s.width + d]};
            }
            const double hidden = gate / (1 + std::exp(-gate)) * up;
            expect_close(got.hidden[pair * s.inner + n], hidden, kSums, concat("hidden of pair ", pair, " at ", n));
            for (std::int64_t d = 0; d < s.width; ++d) {
              out[d] += got.weight[pair] * hidden * layer.down[e].at(d, n);
            }
          }
        }
        for (std::int64_t d = 0; d < s.width; ++d) {
          expect_close(got.out[t * s.width + d], out[d], kSums, concat(dtype_name(dtype), " row ", t, " at ", d));
        }
      }
    }
  }
}

TEST_P(DeviceMoeLayerTest, RowsDoNotDependOnTheirNumber) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Shape s = {33, 24, 20, 3, 2};
    const Layer layer = make(s, dtype);
    std::vector<float> alone;
    for (std::int64_t t = 0; t < s.rows; ++t) {
      const Outcome row = run(layer, t, 1, 1);
      alone.insert(alone.end(), row.out.begin(), row.out.end());
    }
    for (const std::int64_t rows : kRowCounts) {
      const std::vector<float> expected(alone.begin(), alone.begin() + rows * s.width);
      EXPECT_EQ(run(layer, 0, rows, rows).out, expected) << dtype_name(dtype) << " T=" << rows;
      if (rows > 7) continue;
      EXPECT_EQ(run(layer, 0, rows, 33).out, expected) << dtype_name(dtype) << " T=" << rows << " of 33";
    }
  }
}

SPECMOE_DEVICE_TESTS(DeviceMoeTest);
SPECMOE_DEVICE_TESTS(DeviceMoeLayerTest);

}  // namespace
}  // namespace specmoe::kernels::cuda
