#include "kernels/cpu/probability_cut.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace specmoe::kernels {
namespace {

/// By falling probability, equal ones by rising index.
struct Larger {
  const float* probs;
  bool operator()(std::int32_t a, std::int32_t b) const { return probs[a] != probs[b] ? probs[a] > probs[b] : a < b; }
};

double sum(const float* probs, const std::int32_t* begin, const std::int32_t* end) {
  double total = 0;
  for (; begin != end; ++begin) total += static_cast<double>(probs[*begin]);
  return total;
}

/// Lists entries among which the k largest are, and returns how many: those of the k parts of the row whose own largest
/// entries are the largest, since k entries exceed any other.
std::int64_t list_largest(std::int64_t k, const float* probs, std::int64_t vocab, std::int32_t* index) {
  constexpr std::int64_t kPart = 32;
  const std::int64_t parts = vocab / kPart;
  if (parts <= k) {
    std::iota(index, index + vocab, 0);
    return vocab;
  }
  for (std::int64_t i = 0; i < parts; ++i) {
    index[i] = static_cast<std::int32_t>(std::max_element(probs + i * kPart, probs + (i + 1) * kPart) - probs);
  }
  std::nth_element(index, index + (k - 1), index + parts, Larger{probs});
  for (std::int64_t i = k; i-- > 0;) {  // from the last: a part's entries take more room than it did
    std::iota(index + i * kPart, index + (i + 1) * kPart, static_cast<std::int32_t>(index[i] / kPart * kPart));
  }
  const std::int64_t rest = vocab - parts * kPart;
  std::iota(index + k * kPart, index + k * kPart + rest, static_cast<std::int32_t>(parts * kPart));
  return k * kPart + rest;
}

/// Entries below it hold less than 1 - top_p together: no nucleus needs one.
float nucleus_floor(float top_p, std::int64_t vocab) { return 0.999f * (1.0f - top_p) / static_cast<float>(vocab); }

/// Lists all entries but those below `floor`.
std::int64_t list_from(float floor, const float* probs, std::int64_t vocab, std::int32_t* index) {
  std::int64_t count = 0;
  for (std::int32_t i = 0; i < vocab; ++i) {
    index[count] = i;
    count += probs[i] < floor ? 0 : 1;
  }
  return count;
}

/// Moves the fewest largest entries that hold `mass` to the front and returns how many they are. Halves the undecided
/// range by its median until it is small enough to sort, so a flat distribution costs no full sort.
std::int64_t select_mass(std::int32_t* index, std::int64_t count, double mass, const float* probs) {
  constexpr std::int64_t kSortable = 64;
  const Larger larger{probs};
  std::int64_t low = 0;
  std::int64_t high = count;
  double held = 0;  // by [0, low)
  while (high - low > kSortable) {
    const std::int64_t middle = low + (high - low) / 2;
    std::nth_element(index + low, index + middle, index + high, larger);
    const double upper = sum(probs, index + low, index + middle);
    if (held + upper >= mass) {
      high = middle;
    } else {
      held += upper;
      low = middle;
    }
  }
  std::sort(index + low, index + high, larger);
  while (low < high && held < mass) held += static_cast<double>(probs[index[low++]]);
  return std::max<std::int64_t>(low, 1);
}

/// Keeps only the entries listed, in rising order, in kept[0, count), scaled.
void keep_only(float* probs, std::int64_t vocab, const std::int32_t* kept, std::int64_t count, float scale) {
  std::int64_t at = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    std::fill(probs + at, probs + kept[i], 0.0f);
    at = kept[i];
    probs[at++] *= scale;
  }
  std::fill(probs + at, probs + vocab, 0.0f);
}

}  // namespace

void cut_probabilities(float* probs, std::int64_t vocab, float largest, const SamplingRule& rule,
                       std::int32_t* scratch) {
  const bool cut_k = rule.top_k > 0 && rule.top_k < vocab;
  const bool cut_p = rule.top_p < 1.0f;
  const bool cut_min = rule.min_p > 0.0f;
  if ((!cut_k && !cut_p && !cut_min) || std::isnan(probs[0])) return;  // one NaN makes all of a softmax NaN
  const float least = rule.min_p * largest;
  std::int64_t kept = 0;
  double mass = 1.0;
  if (cut_k) {
    const std::int64_t listed = list_largest(rule.top_k, probs, vocab, scratch);
    std::nth_element(scratch, scratch + (rule.top_k - 1), scratch + listed, Larger{probs});
    kept = rule.top_k;
    mass = sum(probs, scratch, scratch + kept);
  } else {
    kept = list_from(cut_p ? nucleus_floor(rule.top_p, vocab) : least, probs, vocab, scratch);
  }
  if (cut_p) kept = select_mass(scratch, kept, mass * static_cast<double>(rule.top_p), probs);
  if (cut_min) kept = std::partition(scratch, scratch + kept, [&](auto i) { return probs[i] >= least; }) - scratch;
  std::sort(scratch, scratch + kept);
  keep_only(probs, vocab, scratch, kept, static_cast<float>(1.0 / sum(probs, scratch, scratch + kept)));
}

}  // namespace specmoe::kernels
