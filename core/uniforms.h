#pragma once

#include <array>
#include <cstdint>

#include "kernels/host_device.h"

namespace specmoe {

/// What a uniform decides. Two decisions never share an address.
enum class Purpose : std::uint32_t { kDraft = 1, kAccept = 2, kNext = 3, kPlugin = 4 };

/// Where a uniform lives inside one step of one sequence. `slot` tells apart several uniforms of one node and purpose
/// (the i-th child drawn at a node, the i-th sibling tested there).
struct UniformAddress {
  std::int32_t node = 0;
  Purpose purpose = Purpose::kAccept;
  std::int32_t slot = 0;
};

/// u < numerator / denominator, denominator > 0. Strict, so nothing of probability zero is ever accepted.
template <class Scalar>
SPECMOE_HD bool uniform_less(double u, const Scalar& numerator, const Scalar& denominator) {
  return Scalar(u) * denominator < numerator;
}

/// A uniform in [0, 1) that can only be compared. At run time it is a number; under proof (core/prover) it is an
/// interval that the comparison splits, both branches being visited. So code that decides with uniforms is proved as
/// is.
template <class Scalar>
class UniformOracle {
 public:
  virtual ~UniformOracle() = default;
  /// Whether the uniform numbered `id` is below threshold.
  virtual bool less(std::uint64_t id, const Scalar& threshold) = 0;
};

template <class Scalar>
class Uniform {
 public:
  explicit Uniform(double value) : value_(value) {}
  Uniform(UniformOracle<Scalar>* oracle, std::uint64_t id) : oracle_(oracle), id_(id) {}

  /// As uniform_less.
  bool less(const Scalar& numerator, const Scalar& denominator = Scalar(1)) const {
    if (oracle_ == nullptr) return uniform_less(value_, numerator, denominator);
    return oracle_->less(id_, numerator / denominator);
  }

 private:
  double value_ = 0.0;
  UniformOracle<Scalar>* oracle_ = nullptr;
  std::uint64_t id_ = 0;
};

/// The uniforms of one step of one sequence.
template <class Scalar>
class UniformSource {
 public:
  virtual ~UniformSource() = default;
  virtual Uniform<Scalar> at(UniformAddress address) = 0;
};

/// Philox 4x32-10 (Salmon et al. 2011): the random words of a counter under a key.
SPECMOE_HD inline std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                                      std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53U;
  constexpr std::uint64_t kMultiplier1 = 0xCD9E8D57U;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9U;
  constexpr std::uint32_t kWeyl1 = 0xBB67AE85U;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = kMultiplier0 * counter[0];
    const std::uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

/// Which uniforms: those of one step of one sequence.
struct UniformKey {
  std::uint64_t seed = 0;
  std::uint64_t sequence = 0;
  std::uint64_t step = 0;

  /// A multiple of 2^-53 in [0, 1).
  SPECMOE_HD double value(UniformAddress address) const {
    // Philox's key is the seed, run once through Philox together with the sequence, so that neither has to be cut to 32
    // bits.
    const auto key = philox({static_cast<std::uint32_t>(sequence), static_cast<std::uint32_t>(sequence >> 32), 0, 0},
                            {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
    const auto purpose = static_cast<std::uint32_t>(address.purpose);
    const auto words = philox({static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(address.node),
                               static_cast<std::uint32_t>(address.slot), purpose},
                              {key[0], key[1]});
    const std::uint64_t bits = (static_cast<std::uint64_t>(words[0]) << 32 | words[1]) >> 11;
    return static_cast<double>(bits) * 0x1.0p-53;
  }
};

/// Uniforms addressed by (seed, sequence, step, node, purpose, slot): no state, so neither batch composition nor order
/// nor device changes what a decision sees.
class PhiloxUniforms final : public UniformSource<double> {
 public:
  PhiloxUniforms(std::uint64_t seed, std::uint64_t sequence, std::uint64_t step) : key_{seed, sequence, step} {}

  const UniformKey& key() const { return key_; }
  double value(UniformAddress address) const { return key_.value(address); }
  Uniform<double> at(UniformAddress address) override { return Uniform<double>(value(address)); }

 private:
  UniformKey key_;
};

}  // namespace specmoe
