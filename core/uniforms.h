#pragma once

#include <array>
#include <cstdint>

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

  /// u < numerator / denominator, denominator > 0. Strict, so nothing of probability zero is ever accepted.
  bool less(const Scalar& numerator, const Scalar& denominator = Scalar(1)) const {
    if (oracle_ == nullptr) return Scalar(value_) * denominator < numerator;
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
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

/// Uniforms addressed by (seed, sequence, step, node, purpose, slot): no state, so neither batch composition nor order
/// nor device changes what a decision sees.
class PhiloxUniforms final : public UniformSource<double> {
 public:
  PhiloxUniforms(std::uint64_t seed, std::uint64_t sequence, std::uint64_t step)
      : seed_(seed), sequence_(sequence), step_(step) {}

  /// A multiple of 2^-53 in [0, 1).
  double value(UniformAddress address) const;
  Uniform<double> at(UniformAddress address) override { return Uniform<double>(value(address)); }

 private:
  std::uint64_t seed_;
  std::uint64_t sequence_;
  std::uint64_t step_;
};

}  // namespace specmoe
