#include "core/uniforms.h"

namespace specmoe {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
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

double PhiloxUniforms::value(UniformAddress address) const {
  // The key is the seed, run once through Philox together with the sequence, so that neither has to be cut to 32 bits.
  const auto key = philox({static_cast<std::uint32_t>(sequence_), static_cast<std::uint32_t>(sequence_ >> 32), 0, 0},
                          {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
  const auto purpose = static_cast<std::uint32_t>(address.purpose);
  const auto words = philox({static_cast<std::uint32_t>(step_), static_cast<std::uint32_t>(address.node),
                             static_cast<std::uint32_t>(address.slot), purpose},
                            {key[0], key[1]});
  const std::uint64_t bits = (static_cast<std::uint64_t>(words[0]) << 32 | words[1]) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

}  // namespace specmoe
