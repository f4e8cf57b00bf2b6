#include "kernels/cuda/block_best.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/launch.h"

namespace specmoe::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

__global__ void __launch_bounds__(kThreads)
    row_argmax_kernel(Rows<const float> x, const std::int32_t* rows, std::int32_t* argmax) {
  const auto t = static_cast<std::int64_t>(blockIdx.x);
  if (t >= *rows) return;
  const Best best = block_best(x.row(t), x.cols, SharedArena().take<Best>(kWarps));
  if (threadIdx.x == 0) argmax[t] = best.index;
}

/// Sums over the elements of one row that lie at or above a threshold; threads take elements in turn, sums are added in
/// one order.
struct Tail {
  double mass = 0.0;
  double count = 0.0;
};

class RowCut {
 public:
  __device__ RowCut(float* probs, std::int64_t vocab, double* scratch)
      : probs_(probs), vocab_(vocab), scratch_(scratch) {}

  /// Keeps the `top_k` largest.
  __device__ void keep_largest(double top_k) {
    threshold_ = highest([&](std::uint32_t bits) { return tail(bits).count >= top_k; });
    ties_ = top_k - tail(threshold_ + 1).count;
  }
  /// Of what is kept, keeps the fewest largest that hold `share` of its mass.
  __device__ void keep_mass(double share) {
    const double wanted = kept_mass() * share;
    const std::uint32_t floor = threshold_;
    const std::uint32_t found = highest([&](std::uint32_t bits) { return tail(bits).mass >= wanted; });
    if (found > floor) {
      threshold_ = found;
      ties_ = tail(found).count - tail(found + 1).count;
    }
    const Tail above = tail(threshold_ + 1);
    const auto tied = static_cast<double>(__uint_as_float(threshold_));
    double needed = above.count > 0.0 ? 0.0 : 1.0;
    while (needed < ties_ && above.mass + needed * tied < wanted) needed += 1.0;
    ties_ = needed;
  }
  /// Of what is kept, keeps what is at least `least`.
  __device__ void keep_from(float least) {
    const std::uint32_t bits = __float_as_uint(least);
    if (bits <= threshold_) return;
    threshold_ = bits;
    ties_ = tail(bits).count - tail(bits + 1).count;
  }
  /// Zeros what is not kept and divides by the mass of what is.
  __device__ void apply() {
    const auto scale = static_cast<float>(1.0 / kept_mass());
    // Of elements at the threshold the first ones stay. Each thread counts those in its stretch of the row.
    const std::int64_t stretch = (vocab_ + kThreads - 1) / kThreads;
    const std::int64_t begin = threadIdx.x * stretch;
    const std::int64_t end = begin + stretch < vocab_ ? begin + stretch : vocab_;
    double before = 0.0;
    for (std::int64_t i = begin; i < end; ++i) before += __float_as_uint(probs_[i]) == threshold_ ? 1.0 : 0.0;
    double* counts = scratch_;
    counts[threadIdx.x] = before;
    __syncthreads();
    before = 0.0;
    for (unsigned i = 0; i < threadIdx.x; ++i) before += counts[i];
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint32_t bits = __float_as_uint(probs_[i]);
      bool kept = bits > threshold_;
      if (bits == threshold_) {
        kept = before < ties_;
        before += 1.0;
      }
      probs_[i] = kept ? probs_[i] * scale : 0.0f;
    }
  }

 private:
  /// Elements whose bits are `bits` or more: probabilities are not negative, so their bits are ordered as they are.
  __device__ Tail tail(std::uint32_t bits) {
    Tail own;
    for (std::int64_t i = threadIdx.x; i < vocab_; i += kThreads) {
      if (__float_as_uint(probs_[i]) < bits) continue;
      own.mass += static_cast<double>(probs_[i]);
      own.count += 1.0;
    }
    own.mass = block_sum(own.mass, scratch_);
    own.count = block_sum(own.count, scratch_ + kWarps);
    __syncthreads();
    return own;
  }
  /// The highest bits for which enough(bits) holds; it holds for 0 and, once it fails, for nothing higher.
  template <class Enough>
  __device__ std::uint32_t highest(const Enough& enough) {
    std::uint32_t low = 0;
    for (std::uint32_t bit = 1u << 30; bit > 0; bit >>= 1) {
      if (enough(low | bit)) low |= bit;
    }
    return low;
  }
  __device__ double kept_mass() {
    const Tail above = tail(threshold_ + 1);
    return above.mass + ties_ * static_cast<double>(__uint_as_float(threshold_));
  }

  float* probs_;
  std::int64_t vocab_;
  double* scratch_;
  std::uint32_t threshold_ = 0;  // of equal ones at the threshold, `ties_` are kept
  double ties_ = 0.0;            // at 0 it does not matter how many
};

/// A block per row.
__global__ void __launch_bounds__(kThreads)
    sampling_probs_kernel(Rows<const float> logits, const std::int32_t* rows, SamplingRule rule, Rows<float> out) {
  const auto t = static_cast<std::int64_t>(blockIdx.x);
  if (t >= *rows) return;
  double* scratch = SharedArena().take<double>(kThreads);
  const float* row = logits.row(t);
  float* probs = out.row(t);
  const std::int64_t vocab = logits.cols;
  const float largest = block_best(row, vocab, reinterpret_cast<Best*>(scratch)).value;
  double total = 0.0;
  for (std::int64_t i = threadIdx.x; i < vocab; i += kThreads) {
    probs[i] = expf((row[i] - largest) / rule.temperature);
    total += static_cast<double>(probs[i]);
  }
  const auto scale = static_cast<float>(1.0 / block_sum(total, scratch));
  for (std::int64_t i = threadIdx.x; i < vocab; i += kThreads) probs[i] *= scale;
  __syncthreads();
  const bool cut_k = rule.top_k > 0 && rule.top_k < vocab;
  const bool cut_p = rule.top_p < 1.0f;
  const bool cut_min = rule.min_p > 0.0f;
  if (!cut_k && !cut_p && !cut_min) return;
  RowCut row_cut(probs, vocab, scratch);
  if (cut_k) row_cut.keep_largest(static_cast<double>(rule.top_k));
  if (cut_p) row_cut.keep_mass(static_cast<double>(rule.top_p));
  if (cut_min) row_cut.keep_from(rule.min_p * scale);  // e^0 * scale is the largest
  row_cut.apply();
}

}  // namespace

void row_argmax(Rows<const float> x, RowCount rows, std::int32_t* argmax, Stream& stream) {
  if (rows.most == 0) return;
  launch(row_argmax_kernel, static_cast<unsigned>(rows.most), kThreads, arena_bytes<Best>(kWarps), stream, x,
         rows.actual, argmax);
}

void sampling_probs(Rows<const float> logits, RowCount rows, const SamplingRule& rule, Rows<float> probs,
                    Stream& stream) {
  if (rows.most == 0) return;
  launch(sampling_probs_kernel, static_cast<unsigned>(rows.most), kThreads, arena_bytes<double>(kThreads), stream,
         logits, rows.actual, rule, probs);
}

}  // namespace specmoe::kernels::cuda
