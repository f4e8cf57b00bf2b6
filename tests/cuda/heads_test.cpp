#include <cmath>

#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "tests/cuda/device_test.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr std::int64_t kRows = 3, kPositions = 40, kCapacity = 6;
constexpr float kEps = 1e-3f;

/// What happens to heads, on the host; the pointers of `rule` are not used.
struct HostRule {
  std::vector<float> query_norm, key_norm, table, long_table;
  HeadRule rule;
};

class DeviceHeadsTest : public DeviceTest {
 protected:
  static constexpr std::int64_t kFirst = 40, kFirstValue = 60;  // behind a layer of so many floats per position

  /// A head of the reference, from the values that it is made of.
  static std::vector<float> head_of(const HostRule& host, std::vector<float> x, bool is_query, bool is_value,
                                    const DeviceRow& row, std::int32_t text) {
    const HeadRule& rule = host.rule;
    const Rows<float> head = kernels::view(x, 1, static_cast<std::int64_t>(x.size()));
    const std::vector<float>& norm = is_query ? host.query_norm : host.key_norm;
    const auto rms_norm = kernels::rms_norm.on(Backend::kScalar);
    if (!is_value && !norm.empty() && !rule.norm_after) rms_norm(head, norm.data(), kEps, head);
    if (rule.clip > 0.0f) {
      for (float& value : x) value = std::clamp(value, -rule.clip, rule.clip);
    }
    if (is_value) return x;
    if (rule.half > 0) {
      const bool is_long = !host.long_table.empty() && text > rule.short_text;
      const std::vector<float>& table = is_long ? host.long_table : host.table;
      const Rows<float> turned = {head.data + rule.first_turned, 1, 2 * rule.half, head.stride};
      kernels::rope.on(Backend::kScalar)(turned, table.data(), rule.half, &row.position);
    }
    const std::vector<float> ones(x.size(), 1.0f);
    if (rule.norm_after) rms_norm(head, (norm.empty() ? ones : norm).data(), kEps, head);
    if (is_query && rule.temperature_floor > 0.0f) {
      const float periods = std::floor((static_cast<float>(row.position) + 1.0f) / rule.temperature_floor);
      for (float& value : x) value *= 1.0f + rule.temperature_scale * std::log1p(periods);
    }
    return x;
  }

  HeadRule upload_rule(const HostRule& host) {
    HeadRule rule = host.rule;
    const auto keep = [this](const std::vector<float>& values) {
      if (values.empty()) return static_cast<const float*>(nullptr);
      memory_.push_back(upload(values));
      return static_cast<const float*>(memory_.back().data());
    };
    rule.norms = {keep(host.query_norm), keep(host.key_norm), kEps};
    rule.cos_sin = keep(host.table);
    rule.long_cos_sin = keep(host.long_table);
    return rule;
  }

  void compare(const HostRule& host, AttentionShape shape, std::int32_t shared) {
    compare_one(host, shape, shared);
    shape.cached = DType::kBFloat16;
    compare_one(host, shape, shared);
  }

  /// Rows of two sequences, of which the second is meant for a longer text.
  void compare_one(const HostRule& host, const AttentionShape& shape, std::int32_t shared) {
    const std::int64_t own = shape.head_dim - shared, size = shape.value_size();
    const std::int64_t queries = shape.heads * shape.head_dim, stride = own + size;
    const std::vector<DeviceRow> info = {{0, 2, 7, 0}, {1, 0, 31, 0}, {1, 5, 3, 1}};
    const std::int32_t texts[] = {10, 30};
    const std::vector<float> query = random_floats(kRows * queries, 1);
    const std::vector<float> kv = random_floats(kRows * shape.kv_heads * stride, 2);
    const std::vector<float> common = random_floats(kRows * std::max(1, shared), 3);
    const DeviceRows device_query = upload_rows(query, kRows, queries);
    const DeviceRows device_kv = upload_rows(kv, kRows, shape.kv_heads * stride);
    const DeviceRows device_common = upload_rows(common, kRows, std::max(1, shared));
    HeadInputs heads;
    heads.query = device_query.view();
    heads.key = device_kv.view();
    heads.key_dim = static_cast<std::int32_t>(own);
    heads.key_stride = heads.value_stride = stride;
    heads.shared_key = device_common.view();
    heads.value = {device_kv.view().data + own, kRows, shape.kv_heads * stride - own, device_kv.view().stride};
    std::vector<DeviceArray<std::byte>> keys, values;
    std::vector<DeviceSequence> sequences;
    for (const std::int32_t text : texts) {
      keys.emplace_back((kFirst + shape.kv_heads * shape.head_dim) * kCapacity * dtype_bytes(shape.cached));
      values.emplace_back((kFirstValue + shape.kv_heads * size) * kCapacity * dtype_bytes(shape.cached));
      sequences.push_back({keys.back().data(), values.back().data(), kCapacity, 0, 0, nullptr, text});
    }
    const auto device_info = upload(info);
    const auto device_sequences = upload(sequences);
    append_heads(heads, count(kRows, 8), device_info.data(), device_sequences.data(), shape, upload_rule(host),
                 *stream_);
    const std::vector<float> turned = download_rows(device_query.view());
    const Tolerance computed = {2e-6, 2e-5};
    // A rounded element is at most 2^-8 of itself away from what it was.
    const Tolerance kept = shape.cached == DType::kBFloat16 ? Tolerance{2e-6, 4e-3} : computed;
    const auto expect_head = [](const std::vector<float>& got, const std::vector<float>& wanted, Tolerance tolerance,
                                const char* what) {
      ASSERT_EQ(got.size(), wanted.size());
      for (std::size_t i = 0; i < got.size(); ++i) expect_close(got[i], wanted[i], tolerance, concat(what, " ", i));
    };
    for (std::int64_t t = 0; t < kRows; ++t) {
      const std::int32_t text = texts[info[t].sequence];
      for (std::int64_t h = 0; h < shape.heads; ++h) {
        const std::int64_t at = t * queries + h * shape.head_dim;
        const std::vector<float> before(query.begin() + at, query.begin() + at + shape.head_dim);
        expect_head({turned.begin() + at, turned.begin() + at + shape.head_dim},
                    head_of(host, before, true, false, info[t], text), computed, "query");
      }
      for (std::int64_t h = 0; h < shape.kv_heads; ++h) {
        const auto from = kv.begin() + (t * shape.kv_heads + h) * stride;
        std::vector<float> key(from, from + own);
        key.insert(key.end(), common.begin() + t * shared, common.begin() + (t + 1) * shared);
        const auto cached = [&](const DeviceArray<std::byte>& memory, std::int64_t first, std::int64_t width) {
          return download_cached(memory, shape.cached, (first + h * width) * kCapacity + info[t].slot * width, width);
        };
        expect_head(cached(keys[info[t].sequence], kFirst, shape.head_dim),
                    head_of(host, key, false, false, info[t], text), kept, "key");
        expect_head(cached(values[info[t].sequence], shape.values(), size),
                    head_of(host, {from + own, from + stride}, false, true, info[t], text), kept, "value");
      }
    }
  }

  std::vector<DeviceArray<float>> memory_;
};

AttentionShape shape_of(std::int32_t heads, std::int32_t kv_heads, std::int32_t head_dim, std::int32_t value_dim = 0) {
  AttentionShape shape = {40, heads, kv_heads, head_dim};
  shape.value_dim = value_dim;
  shape.first_value = value_dim > 0 ? 60 : 0;
  return shape;
}

TEST_P(DeviceHeadsTest, HeadsAreMadeAsOnTheCpu) {
  HostRule host;
  host.table = random_floats(kPositions * 16, 10);
  host.rule.half = 8;
  compare(host, shape_of(4, 2, 20), 0);  // four of the 20 elements do not turn
  host.rule.clip = 0.4f;
  compare(host, shape_of(4, 2, 18), 0);
  host.query_norm = random_floats(20, 11);
  host.key_norm = random_floats(20, 12);
  compare(host, shape_of(2, 1, 20), 0);
  host.rule.clip = 0.0f;
  host.rule.norm_after = true;
  compare(host, shape_of(2, 1, 20), 0);
  host.query_norm.clear();
  host.key_norm.clear();
  compare(host, shape_of(2, 1, 20), 0);
}

TEST_P(DeviceHeadsTest, QueriesAreSharpenedByTheirPosition) {
  HostRule host;  // a layer that knows no positions
  host.rule.temperature_floor = 8.0f;
  host.rule.temperature_scale = 0.3f;
  compare(host, shape_of(3, 3, 70), 0);
}

TEST_P(DeviceHeadsTest, HeadsFromLowRankShareTheirLastElements) {
  HostRule host;
  host.table = random_floats(kPositions * 8, 10);
  host.rule.half = 4;
  host.rule.first_turned = 12;
  compare(host, shape_of(4, 4, 20, 10), 8);
}

TEST_P(DeviceHeadsTest, LongTextsTurnByATableOfTheirOwn) {
  HostRule host;
  host.table = random_floats(kPositions * 16, 10);
  host.long_table = random_floats(kPositions * 16, 13);
  host.rule.half = 8;
  host.rule.short_text = 29;
  compare(host, shape_of(2, 1, 16), 0);
  host.rule.short_text = 30;
  compare(host, shape_of(2, 1, 16), 0);
}

SPECMOE_DEVICE_TESTS(DeviceHeadsTest);

}  // namespace
}  // namespace specmoe::kernels::cuda
