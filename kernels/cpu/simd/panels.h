#pragma once

// Shared by every instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

inline constexpr int kPanel = static_cast<int>(PackedMatrix::kPanel);
inline constexpr int kGroup = 4;  // panels multiplied together: four streams from memory
inline constexpr int kGroupOutputs = kGroup * kPanel;

}  // namespace specmoe::kernels::SPECMOE_SIMD
