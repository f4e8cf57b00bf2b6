#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/sampling.h"
#include "tests/cuda/device_test.h"

namespace specmoe::kernels::cuda {
namespace {

class DeviceRowsTest : public DeviceTest {
 protected:
  /// What a row of logits becomes on the device, and by the reference.
  std::vector<float> sampled(const DeviceRows& logits, const SamplingRule& rule) {
    const DeviceRows probs(1, logits.view().cols);
    sampling_probs(logits.view(), count(1, 1), rule, probs.view(), *stream_);
    return download_rows(probs.view());
  }
  static std::vector<float> reference_probs(const std::vector<float>& logits, const SamplingRule& rule) {
    std::vector<float> probs(logits.size());
    std::vector<std::int32_t> scratch(logits.size());
    kernels::sampling_probs.on(Backend::kScalar)(logits.data(), static_cast<std::int64_t>(logits.size()), rule,
                                                 probs.data(), scratch.data());
    return probs;
  }
};

TEST_P(DeviceRowsTest, RmsNormMatchesTheReferenceAndRowsStandAlone) {
  for (const std::int64_t width : {1, 7, 33, 256, 1031}) {
    constexpr std::int64_t kRows = 3;
    std::vector<float> x = random_floats(kRows * width, 1, 3.0f);
    const std::vector<float> weight = random_floats(width, 2);
    const DeviceArray<float> device_weight = upload(weight);
    std::vector<float> expected(x.size());
    kernels::rms_norm.on(Backend::kScalar)(kernels::view(x, kRows, width), weight.data(), 1e-3f,
                                           kernels::view(expected, kRows, width));
    const auto run = [&](std::int64_t first, std::int64_t rows, std::int64_t most) {
      const DeviceRows device =
          upload_rows({x.begin() + first * width, x.begin() + (first + rows) * width}, rows, width);
      rms_norm(device.view(), count(rows, most), device_weight.data(), 1e-3f, device.view(), *stream_);
      return download_rows(device.view());
    };
    const std::vector<float> out = run(0, kRows, 8);
    for (std::size_t i = 0; i < out.size(); ++i) expect_close(out[i], expected[i], kElementwise, concat(width));
    for (std::int64_t t = 0; t < kRows; ++t) {
      EXPECT_EQ(run(t, 1, 1), std::vector<float>(out.begin() + t * width, out.begin() + (t + 1) * width));
    }
  }
}

// What draft heads ask for: rows of one kind copied over those of another, and a smaller vocabulary's logits.
TEST_P(DeviceRowsTest, CopiesMarkedRowsAndSpreadsLogits) {
  constexpr std::int64_t kRows = 3, kCols = 301, kOwn = 7;
  const std::vector<float> x = random_floats(kRows * kCols, 1), wider = random_floats(kRows * (kCols + 4), 2);
  const DeviceRows to = upload_rows(x, kRows, kCols), from = upload_rows(wider, kRows, kCols + 4);
  const auto marks = upload(std::vector<std::int32_t>{1, 0, 1});
  copy_marked_rows(from.view(), marks.data(), count(2, 4), to.view(), *stream_);  // the third row is not there
  std::vector<float> expected = x;
  std::copy_n(wider.begin(), kCols, expected.begin());
  EXPECT_EQ(download_rows(to.view()), expected);

  std::vector<std::int32_t> places(kCols, -1);
  for (std::int32_t i = 0; i < kOwn; ++i) places[static_cast<std::size_t>(40 * i + 3)] = i;
  const auto device_places = upload(places);
  const DeviceRows own = upload_rows(std::vector<float>(x.begin(), x.begin() + 2 * kOwn), 2, kOwn);
  spread_logits(own.view(), device_places.data(), count(2, 2), to.view(), *stream_);
  for (std::int64_t t = 0; t < 2; ++t) {
    for (std::int64_t n = 0; n < kCols; ++n) {
      const std::int32_t place = places[static_cast<std::size_t>(n)];
      expected[static_cast<std::size_t>(t * kCols + n)] = place < 0 ? -INFINITY : x[t * kOwn + place];
    }
  }
  EXPECT_EQ(download_rows(to.view()), expected);
}

TEST_P(DeviceRowsTest, AddsWhatIsActivated) {
  constexpr std::int64_t kRows = 2, kCols = 301;
  const std::vector<float> x = random_floats(kRows * kCols, 1), branch = random_floats(kRows * kCols, 2, 4.0f);
  const DeviceRows device = upload_rows(x, kRows, kCols);
  add_silu(upload_rows(branch, kRows, kCols).view(), count(1, 2), device.view(), *stream_);
  const std::vector<float> got = download_rows(device.view());
  for (std::int64_t i = 0; i < kCols; ++i) {
    expect_close(got[i], x[i] + branch[i] / (1.0 + std::exp(-double{branch[i]})), kElementwise, concat(i));
  }
  EXPECT_EQ(std::vector<float>(got.begin() + kCols, got.end()), std::vector<float>(x.begin() + kCols, x.end()));
}

TEST_P(DeviceRowsTest, RopeTurnsQueriesAndKeysAndFillsTheCache) {
  constexpr std::int64_t kRows = 3, kPositions = 9, kCapacity = 6;
  AttentionShape shape = {40, 4, 2, 20, 0, 1.0f};  // behind a layer of 40 elements per position
  constexpr std::int64_t kHalf = 8;                // four of the 20 dimensions do not turn
  const std::int64_t width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
  const std::vector<float> before = random_floats(kRows * width, 1);
  const std::vector<float> table = random_floats(kPositions * 2 * kHalf, 2);
  const std::vector<DeviceRow> info = {{0, 2, 7, 0}, {1, 0, 0, 0}, {1, 5, 3, 1}};
  const std::vector<float> norm = random_floats(shape.head_dim, 3), key_norm = random_floats(shape.head_dim, 4);
  const DeviceArray<float> device_norm = upload(norm), device_key_norm = upload(key_norm);
  for (const bool normed : {false, true}) {
    std::vector<float> expected = before;
    for (std::int64_t t = 0; t < kRows; ++t) {
      for (std::int64_t h = 0; h < shape.heads + shape.kv_heads; ++h) {
        const Rows<float> head = {expected.data() + t * width + h * shape.head_dim, 1, shape.head_dim, width};
        const float* weight = h < shape.heads ? norm.data() : key_norm.data();
        if (normed) kernels::rms_norm.on(Backend::kScalar)(head, weight, 1e-3f, head);
        kernels::rope.on(Backend::kScalar)(head, table.data(), kHalf, &info[t].position);
      }
    }
    // Queries, then the cached keys and values of every row.
    const auto run = [&](DType cached) {
      shape.cached = cached;
      const std::vector<float> empty((shape.first + shape.kv_heads * shape.head_dim) * kCapacity);
      std::vector<DeviceArray<std::byte>> keys, values;
      std::vector<DeviceSequence> sequences;
      for (int i = 0; i < 2; ++i) {
        keys.push_back(upload_cached(empty, cached));
        values.push_back(upload_cached(empty, cached));
        sequences.push_back({keys[i].data(), values[i].data(), kCapacity, 0, 0, nullptr});
      }
      const auto device_sequences = upload(sequences);
      const auto device_info = upload(info);
      const auto device_table = upload(table);
      const DeviceRows qkv = upload_rows(before, kRows, width);
      const HeadNorms norms = normed ? HeadNorms{device_norm.data(), device_key_norm.data(), 1e-3f} : HeadNorms{};
      rope_append(qkv.view(), count(kRows, 8), device_info.data(), device_sequences.data(), shape, norms,
                  device_table.data(), kHalf, *stream_);
      std::vector<float> got = download_rows(qkv.view());
      for (std::int64_t t = 0; t < kRows; ++t) {
        for (std::int64_t h = 0; h < 2 * shape.kv_heads; ++h) {
          const auto& memory = (h < shape.kv_heads ? keys : values)[info[t].sequence];
          const std::int64_t at = (shape.first + h % shape.kv_heads * shape.head_dim) * kCapacity +
                                  info[t].slot * std::int64_t{shape.head_dim};
          const std::vector<float> row = download_cached(memory, cached, at, shape.head_dim);
          std::copy(row.begin(), row.end(), got.begin() + t * width + (shape.heads + h) * std::int64_t{shape.head_dim});
        }
      }
      return got;
    };
    const std::vector<float> got = run(DType::kFloat32);
    for (std::size_t i = 0; i < got.size(); ++i) expect_close(got[i], expected[i], kElementwise, concat(i));
    const std::vector<float> rounded = run(DType::kBFloat16), wanted = rounded_to_bfloat16(got);
    for (std::int64_t i = 0; i < kRows * width; ++i) {
      EXPECT_EQ(rounded[i], i % width < shape.heads * shape.head_dim ? got[i] : wanted[i]) << i;
    }
  }
}

TEST_P(DeviceRowsTest, KeepMovesThePathBehindTheCommittedRows) {
  constexpr std::int64_t kCapacity = 9;
  AttentionShape shape = {20, 2, 2, 20, 0, 1.0f};
  const std::size_t size = (shape.first + shape.kv_heads * shape.head_dim) * kCapacity;
  const std::vector<float> before = rounded_to_bfloat16(random_floats(size, 1));
  std::vector<float> expected = before;
  for (std::int64_t head = 0; head < shape.kv_heads; ++head) {
    float* rows = expected.data() + (shape.first + head * shape.head_dim) * kCapacity + 3 * shape.head_dim;
    for (const auto& [to, from] : {std::pair{1, 2}, std::pair{2, 3}, std::pair{3, 5}}) {
      std::copy_n(rows + from * shape.head_dim, shape.head_dim, rows + to * shape.head_dim);
    }
  }
  const auto path = upload(std::vector<std::int32_t>{0, 2, 3, 5, -1});
  for (const DType cached : {DType::kFloat32, DType::kBFloat16}) {
    shape.cached = cached;
    const auto keys = upload_cached(before, cached), values = upload_cached(before, cached);
    const auto sequences = upload(std::vector<DeviceSequence>{{keys.data(), values.data(), kCapacity, 3, 0, nullptr}});
    kv_keep(sequences.data(), 1, path.data(), 5, shape, *stream_);
    EXPECT_EQ(download_cached(keys, cached, 0, size), expected);
    EXPECT_EQ(download_cached(values, cached, 0, size), expected);
  }
}

TEST_P(DeviceRowsTest, ArgmaxIsTheReferences) {
  const std::int64_t vocab = 777;
  std::vector<float> x = random_floats(4 * vocab, 1);
  x[100] = x[600] = 5.0f;
  std::fill(x.begin() + 2 * vocab, x.begin() + 3 * vocab, NAN);
  x[3 * vocab] = NAN;
  std::vector<std::int32_t> expected(4);
  kernels::row_argmax.on(Backend::kScalar)(kernels::view(x, 4, vocab), expected.data());
  const DeviceRows device = upload_rows(x, 4, vocab);
  const DeviceArray<std::int32_t> argmax(4);
  row_argmax(device.view(), count(4, 9), argmax.data(), *stream_);
  EXPECT_EQ(download(argmax.data(), 4), expected);
  EXPECT_EQ(expected[0], 100);
  EXPECT_EQ(expected[2], -1);
}

TEST_P(DeviceRowsTest, SamplingTransformsAreTheReferences) {
  const std::int64_t vocab = 301;
  std::vector<float> logits = random_floats(vocab, 1, 6.0f);
  for (int i = 0; i < 30; ++i) logits[9 * i + 2] = 5.5f;  // ties across every cut
  const DeviceRows device = upload_rows(logits, 1, vocab);
  for (const float temperature : {1.0f, 0.3f}) {
    for (const std::int64_t top_k : {0, 1, 7, 301}) {
      for (const auto& [top_p, min_p] : {std::pair{1.0f, 0.0f},
                                         {0.9f, 0.0f},
                                         {0.31f, 0.0f},
                                         {0.001f, 0.0f},
                                         {1.0f, 0.05f},
                                         {0.9f, 0.05f},
                                         {1.0f, 1.0f}}) {
        const SamplingRule rule = {temperature, top_k, top_p, min_p};
        const std::vector<float> expected = reference_probs(logits, rule);
        const std::vector<float> got = sampled(device, rule);
        for (std::int64_t i = 0; i < vocab; ++i) {
          const std::string where =
              concat("temperature ", temperature, " top_k ", top_k, " top_p ", top_p, " min_p ", min_p, " at ", i);
          EXPECT_EQ(got[i] > 0, expected[i] > 0) << where;
          expect_close(got[i], expected[i], kProbability, where);
        }
      }
    }
  }
}

/// Even where a cut asks for more tokens than are possible.
TEST_P(DeviceRowsTest, ImpossibleTokensHaveNoProbability) {
  const std::int64_t vocab = 301;
  std::vector<float> logits = random_floats(vocab, 1, 6.0f);
  for (std::int64_t i = 0; i < vocab; ++i) {
    if (i % 50 != 3) logits[i] = -INFINITY;
  }
  const DeviceRows device = upload_rows(logits, 1, vocab);
  for (const SamplingRule& rule :
       {SamplingRule{}, {50.0f}, {1.0f, 2}, {1.0f, 20}, {1.0f, 0, 0.97f}, {1.0f, 20, 0.9f, 1e-30f}}) {
    const std::vector<float> expected = reference_probs(logits, rule);
    const std::vector<float> got = sampled(device, rule);
    for (std::int64_t i = 0; i < vocab; ++i) {
      const std::string where = concat("top_k ", rule.top_k, " top_p ", rule.top_p, " at ", i);
      if (logits[i] == -INFINITY) {
        EXPECT_EQ(got[i], 0.0f) << where;
      }
      expect_close(got[i], expected[i], kProbability, where);
    }
  }
}

SPECMOE_DEVICE_TESTS(DeviceRowsTest);

}  // namespace
}  // namespace specmoe::kernels::cuda
