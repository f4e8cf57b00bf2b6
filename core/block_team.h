#pragma once

#include "core/decide.h"
#include "kernels/cuda/block_best.h"

namespace specmoe::cuda {

/// OneThread's work done by all threads of a block, with the same bits: all of them run the same decision code on the
/// same values, and meet in here. The block's shared memory begins with what this needs.
class BlockTeam {
 public:
  static constexpr int kMostNodes = 512;  // of one PerNode
  static constexpr int kChunk = 256;      // blocks of the vocabulary that are summed at a time; terms staged for a draw
  static_assert(kChunk >= kDecideBlock);
  static constexpr std::size_t kSharedBytes = (kChunk + kMostNodes) * sizeof(double);

  template <class W, class Term, class See>
  __device__ static void block_sums(int vocab, const Term& term, const Taken& taken, const See& see) {
    const int team = static_cast<int>(threadIdx.x) / kDecideLanes;
    const int teams = static_cast<int>(blockDim.x) / kDecideLanes;
    for (int first = 0; first < vocab; first += kChunk * kDecideBlock) {
      const int left = (vocab - first + kDecideBlock - 1) / kDecideBlock;
      const int blocks = left < kChunk ? left : kChunk;
      for (int block = team; block < blocks; block += teams) {
        const int lo = first + block * kDecideBlock;
        const double sum = lanes_sum(lo, block_end(lo, vocab), term, taken);
        if (threadIdx.x % kDecideLanes == 0) scratch()[block] = sum;
      }
      __syncthreads();
      bool done = false;
      for (int block = 0; block < blocks && !done; ++block) {
        const int lo = first + block * kDecideBlock;
        done = see(lo, block_end(lo, vocab), scratch()[block]);
      }
      __syncthreads();
      if (done) return;
    }
  }

  template <class W, class Term, class Find>
  __device__ static TokenId find_in_block(int lo, int hi, const Term& term, const Find& find) {
    double* terms = scratch();
    for (int x = lo + static_cast<int>(threadIdx.x); x < hi; x += static_cast<int>(blockDim.x)) terms[x - lo] = term(x);
    __syncthreads();
    const TokenId found = find([terms, lo](TokenId x) { return terms[x - lo]; });
    __syncthreads();
    return found;
  }

  __device__ static TokenId argmax(std::span<const float> values) {
    return kernels::cuda::block_best(values.data(), static_cast<std::int64_t>(values.size()),
                                     reinterpret_cast<kernels::cuda::Best*>(scratch()))
        .index;
  }

  /// The likeliest token outside `taken`, the lowest id among equals, -1 when nothing there is above 0.
  __device__ static TokenId likeliest(std::span<const float> values, const Taken& taken) {
    kernels::cuda::Best best = {0.0f, -1};
    const int vocab = static_cast<int>(values.size());
    const float* data = values.data();
    for (int x = static_cast<int>(threadIdx.x); x < vocab; x += static_cast<int>(blockDim.x)) {
      if (data[x] > best.value && !taken.contains(x)) best.take(data[x], x);
    }
    return kernels::cuda::best_of_block(best, reinterpret_cast<kernels::cuda::Best*>(scratch())).index;
  }

  /// The largest index below `end` for which condition(index) holds, -1 if there is none.
  template <class Condition>
  __device__ static int last_where(int end, const Condition& condition) {
    // A block's threads look at as many neighbours at a time, from behind.
    const int threads = static_cast<int>(blockDim.x);
    int* last = reinterpret_cast<int*>(scratch());
    for (int high = end; high > 0; high -= threads) {
      const int own = high - 1 - static_cast<int>(threadIdx.x);
      const bool holds = own >= 0 && condition(own);
      const unsigned votes = __ballot_sync(kernels::cuda::kAllLanes, holds ? 1 : 0);
      // The lowest lane of a warp has its largest index.
      if (kernels::cuda::lane_index() == 0) {
        last[kernels::cuda::warp_index()] = votes == 0 ? -1 : own - (__ffs(static_cast<int>(votes)) - 1);
      }
      __syncthreads();
      int found = -1;
      for (int warp = 0; warp < threads / kernels::cuda::kWarp; ++warp) found = last[warp] > found ? last[warp] : found;
      __syncthreads();
      if (found >= 0) return found;
    }
    return -1;
  }

  template <class W>
  __device__ static W sum_and_sign(std::span<const float> values, bool& negative) {
    const int vocab = static_cast<int>(values.size());
    const float* data = values.data();
    double below = 0.0;
    for (int x = static_cast<int>(threadIdx.x); x < vocab; x += static_cast<int>(blockDim.x)) {
      if (data[x] < 0.0f) below = 1.0;
    }
    negative = kernels::cuda::block_sum(below, scratch()) > 0.0;
    __syncthreads();
    W total(0);
    block_sums<W>(
        vocab, [data](TokenId x) { return W(data[x]); }, Taken{},
        [&total](int, int, const W& inside) {
          total += inside;
          return false;
        });
    return total;
  }

  template <class T>
  class PerNode {
   public:
    static_assert(sizeof(T) == sizeof(double));
    __device__ explicit PerNode(int) {}
    __device__ void set(NodeId n, const T& value) {
      if (threadIdx.x == 0) memory()[n] = value;
      __syncthreads();
    }
    __device__ T operator[](NodeId n) const { return memory()[n]; }

   private:
    __device__ static T* memory() { return reinterpret_cast<T*>(scratch() + kChunk); }
  };

 private:
  __device__ static double* scratch() { return reinterpret_cast<double*>(kernels::cuda::shared_memory()); }
  __device__ static int block_end(int lo, int vocab) { return lo + kDecideBlock < vocab ? lo + kDecideBlock : vocab; }

  /// As block_sum, its lanes being threads.
  template <class Term>
  __device__ static double lanes_sum(int lo, int hi, const Term& term, const Taken& taken) {
    const int lane = static_cast<int>(threadIdx.x) % kDecideLanes;
    const bool whole = taken.empty() || !taken.touches(lo, hi);
    const int together = whole ? lo + (hi - lo) / kDecideLanes * kDecideLanes : lo;
    double sum = 0.0;
#pragma unroll 8
    for (int x = lo + lane; x < together; x += kDecideLanes) sum += term(x);
    if (lane == 0) {
      for (int x = together; x < hi; ++x) {
        if (whole || !taken.contains(x)) sum += term(x);
      }
    }
    const unsigned lanes = 0xffu << (kernels::cuda::lane_index() / kDecideLanes * kDecideLanes);
    for (int step = 1; step < kDecideLanes; step *= 2) sum += __shfl_xor_sync(lanes, sum, step);
    return sum;
  }
};

/// A row that a block goes through.
class TeamRow : public ProbRow<float> {
 public:
  using Team = BlockTeam;
  SPECMOE_HD TeamRow() {}
  __device__ explicit TeamRow(const ProbRow<float>& row) : ProbRow<float>(row) {}
};

/// What stands for a Uniform and a UniformSource on a device.
struct BlockUniform {
  double value;
  __device__ bool less(double numerator, double denominator = 1.0) const {
    return uniform_less(value, numerator, denominator);
  }
};
struct BlockUniforms {
  UniformKey key;
  __device__ BlockUniform at(UniformAddress address) const { return {key.value(address)}; }
};

}  // namespace specmoe::cuda
