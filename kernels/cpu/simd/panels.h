#pragma once

// Shared by every instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

inline constexpr int kPanel = static_cast<int>(PackedMatrix::kPanel);
inline constexpr int kMostPanels = 8;  // multiplied together
inline constexpr int kGroupOutputs = kMostPanels * kPanel;

}  // namespace specmoe::kernels::SPECMOE_SIMD
