#pragma once

// Attention of a tree's rows over a cache. A team shares the heads of keys and values, as the threads of a model do.

#include <bit>

#include "experiments/benchmarks/kernel_cases.h"
#include "kernels/tree_attention.h"

namespace specmoe::bench {

constexpr std::int64_t kGroup = 4;  // query heads that share keys and values

/// The cache of one head of keys and values.
class CachedHead {
 public:
  CachedHead(std::int64_t committed, std::int64_t staged, std::int64_t head_dim, DType dtype, Noise& noise)
      : committed_(committed),
        head_dim_(head_dim),
        dtype_(dtype),
        positions_(committed + staged),
        memory_(kernels::allocate_aligned(static_cast<std::size_t>(2 * positions_ * row_bytes()))),
        scales_(2, positions_) {
    for (std::int64_t i = 0; i < 2 * positions_; ++i) {
      const FloatRows row(1, head_dim, noise);
      kernels::store_cached_row(row.data(), head_dim, dtype, memory_.get() + i * row_bytes(), scales_.data() + i);
    }
  }

  kernels::AttentionHead view() const {
    const std::byte* values = memory_.get() + positions_ * row_bytes();
    return {memory_.get(),        values, head_dim_, head_dim_, committed_, dtype_, scales_.view().row(0),
            scales_.view().row(1)};
  }
  double bytes() const {
    return static_cast<double>(2 * positions_ * row_bytes()) + (dtype_ == DType::kInt8 ? scales_.bytes() : 0);
  }

 private:
  std::int64_t row_bytes() const { return head_dim_ * static_cast<std::int64_t>(kernels::dtype_bytes(dtype_)); }

  std::int64_t committed_, head_dim_;
  DType dtype_;
  std::int64_t positions_;
  kernels::AlignedBytes memory_;  // keys, then values
  FloatRows scales_;              // of keys, of values
};

struct Attention {
  ThreadPool& team;
  Backend backend;
  std::int64_t rows, head_dim;
  std::vector<CachedHead> heads;
  std::vector<std::uint64_t> ancestors;
  FloatRows query, out;            // [T, heads * kGroup * head_dim]
  std::vector<FloatRows> scratch;  // by thread

  Attention(const Setup& setup, DType dtype, std::int64_t dim, std::int64_t context, std::int64_t t,
            Noise noise = Noise(7))
      : team(setup.team),
        backend(setup.backend),
        rows(t),
        head_dim(dim),
        // Large, so that a few keys hold most of the weight, as in a text.
        query(rows, head_count() * kGroup * head_dim, noise, 8.0F),
        out(rows, head_count() * kGroup * head_dim) {
    for (std::int64_t h = 0; h < head_count(); ++h) heads.emplace_back(context, rows, head_dim, dtype, noise);
    for (std::int64_t row = 0; row < rows; ++row) {  // a tree in which every row has two children
      const std::uint64_t above = row == 0 ? 0 : ancestors[static_cast<std::size_t>((row - 1) / 2)];
      ancestors.push_back(above | std::uint64_t{1} << row);
    }
    const std::int64_t floats = kernels::attention_scratch_floats(context + rows, head_dim);
    for (int thread = 0; thread < team.size(); ++thread) scratch.emplace_back(1, floats);
  }

  /// 8 or a few more: as many for every thread.
  std::int64_t head_count() const { return (8 + team.size() - 1) / team.size() * team.size(); }

  void attend(Backend on, std::int64_t head, const FloatRows& to, float* own_scratch) const {
    const std::int64_t width = kGroup * head_dim;
    const auto part = [&](const FloatRows& of) {
      return Rows<float>{of.data() + head * width, rows, width, of.view().stride};
    };
    const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
    kernels::tree_attention.up_to(on)(part(query), heads[static_cast<std::size_t>(head)].view(), ancestors.data(), 1,
                                      {head_dim, head_dim, scale}, part(to), own_scratch);
  }
  void run() {
    team.run([&](ThreadPool::Member& member) {
      const Range own = kernels::split(head_count(), member.shard());
      float* own_scratch = scratch[static_cast<std::size_t>(member.shard().index)].data();
      for (std::int64_t head = own.begin; head < own.end; ++head) attend(backend, head, out, own_scratch);
    });
  }
  /// Of the first and the last head.
  std::string check() {
    run();
    const FloatRows expected(rows, out.view().cols);
    for (const std::int64_t head : {std::int64_t{0}, head_count() - 1}) {
      attend(Backend::kScalar, head, expected, scratch.front().data());
      const std::int64_t width = kGroup * head_dim;
      const std::string found = difference(out.view(), expected.view(), {head * width, (head + 1) * width}, kSums);
      if (!found.empty()) return found;
    }
    return {};
  }

  double bytes() const {
    return static_cast<double>(head_count()) * heads.front().bytes() + query.bytes() + out.bytes();
  }
  /// Scores and sums of values, of what each row sees.
  double operations() const {
    double seen = static_cast<double>(rows * heads.front().view().committed);
    for (const std::uint64_t row : ancestors) seen += std::popcount(row);
    return 4.0 * seen * static_cast<double>(head_count() * kGroup * head_dim);
  }
};

inline std::vector<Case> attention_cases(const Setup& setup, DType dtype, std::int64_t head_dim) {
  std::vector<Case> cases;
  for (const std::int64_t context : {256, 4096}) {
    for (const std::int64_t rows : {1, 8}) {
      const auto call = std::make_shared<Attention>(setup, dtype, head_dim, context, rows);
      Case what = {"tree_attention",
                   {{"cache", std::string(kernels::dtype_name(dtype))},
                    {"heads", call->head_count()},
                    {"d", head_dim},
                    {"context", context}},
                   rows};
      what.bytes = call->bytes();
      what.operations = call->operations();
      what.arithmetic = setup.arithmetic(DType::kFloat32);
      what.team = &setup.team;
      cases.push_back(case_of(call, what));
    }
  }
  return cases;
}

}  // namespace specmoe::bench
